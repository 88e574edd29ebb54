import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isKind } from '../../src/kit/errors.js';
import { silentObserver } from '../../src/kit/observer.js';
import { openOverlaySnapshotter } from '../../src/runtime/snapshots/overlay.js';
import type { Layer, PrepareOptions } from '../../src/runtime/snapshots/snapshotter.js';
import { measureTree, removeTree } from '../../src/runtime/snapshots/tree.js';
import { digestOf } from '../support/test-image.js';
import { snapshotterSuite } from '../suites/snapshotter-suite.js';

const open = async (root: string) => await openOverlaySnapshotter({ root, observer: silentObserver });

snapshotterSuite('overlay', async () => {
  const root = mkdtempSync(join(tmpdir(), 'berth-snapshots-'));
  const snapshotter = await open(root);
  return {
    snapshotter,
    reopen: async () => await open(root),
    async close() {
      await snapshotter.close();
      rmSync(root, { recursive: true, force: true });
    },
  };
});

describe('overlay snapshotter', () => {
  let root: string;
  beforeEach(() => (root = mkdtempSync(join(tmpdir(), 'berth-snapshots-'))));
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  it('refuses more layers than an overlay takes, before anything is made', async () => {
    const snapshotter = await open(root);
    const chain = Array.from({ length: 501 }, (_, i) => digestOf(`layer ${i}`));
    for (const [i, chainId] of chain.entries()) {
      const stage = await snapshotter.stage();
      const parent = chain[i - 1];
      await stage.commit({ chainId, ...(parent !== undefined && { parent }), diffId: chainId, bytes: 0, inodes: 0 });
    }
    const line = [{ containerId: 0, hostId: 100_000, size: 65_536 }];
    const mappings = { uids: line, gids: line };
    const attempt = async (layers: number, options: Omit<PrepareOptions, 'chainId'> = {}) =>
      await snapshotter.prepare('k', { chainId: chain[layers - 1] ?? '', ...options });
    const tooMany = (error: unknown): boolean =>
      isKind(error, 'invalid-argument') && /has 50[01] layers/.test(error.message);
    await assert.rejects(attempt(501), tooMany);
    for (const way of ['idmapped', 'copy'] as const) await assert.rejects(attempt(501, { mappings, way }), tooMany);
    await assert.rejects(attempt(500, { mappings, way: 'metacopy' }), tooMany);
    assert.deepEqual(snapshotter.list(), []);
    assert.equal((await attempt(500, { mappings, way: 'idmapped' })).lowerDirs.length, 500);
    await snapshotter.close();
  });

  it('keeps others out', async () => {
    const snapshotter = await open(root);
    await snapshotter.prepare('k', { chainId: '' });
    for (const name of ['', 'layers', 'active', 'tmp', `active/${readdirSync(join(root, 'active'))[0]}`]) {
      assert.equal(lstatSync(join(root, name)).mode & 0o777, 0o700, name);
    }
  });

  it('sets unreadable records aside and goes on', async () => {
    const first = await open(root);
    await first.prepare('good', { chainId: '' });
    const snapshot = await first.prepare('bad', { chainId: '' });
    writeFileSync(join(snapshot.upperDir, '../snapshot.json'), 'not json');
    mkdirSync(join(root, 'layers/0123456789abcdef/fs'), { recursive: true });
    const next = await open(root);
    assert.deepEqual(
      next.list().map((each) => each.key),
      ['good'],
    );
    await next.close();
    assert.deepEqual(readdirSync(join(root, 'layers')), []);
    assert.ok(!existsSync(snapshot.upperDir));
  });

  it('trusts no layer of an earlier boot that was not flushed', async () => {
    const flushed: number[] = [];
    const syncFs = async (fd: number): Promise<void> => void flushed.push(fd);
    const openSyncing = async () => await openOverlaySnapshotter({ root, observer: silentObserver, syncFs });
    const first = await openSyncing();
    const add = async (name: string): Promise<Layer> => {
      const stage = await first.stage();
      return await stage.commit({ chainId: digestOf(name), diffId: digestOf(name), bytes: 0, inodes: 0 });
    };
    const safe = await add('safe');
    await first.close();
    assert.equal(flushed.length, 1);
    const lost = await add('lost');
    assert.equal((await openSyncing()).layers().length, 2, 'in the same boot both are good');
    for (const { dir } of [safe, lost]) {
      const path = join(dir, '../layer.json');
      const record = JSON.parse(readFileSync(path, 'utf8')) as object;
      writeFileSync(path, JSON.stringify({ ...record, bootId: 'an earlier one' }));
    }
    const next = await openSyncing();
    assert.deepEqual(next.layers(), [safe]);
    await next.close();
  });

  /** Mounts happen in a mount namespace of the test's child, where the removal runs too. */
  const inMountNamespace = (script: string): string => {
    const prelude = `import { openOverlaySnapshotter } from './src/runtime/snapshots/overlay.js';
      import { removeTree } from './src/runtime/snapshots/tree.js';
      import { silentObserver as observer } from './src/kit/observer.js';
      import { execFileSync } from 'node:child_process';
      import { existsSync, mkdirSync } from 'node:fs';
      const root = ${JSON.stringify(root)};
      const mount = (path: string) => execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', path]);`;
    const file = join(process.cwd(), `.mount-test-${process.pid}.ts`);
    writeFileSync(file, `${prelude}\n${script}`);
    try {
      return execFileSync('unshare', ['-m', process.execPath, '--import=tsx', file], { encoding: 'utf8' }).trim();
    } finally {
      rmSync(file);
    }
  };

  it('removes nothing that has a mount in it', () => {
    const said = inMountNamespace(`
      const snapshotter = await openOverlaySnapshotter({ root, observer });
      const { upperDir } = await snapshotter.prepare('k', { chainId: '' });
      mkdirSync(upperDir + '/m'); mount(upperDir + '/m'); mkdirSync(upperDir + '/m/precious');
      const error = await snapshotter.remove('k').catch((each) => each);
      console.log(error.kind, existsSync(upperDir + '/m/precious'), snapshotter.list().length);`);
    assert.equal(said, 'wrong-state true 1');
  });

  it('does not cross into a mount while deleting', () => {
    const said = inMountNamespace(`
      mkdirSync(root + '/t/a/m', { recursive: true }); mount(root + '/t/a/m'); mkdirSync(root + '/t/a/m/precious');
      const error = await removeTree(root + '/t').catch((each) => each);
      console.log(error.kind, existsSync(root + '/t/a/m/precious'));`);
    assert.equal(said, 'wrong-state true');
  });

  it('deletes links, not what they lead to', async () => {
    mkdirSync(join(root, 't/d'), { recursive: true });
    mkdirSync(join(root, 'keep'));
    writeFileSync(join(root, 'keep/f'), 'x');
    execFileSync('ln', ['-s', join(root, 'keep'), join(root, 't/d/l')]);
    await removeTree(join(root, 't'));
    await removeTree(join(root, 't'));
    assert.ok(!existsSync(join(root, 't')));
    assert.ok(existsSync(join(root, 'keep/f')));
  });

  it('counts and deletes names that are no UTF-8', async () => {
    const dir = join(root, 't/\u00e9');
    mkdirSync(dir, { recursive: true });
    writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0xff, 0xfe])]), 'x');
    assert.equal((await measureTree(join(root, 't'))).inodes, 2);
    await removeTree(join(root, 't'));
    assert.ok(!existsSync(join(root, 't')));
  });

  it('deletes trees deeper than a path can say', async () => {
    const dir = join(root, 't');
    mkdirSync(dir);
    const script = 'for (let i = 0; i < 1500; i++) { fs.mkdirSync("dd"); process.chdir("dd"); }';
    execFileSync(process.execPath, ['-e', script], { cwd: dir });
    await removeTree(dir);
    assert.ok(!existsSync(dir));
  });

  it('counts hard links once', async () => {
    writeFileSync(join(root, 'a'), Buffer.alloc(100_000));
    execFileSync('ln', [join(root, 'a'), join(root, 'b')]);
    const { bytes, inodes } = await measureTree(root);
    assert.equal(inodes, 1);
    assert.ok(bytes >= 100_000 && bytes < 150_000);
  });
});
