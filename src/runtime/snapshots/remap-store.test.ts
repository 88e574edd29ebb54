import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Call } from '../../kit/call.js';
import { isKind, RuntimeError } from '../../kit/errors.js';
import { silentObserver, type StepProgress } from '../../kit/observer.js';
import type { Flusher } from './flush.js';
import { openRemapStore, remapId, type MakeRemap, type RemapOrder, type RemapStore } from './remap-store.js';
import { openWorkshop, type Workshop } from './workshop.js';

const lines = (hostId: number) => [{ containerId: 0, hostId, size: 65536 }];
const order = (hostId = 100_000, changes: Partial<RemapOrder> = {}): RemapOrder => ({
  way: 'metacopy',
  chainId: 'sha256:aa',
  mappings: { uids: lines(hostId), gids: lines(hostId) },
  lowerDirs: ['/layers/a'],
  ...changes,
});
const call = (changes: Partial<Call> = {}): Call => ({
  signal: new AbortController().signal,
  observer: silentObserver,
  ...changes,
});
const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

describe('keys of remapped layers', () => {
  it('are the same for maps that say the same', () => {
    const split = [
      { containerId: 10, hostId: 100_010, size: 65526 },
      { containerId: 0, hostId: 100_000, size: 10 },
    ];
    assert.equal(remapId(order()), remapId(order(100_000, { mappings: { uids: split, gids: lines(100_000) } })));
  });

  it('differ by image, way, and each of both maps', () => {
    const ids = [
      order(),
      order(200_000),
      order(100_000, { way: 'copy' }),
      order(100_000, { chainId: 'sha256:bb' }),
      order(100_000, { mappings: { uids: lines(100_000), gids: lines(200_000) } }),
      order(100_000, { mappings: { uids: lines(200_000), gids: lines(100_000) } }),
    ].map(remapId);
    assert.equal(new Set(ids).size, ids.length);
  });
});

