import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../../src/kit/deadline.js';
import { isKind } from '../../src/kit/errors.js';
import { deviceProgramCalls } from '../../src/native/bpf.js';
import { loadLibrary } from '../../src/native/library.js';
import { openCgroups } from '../../src/runtime/cgroups/cgroups.js';
import type { CgroupHandle, Cgroups } from '../../src/runtime/cgroups/types.js';
import { skip } from '../support/skip.js';

/** Runs on the host's own cgroup version: v1 or hybrid on a developer's machine, v2 in the VM. */
describe('cgroups on this kernel', () => {
  const base = `/berth-test-${process.pid}`;
  const children: ChildProcess[] = [];
  let cgroups: Cgroups;

  before(function () {
    if (process.getuid?.() !== 0) skip(this, 'needs root');
    cgroups = openCgroups({ bpf: deviceProgramCalls(loadLibrary(), process.arch) });
  });

  afterEach(async () => {
    if (cgroups.exists(base)) await cgroups.kill(base);
    await cgroups.remove(base);
    for (const child of children.splice(0)) child.kill('SIGKILL');
  });

  const root = (controller: string): string => cgroups.layout.v1Roots.get(controller) ?? cgroups.layout.v2Root ?? '';
  const read = (controller: string, path: string, file: string): string =>
    readFileSync(join(root(controller), path, file), 'utf8').trim();
  const onV2 = (): boolean => cgroups.layout.version === 'v2';

  function enter(handle: CgroupHandle, pid: number): void {
    const { v2Dir, v1Procs } = handle.join;
    for (const file of [...v1Procs, ...(v2Dir === undefined ? [] : [join(v2Dir, 'cgroup.procs')])]) {
      writeFileSync(file, String(pid), { flag: 'r+' });
    }
  }

  /** A shell that waits for a line before it runs `script`, so that all of it happens inside the cgroup. */
  async function runIn(handle: CgroupHandle, script: string): Promise<ChildProcess> {
    const child = spawn('/bin/sh', ['-c', `read _; ${script}`], { stdio: ['pipe', 'pipe', 'ignore'] });
    children.push(child);
    await once(child, 'spawn');
    enter(handle, child.pid ?? 0);
    child.stdin?.end('\n');
    return child;
  }

  const exitOf = async (child: ChildProcess): Promise<[number | null, string | null]> =>
    child.exitCode !== null || child.signalCode !== null
      ? [child.exitCode, child.signalCode]
      : ((await once(child, 'exit')) as [number | null, string | null]);

  it('makes a cgroup in every hierarchy and removes all of it', async () => {
    const { join: into } = await cgroups.create(`${base}/pod/c1`, { memoryLimit: 64 << 20 });
    const dirs = [...into.v1Procs.map((file) => join(file, '..')), ...(into.v2Dir === undefined ? [] : [into.v2Dir])];
    assert.ok(dirs.length > 0);
    for (const dir of dirs) assert.ok(existsSync(join(dir, 'cgroup.procs')), dir);
    assert.deepEqual(cgroups.children(`${base}/pod`), ['c1']);
    await cgroups.remove(base);
    for (const dir of dirs) assert.equal(existsSync(dir), false, dir);
    assert.equal(cgroups.exists(`${base}/pod/c1`), false);
    await cgroups.remove(base);
  });

  it('creates twice without losing what is there', async () => {
    await cgroups.create(`${base}/c1`, { pidsLimit: 10 });
    await cgroups.create(`${base}/c1`, {});
    assert.equal(read('pids', `${base}/c1`, 'pids.max'), '10');
  });

  it('writes limits in the words of the host', async () => {
    const path = `${base}/c1`;
    const limits = { memoryLimit: 64 << 20, memorySwapLimit: 64 << 20, cpuShares: 512, cpuQuota: 50_000, pidsLimit: 9 };
    await cgroups.create(path, { ...limits, cpuPeriod: 100_000, cpusetCpus: '0' });
    assert.equal(read('pids', path, 'pids.max'), '9');
    assert.equal(read('cpuset', path, 'cpuset.cpus'), '0');
    if (onV2()) {
      assert.equal(read('memory', path, 'memory.max'), String(64 << 20));
      assert.equal(read('memory', path, 'memory.swap.max'), '0');
      assert.equal(read('cpu', path, 'cpu.max'), '50000 100000');
      assert.equal(read('cpu', path, 'cpu.weight'), '59');
    } else {
      assert.equal(read('memory', path, 'memory.limit_in_bytes'), String(64 << 20));
      assert.equal(read('cpu', path, 'cpu.cfs_quota_us'), '50000');
      assert.equal(read('cpu', path, 'cpu.shares'), '512');
    }
  });

  it('raises and lowers memory and swap together, whichever order the kernel wants', async () => {
    const path = `${base}/c1`;
    const file = onV2() ? 'memory.max' : 'memory.limit_in_bytes';
    await cgroups.create(path, { memoryLimit: 64 << 20, memorySwapLimit: 64 << 20 });
    for (const mib of [256, 32, 128]) {
      await cgroups.update(path, { memoryLimit: mib << 20, memorySwapLimit: mib << 20 });
      assert.equal(read('memory', path, file), String(mib << 20));
    }
    await cgroups.update(path, { memoryLimit: 512 << 20 });
    assert.equal(read('memory', path, file), String(512 << 20));
    await cgroups.update(path, { memoryLimit: -1 });
    assert.equal(cgroups.stats(path)?.memory.limit, undefined);
  });

  it('puts everything back when one value is refused, and names file and errno', async () => {
    const path = `${base}/c1`;
    await cgroups.create(path, { memoryLimit: 64 << 20, cpuShares: 512, pidsLimit: 9, cpusetCpus: '0' });
    const before = cgroups.stats(path);
    const bad = { cpuShares: 1024, memoryLimit: 128 << 20, pidsLimit: 99_999_999 };
    await assert.rejects(cgroups.update(path, bad), (error) => {
      assert.ok(isKind(error, 'invalid-argument'));
      assert.match(error.message, /^write "99999999" to .*pids\.max: EINVAL$/);
      return true;
    });
    assert.equal(cgroups.stats(path)?.memory.limit, before?.memory.limit);
    assert.equal(read('cpu', path, onV2() ? 'cpu.weight' : 'cpu.shares'), onV2() ? '59' : '512');
    assert.equal(read('pids', path, 'pids.max'), '9');
  });

  it('leaves nothing behind when a creation fails, and keeps what was there before', async () => {
    await cgroups.create(`${base}/pod`, {});
    await assert.rejects(cgroups.create(`${base}/pod/c1`, { cpusetCpus: '4000' }), /cpuset\.cpus/);
    assert.equal(cgroups.exists(`${base}/pod/c1`), false);
    assert.equal(cgroups.exists(`${base}/pod`), true);
  });

  it('updates what does not exist with not-found', async () => {
    await assert.rejects(cgroups.update(`${base}/none`, {}), (error) => isKind(error, 'not-found'));
    assert.equal(cgroups.stats(`${base}/none`), undefined);
    assert.equal(cgroups.oomKills(`${base}/none`), 0);
    assert.deepEqual(cgroups.pids(`${base}/none`), []);
    await cgroups.kill(`${base}/none`);
  });

  it('kills a fork bomb, child cgroups included', async () => {
    const outer = await cgroups.create(`${base}/c1`, { pidsLimit: 200 });
    const inner = await cgroups.create(`${base}/c1/inner`, {});
    if (!onV2()) await runIn(outer, 'while :; do sleep 100 & done');
    await runIn(inner, 'while :; do sleep 100 & done');
    while (cgroups.pids(`${base}/c1`).length < 20) await sleep(5);
    await cgroups.kill(`${base}/c1`);
    assert.equal(cgroups.isEmpty(`${base}/c1`), true);
    await cgroups.remove(`${base}/c1`);
  });

  it('kills what is frozen', async () => {
    const handle = await cgroups.create(`${base}/c1`, {});
    const child = await runIn(handle, 'sleep 100');
    await cgroups.freeze(`${base}/c1`);
    await cgroups.kill(`${base}/c1`);
    assert.deepEqual(await exitOf(child), [null, 'SIGKILL']);
  });

  it('freezes and thaws', async () => {
    const handle = await cgroups.create(`${base}/c1`, {});
    const child = await runIn(handle, 'while :; do :; done');
    await cgroups.freeze(`${base}/c1`);
    const usage = (): bigint => cgroups.stats(`${base}/c1`)?.cpu.usage ?? 0n;
    const frozen = usage();
    await sleep(30);
    assert.equal(usage(), frozen);
    await cgroups.thaw(`${base}/c1`);
    while (usage() <= frozen) await sleep(5);
    assert.ok(child.exitCode === null);
  });

  it('refuses to remove a cgroup with a process in it', async () => {
    const handle = await cgroups.create(`${base}/c1`, {});
    const child = await runIn(handle, 'sleep 100');
    await assert.rejects(cgroups.remove(`${base}/c1`), (error) => {
      assert.ok(isKind(error, 'wrong-state'));
      assert.match(error.message, new RegExp(`${child.pid}`));
      return true;
    });
  }).timeout(20_000);

  it('counts processor time, memory and processes', async () => {
    const handle = await cgroups.create(`${base}/c1`, {
      memoryLimit: 64 << 20,
      memorySwapLimit: 64 << 20,
      pidsLimit: 50,
    });
    const child = await runIn(
      handle,
      'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done; read _; sleep 100',
    );
    await once(child.stdout ?? child, 'data');
    const stats = cgroups.stats(`${base}/c1`, { detail: true });
    assert.ok(stats !== undefined);
    assert.ok(stats.cpu.usage > 0n && stats.cpu.user > 0n);
    assert.ok(stats.memory.usage > 0 && stats.memory.workingSet <= stats.memory.usage);
    assert.equal(stats.memory.limit, 64 << 20);
    assert.equal(stats.memory.available, (64 << 20) - stats.memory.workingSet);
    assert.ok(stats.pids.current >= 1);
    assert.equal(stats.pids.limit, 50);
  });

  it('counts what the OOM killer took', async () => {
    const handle = await cgroups.create(`${base}/c1`, { memoryLimit: 8 << 20, memorySwapLimit: 8 << 20 });
    const child = await runIn(handle, 'x=$(head -c 67108864 /dev/zero | tr "\\0" x); exit 0');
    await exitOf(child);
    assert.ok(cgroups.oomKills(`${base}/c1`) > 0);
  }).timeout(20_000);

  it('lets a process reach only the devices of the rules', async () => {
    const nodes = 'cat /dev/zero | head -c 1 >/dev/null; head -c 1 /dev/urandom >/dev/null 2>&1 && echo yes || echo no';
    const rules = [
      { allow: false, type: 'a', access: 'rwm' },
      { allow: true, type: 'c', major: 1, minor: 3, access: 'rwm' },
      { allow: true, type: 'c', major: 1, minor: 5, access: 'rw' },
    ] as const;
    const handle = await cgroups.create(`${base}/c1`, { deviceRules: rules });
    assert.equal(await output(await runIn(handle, nodes)), 'no\n');
    await cgroups.update(`${base}/c1`, { deviceRules: [...rules, { allow: true, type: 'c', major: 1, access: 'r' }] });
    assert.equal(await output(await runIn(handle, nodes)), 'yes\n');
    await cgroups.update(`${base}/c1`, { deviceRules: rules });
    assert.equal(await output(await runIn(handle, nodes)), 'no\n');
    await cgroups.update(`${base}/c1`, { deviceRules: [{ allow: true, type: 'a', access: 'rwm' }] });
    assert.equal(await output(await runIn(handle, nodes)), 'yes\n');
  });

  async function output(child: ChildProcess): Promise<string> {
    let text = '';
    child.stdout?.on('data', (chunk: Buffer) => (text += chunk.toString()));
    await once(child, 'close');
    return text;
  }

  it('is not fooled by paths that leave the hierarchy', async () => {
    for (const path of ['/', '', 'x', '/a/../..', '/a/./b', '/a\n']) {
      await assert.rejects(cgroups.create(path, {}), (error) => isKind(error, 'invalid-argument'));
    }
  });

  describe('on v2', () => {
    const path = `${base}/c1`;

    before(function () {
      if (!onV2()) skip(this, 'the controllers are not on cgroup v2 here');
    });

    it('writes unified keys verbatim, and takes all back when one is refused', async () => {
      await cgroups.create(path, { unified: { 'memory.oom.group': '1', 'memory.high': '33554432' } });
      assert.equal(read('memory', path, 'memory.oom.group'), '1');
      assert.equal(read('memory', path, 'memory.high'), '33554432');
      const bad = { 'memory.high': '16777216', 'memory.nonsense': '1' };
      await assert.rejects(cgroups.update(path, { unified: bad }), /memory\.nonsense: ENOENT/);
      assert.equal(read('memory', path, 'memory.high'), '33554432');
    });

    it('limits huge pages and reports them', async () => {
      await cgroups.create(path, { hugepageLimits: [{ pageSize: '2MB', limitBytes: 4 << 20 }] });
      assert.equal(read('hugetlb', path, 'hugetlb.2MB.max'), String(4 << 20));
      const pages = cgroups.stats(path, { detail: true })?.hugetlb.find(({ pageSize }) => pageSize === '2MB');
      assert.deepEqual(pages, { pageSize: '2MB', usage: 0, limit: 4 << 20 });
    });

    it('refuses a memory limit that would kill what runs', async () => {
      const handle = await cgroups.create(path, {});
      const child = await runIn(handle, 'x=$(head -c 33554432 /dev/zero | tr "\\0" x); echo ready; sleep 100; :');
      await once(child.stdout ?? child, 'data');
      await assert.rejects(cgroups.update(path, { memoryLimit: 8 << 20 }), (error) => {
        assert.ok(isKind(error, 'wrong-state'));
        assert.match(error.message, /bytes are in use and cannot be reclaimed/);
        return true;
      });
      assert.equal(read('memory', path, 'memory.max'), 'max');
      assert.equal(child.exitCode, null);
    });

    it('says that a controller cannot be had below a cgroup with processes', async () => {
      const parent = await cgroups.create(`${base}/busy`, {});
      await runIn(parent, 'sleep 100');
      await assert.rejects(
        cgroups.create(`${base}/busy/c1`, { memoryLimit: 8 << 20 }),
        /cgroup\.subtree_control: (EBUSY|ENOTSUP)/,
      );
      assert.equal(cgroups.exists(`${base}/busy/c1`), false);
    });

    it('reports pressure', async () => {
      await cgroups.create(path, {});
      const stats = cgroups.stats(path);
      assert.equal(typeof stats?.cpu.psi?.some.total, 'bigint');
      assert.equal(stats?.memory.psi?.full.avg10, 0);
      assert.ok(stats?.io.psi !== undefined);
    });

    it('changes one half of cpu.max and keeps the other', async () => {
      await cgroups.create(path, { cpuQuota: 30_000, cpuPeriod: 50_000 });
      await cgroups.update(path, { cpuQuota: 20_000 });
      assert.equal(read('cpu', path, 'cpu.max'), '20000 50000');
      await cgroups.update(path, { cpuQuota: -1 });
      assert.equal(read('cpu', path, 'cpu.max'), 'max 50000');
    });
  });

  it('leaves no directory of this test anywhere', async () => {
    await cgroups.create(`${base}/a/b`, {});
    await cgroups.remove(base);
    const roots = [...cgroups.layout.v1Roots.values(), cgroups.layout.v2Root ?? '/nonexistent'];
    for (const dir of roots.filter(existsSync)) {
      assert.ok(!readdirSync(dir).some((name) => name.startsWith('berth-test-' + process.pid)), dir);
    }
  });
});
