import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SyscallError } from '../../kit/errors.js';
import { listPins, pin, unpin } from './netns.js';

describe('network namespace pins', () => {
  let directory: string;
  let layers: number;
  const mounts = {
    mount: () => void layers++,
    unmount: (target: string) => {
      if (!existsSync(target)) return Promise.reject(new SyscallError('umount2', 2, 'ENOENT'));
      return layers-- > 0 ? Promise.resolve() : Promise.reject(new SyscallError('umount2', 22, 'EINVAL'));
    },
  };
  beforeEach(() => {
    layers = 0;
    directory = mkdtempSync(join(tmpdir(), 'berth-netns-'));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it('come and go, any number of times', async () => {
    const path = join(directory, 'netns', 'berth-abc');
    assert.deepEqual(await listPins(join(directory, 'netns')), []);
    pin(mounts, path, '/proc/self/ns/net');
    writeFileSync(join(directory, 'netns', 'theirs'), '');
    assert.deepEqual(await listPins(join(directory, 'netns')), [path]);
    layers = 3;
    await unpin(mounts, path);
    await unpin(mounts, path);
    assert.deepEqual(readdirSync(join(directory, 'netns')), ['theirs']);
  });

  it('keep their file when the kernel does not let go', async () => {
    const path = join(directory, 'berth-abc');
    writeFileSync(path, '');
    const busy = { ...mounts, unmount: () => Promise.reject(new SyscallError('umount2', 1, 'EPERM', path)) };
    await assert.rejects(unpin(busy, path), /unpin network namespace: umount2 .*berth-abc: EPERM/);
    assert.ok(existsSync(path));
  });
});
