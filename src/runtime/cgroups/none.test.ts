import assert from 'node:assert/strict';
import { linkSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openNoCgroups } from './none.js';

describe('no cgroups', () => {
  let procRoot = '';
  const notes: string[] = [];
  let first: { path: string; pid: number }[] = [];

  /** A process as /proc shows it; those with one letter share a mount namespace. */
  const put = (pid: number | 'self', parent: number, namespace: string, state = 'S'): void => {
    const dir = join(procRoot, `${pid}`);
    mkdirSync(join(dir, 'ns'), { recursive: true });
    writeFileSync(join(dir, 'stat'), `${pid} (a) b) ${state} ${parent} 0 0`);
    linkSync(join(procRoot, namespace), join(dir, 'ns/mnt'));
  };
  const drop = (pid: number): void => rmSync(join(procRoot, `${pid}`), { recursive: true });
  const open = () =>
    openNoCgroups({
      procRoot,
      firstProcesses: (path) => first.filter((each) => path === '/' || `${each.path}/`.startsWith(`${path}/`)),
      note: (_level, message) => void notes.push(message),
    });

  beforeEach(() => {
    procRoot = mkdtempSync(join(tmpdir(), 'proc-'));
    for (const name of ['h', 'c', 'd']) writeFileSync(join(procRoot, name), '');
    put('self', 1, 'h');
    put(1, 0, 'h');
    put(10, 1, 'c');
    put(20, 1, 'd');
    first = [
      { path: '/berth/pod/c', pid: 10 },
      { path: '/berth/pod/d', pid: 20 },
    ];
    notes.splice(0);
  });
  afterEach(() => rmSync(procRoot, { recursive: true }));

  it('find a container’s processes by its mount namespace, and theirs wherever those have gone', () => {
    put(11, 1, 'c');
    put(12, 11, 'h');
    put(13, 12, 'd');
    put(14, 10, 'c', 'Z');
    const cgroups = open();
    assert.deepEqual(cgroups.pids('/berth/pod/c'), [10, 11, 12, 13]);
    assert.deepEqual(cgroups.pids('/berth/pod/d'), [13, 20]);
    assert.deepEqual(cgroups.pids('/berth/pod'), [10, 11, 12, 13, 20]);
    assert.deepEqual(cgroups.pids('/berth/other'), []);
  });

  it('find what a first process that was seen alive has left behind', () => {
    put(11, 10, 'c');
    const cgroups = open();
    cgroups.learn();
    drop(10);
    first = [];
    assert.deepEqual(cgroups.pids('/berth/pod/c'), [11]);
    assert.ok(!cgroups.isEmpty('/berth/pod/c'));
  });

  it('know that a number means another container once the first has ended', async () => {
    const cgroups = open();
    cgroups.learn();
    drop(10);
    drop(20);
    put(20, 1, 'c');
    first = [{ path: '/berth/pod/d', pid: 20 }];
    assert.deepEqual(cgroups.pids('/berth/pod/c'), []);
    await cgroups.kill('/berth/pod/c');
    first = [];
    assert.deepEqual(cgroups.pids('/berth/pod/c'), []);
  });

  it('never take the agent’s own namespace for a container’s', () => {
    first = [{ path: '/berth/pod/c', pid: 1 }];
    assert.deepEqual(open().pids('/berth/pod/c'), []);
  });

  it('say which limits are not applied, and only of what was asked', async () => {
    const cgroups = open();
    await cgroups.create('/berth/pod/c', { deviceRules: [], hugepageLimits: [] });
    assert.deepEqual(notes, []);
    await cgroups.update('/berth/pod/c', { memoryLimit: 5, cpuShares: 0 });
    assert.deepEqual(notes, ['no cgroup is delegated to us: memoryLimit of /berth/pod/c are not applied']);
  });
});