describe('remapped layers', () => {
  let root: string;
  let workshop: Workshop;
  let store: RemapStore;
  let made: number;
  let used: Set<string>;
  let make: MakeRemap;

  const open = async (keepUnused = 2, flusher?: Flusher): Promise<void> => {
    workshop = await openWorkshop(join(root, 'tmp'), silentObserver);
    store = await openRemapStore({
      dir: join(root, 'remaps'),
      make: (...args) => make(...args),
      isUsed: (id) => used.has(id),
      keepUnused,
      workshop,
      flusher,
      observer: silentObserver,
    });
  };
  const settled = async (): Promise<void> => {
    await store.close();
    await workshop.settled();
  };
  const kept = (): string[] => readdirSync(join(root, 'remaps')).sort();

  beforeEach(async () => {
    root = mkdtempSync(join(tmpdir(), 'berth-remaps-'));
    made = 0;
    used = new Set();
    make = async (_order, dir) => {
      made += 1;
      writeFileSync(join(dir, 'file'), 'x');
      return { bytes: 4096, inodes: 2 };
    };
    await open();
  });
  afterEach(async () => {
    await settled();
    rmSync(root, { recursive: true });
  });

  it('are made once, found again, and remembered', async () => {
    assert.equal(await store.ensure(order(), call()), 'made');
    assert.equal(await store.ensure(order(), call()), 'cached');
    const [remap] = store.remaps();
    assert.deepEqual([remap?.bytes, remap?.inodes, remap?.way], [4096, 2, 'metacopy']);
    assert.deepEqual(readdirSync(remap?.dir ?? ''), ['file']);
    assert.equal(remap?.dir, store.dirOf(remapId(order())));
    const before = store.remaps();
    await open();
    assert.deepEqual(store.remaps(), before);
    assert.equal(await store.ensure(order(), call()), 'cached');
    assert.equal(made, 1);
  });

  it('are made once for all who want them at the same time, who all see how far it has come', async () => {
    let finish = (): void => undefined;
    const finished = new Promise<void>((resolve) => (finish = resolve));
    let reported = (): void => undefined;
    const report = new Promise<void>((resolve) => (reported = resolve));
    make = async (_order, _dir, _signal, tell) => {
      made += 1;
      tell({ entries: 7, bytes: 70 });
      reported();
      await finished;
      return { bytes: 0, inodes: 1 };
    };
    const seen: StepProgress[] = [];
    const observer = { ...silentObserver, progress: (done: StepProgress) => void seen.push(done) };
    const first = store.ensure(order(), call({ observer }));
    await report;
    const second = store.ensure(order(), call({ observer }));
    finish();
    assert.deepEqual(await Promise.all([first, second]), ['made', 'joined']);
    assert.equal(made, 1);
    assert.deepEqual(seen, [
      { entries: 7, bytes: 70 },
      { entries: 7, bytes: 70 },
    ]);
  });

  it('end when the last who wants them leaves, and leave nothing', async () => {
    let ended = 0;
    let begun = (): void => undefined;
    const beginning = new Promise<void>((resolve) => (begun = resolve));
    make = async (_order, dir, signal) => {
      writeFileSync(join(dir, 'half'), 'x');
      begun();
      await new Promise((_, reject) =>
        signal.addEventListener('abort', () => {
          ended += 1;
          reject(signal.reason as Error);
        }),
      );
      return { bytes: 0, inodes: 0 };
    };
    const [one, two] = [new AbortController(), new AbortController()];
    const first = store.ensure(order(), call({ signal: one.signal }));
    const second = store.ensure(order(), call({ signal: two.signal }));
    await beginning;
    one.abort(new RuntimeError('cancelled', 'the pod goes'));
    await assert.rejects(first, /the pod goes/);
    assert.equal(ended, 0);
    two.abort();
    await assert.rejects(second, (error) => isKind(error, 'cancelled'));
    await settled();
    assert.equal(ended, 1);
    assert.deepEqual([kept(), readdirSync(join(root, 'tmp'))], [[], []]);
  });

  it('leave nothing when they cannot be made, and can be tried again', async () => {
    const good = make;
    make = async (_order, dir) => {
      writeFileSync(join(dir, 'half'), 'x');
      throw new RuntimeError('invalid-argument', 'etc/foo: uid 70000 is not mapped');
    };
    await assert.rejects(store.ensure(order(), call()), /etc\/foo: uid 70000 is not mapped/);
    await workshop.settled();
    assert.deepEqual([store.remaps(), kept(), readdirSync(join(root, 'tmp'))], [[], [], []]);
    make = good;
    assert.equal(await store.ensure(order(), call()), 'made');
  });

  it('stay as long as they are used; of the others those used last', async () => {
    const ids = [1, 2, 3, 4, 5].map((n) => n * 100_000);
    for (const id of ids) {
      used.add(remapId(order(id)));
      await store.ensure(order(id), call());
      await turn();
    }
    assert.equal(store.remaps().length, 5);
    const free = async (host: number): Promise<void> => {
      const id = remapId(order(host));
      used.delete(id);
      store.unused(id);
      await turn();
    };
    for (const id of [200_000, 100_000, 300_000]) await free(id);
    const there = (): number[] => ids.filter((id) => store.remap(remapId(order(id))) !== undefined);
    assert.deepEqual(there(), [100_000, 300_000, 400_000, 500_000]);
    await settled();
    assert.equal(kept().length, 4);
    await open();
    used.clear();
    store.unused(remapId(order(400_000)));
    assert.deepEqual(there(), [300_000, 400_000], 'the order of use outlives the process');
  });

  it('go with their image, unless they are used', async () => {
    await store.ensure(order(), call());
    const other = order(100_000, { chainId: 'sha256:bb' });
    await store.ensure(other, call());
    used.add(remapId(other));
    store.release(() => false);
    assert.deepEqual(
      store.remaps().map(({ id }) => id),
      [remapId(other)],
    );
    await settled();
    assert.ok(!existsSync(store.dirOf(remapId(order()))));
    store.release((chainId) => chainId === 'sha256:bb');
    used.clear();
    store.release((chainId) => chainId === 'sha256:bb');
    assert.equal(store.remaps().length, 1);
  });

  it('can be made anew while the old one is being deleted', async () => {
    await store.ensure(order(), call());
    store.release(() => false);
    assert.equal(await store.ensure(order(), call()), 'made');
    await settled();
    assert.deepEqual(readdirSync(store.dirOf(remapId(order()))), ['file']);
  });

  it('of an earlier boot are trusted only where they were flushed', async () => {
    const added: string[] = [];
    const flusher: Flusher = { add: (dir) => void added.push(dir), flush: async () => undefined };
    await open(2, flusher);
    await store.ensure(order(), call());
    await store.ensure(order(200_000), call());
    assert.deepEqual(
      added,
      store.remaps().map(({ dir }) => dirname(dir)),
    );
    for (const dir of added) {
      const path = join(dir, 'remap.json');
      writeFileSync(path, JSON.stringify({ ...(JSON.parse(readFileSync(path, 'utf8')) as object), bootId: 'earlier' }));
    }
    writeFileSync(join(added[0] ?? '', 'flushed'), '');
    await open(2, flusher);
    assert.deepEqual(
      store.remaps().map(({ dir }) => dirname(dir)),
      added.slice(0, 1),
    );
  });

  it('that are damaged or of another key are removed', async () => {
    await store.ensure(order(), call());
    await store.ensure(order(200_000), call());
    const [first, second] = store.remaps();
    writeFileSync(join(first?.dir ?? '', '../remap.json'), '{');
    writeFileSync(join(second?.dir ?? '', '../remap.json'), JSON.stringify({ version: 1, way: 'copy', chainId: '' }));
    await open();
    assert.deepEqual(store.remaps(), []);
    await settled();
    assert.deepEqual(kept(), []);
  });
});
