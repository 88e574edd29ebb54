import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isKind, RuntimeError } from '../../kit/errors.js';
import { checkIdsBy, remapBy } from './remap-program.js';
import type { RemapOrder, RemapProgress } from './remap-store.js';

/** A script in the place of berth-remap, which is tested for itself. */
describe('the program that remaps', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'berth-remap-'));
    for (const name of ['to', 'a', 'b']) mkdirSync(join(dir, name));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  const programOf = (script: string): string => {
    const program = join(dir, 'program');
    writeFileSync(program, `#!/bin/sh\n${script}\n`);
    chmodSync(program, 0o700);
    return program;
  };
  const run = async (script: string, signal = new AbortController().signal, seen: RemapProgress[] = []) => {
    const order: RemapOrder = {
      way: 'copy',
      chainId: '',
      mappings: {
        uids: [{ containerId: 0, hostId: 10, size: 5 }],
        gids: [
          { containerId: 0, hostId: 20, size: 1 },
          { containerId: 1, hostId: 30, size: 2 },
        ],
      },
      lowerDirs: [join(dir, 'a'), join(dir, 'b')],
    };
    return await remapBy(programOf(script))(order, join(dir, 'to'), signal, (progress) => void seen.push(progress));
  };

  it('gets directories and maps, and tells how far it has come and what it has made', async () => {
    const seen: RemapProgress[] = [];
    const script = [
      'cat > /proc/self/fd/3/maps',
      'for fd in 3 4 5; do /bin/readlink /proc/self/fd/$fd; done > /proc/self/fd/3/dirs',
      'echo "$@" > /proc/self/fd/3/args',
      'echo p 1 10; echo p 2 20; echo done 4096 3',
    ].join('\n');
    assert.deepEqual(await run(script, undefined, seen), { bytes: 4096, inodes: 3 });
    assert.deepEqual(seen, [
      { entries: 1, bytes: 10 },
      { entries: 2, bytes: 20 },
    ]);
    const wrote = (name: string): string => readFileSync(join(dir, 'to', name), 'utf8');
    assert.equal(wrote('maps'), 'u 0 10 5\ng 0 20 1\ng 1 30 2\n');
    assert.equal(wrote('args'), 'copy 2\n');
    assert.deepEqual(wrote('dirs').trim().split('\n'), [join(dir, 'to'), join(dir, 'a'), join(dir, 'b')]);
  });

  it('blames the image, the host, or the disk', async () => {
    const failing = async (script: string): Promise<unknown> => await run(script).catch((error: unknown) => error);
    const image = await failing('echo "etc/foo: uid 70000 is not mapped" >&2; exit 2');
    assert.ok(isKind(image, 'invalid-argument'));
    assert.equal(image.message, 'remap snapshot: etc/foo: uid 70000 is not mapped; the pod has uids 0-4 and gids 0-2');
    assert.ok(isKind(await failing('echo "open x: Input/output error" >&2; exit 3'), 'internal'));
    assert.ok(isKind(await failing('echo "write x: No space left on device" >&2; exit 3'), 'exhausted'));
    assert.match(String(await failing('kill -9 $$')), /ended with a signal/);
    assert.match(String(await failing('exit 0')), /gave no report/);
  });

  it('only checks ids, given nothing but layers', async () => {
    const [a, b] = [join(dir, 'a'), join(dir, 'b')];
    const script =
      'cat > /proc/self/fd/4/maps; echo "$@" > /proc/self/fd/4/args; /bin/readlink /proc/self/fd/3 >&2; echo done 0 0; exit 2';
    const mappings = { uids: [{ containerId: 0, hostId: 10, size: 5 }], gids: [] };
    const check = checkIdsBy(programOf(script), true);
    const error = await check(mappings, [a, b], new AbortController().signal, () => undefined).catch(
      (error: unknown) => error,
    );
    assert.ok(isKind(error, 'invalid-argument'));
    assert.equal(error.message, `check ids: ${a}`);
    assert.equal(
      readFileSync(join(b, 'args'), 'utf8') + readFileSync(join(b, 'maps'), 'utf8'),
      'check -u 2\nu 0 10 5\n',
    );
  });

  it('is killed when nobody wants it any more, and gone when that is told', async () => {
    const controller = new AbortController();
    const attempt = run('echo $$ > /proc/self/fd/3/pid; echo p 1 1; exec /bin/sleep 1000', controller.signal);
    const rejected = assert.rejects(attempt, /the pod goes/);
    const pid = await new Promise<string>((resolve) => {
      const timer = setInterval(() => {
        try {
          const text = readFileSync(join(dir, 'to/pid'), 'utf8');
          if (text !== '') resolve(text.trim());
          if (text !== '') clearInterval(timer);
        } catch {
          /* not yet */
        }
      }, 5);
    });
    controller.abort(new RuntimeError('cancelled', 'the pod goes'));
    await rejected;
    assert.throws(() => process.kill(Number(pid), 0), { code: 'ESRCH' });
  });
});
