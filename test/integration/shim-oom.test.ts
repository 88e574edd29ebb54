import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build, cgroupPlan, openBench, plainBuild, until, type Bench } from './shim-harness.js';
import { skip } from '../support/skip.js';

/** A memory cgroup of the test's own below the root of whichever hierarchy has the controller. */
function memoryCgroup(): { readonly dir: string; readonly oomFile: string; readonly limit: string } | undefined {
  const v1 = '/sys/fs/cgroup/memory';
  const name = `berth-shim-test-${process.pid}`;
  if (existsSync(join(v1, 'memory.limit_in_bytes'))) {
    const dir = join(v1, name);
    return { dir, oomFile: join(dir, 'memory.oom_control'), limit: join(dir, 'memory.limit_in_bytes') };
  }
  const v2 = '/sys/fs/cgroup';
  if (!existsSync(join(v2, 'cgroup.subtree_control'))) return undefined;
  if (!readFileSync(join(v2, 'cgroup.subtree_control'), 'utf8').includes('memory')) return undefined;
  const dir = join(v2, name);
  return { dir, oomFile: join(dir, 'memory.events'), limit: join(dir, 'memory.max') };
}

describe('a container over its memory limit', function () {
  this.timeout(60_000);
  const cgroup = memoryCgroup();
  let bench: Bench;

  before(function () {
    if (cgroup === undefined) skip(this, 'no memory controller can be used here');
    build(plainBuild);
    mkdirSync(cgroup.dir);
    writeFileSync(cgroup.limit, String(16 << 20));
  });
  beforeEach(async () => (bench = await openBench(plainBuild)));
  afterEach(() => bench.close());
  after(async () => {
    if (cgroup === undefined || !existsSync(cgroup.dir)) return;
    await until(() => readFileSync(join(cgroup.dir, 'cgroup.procs'), 'utf8') === '', 'an empty cgroup');
    rmdirSync(cgroup.dir);
  });

  const run = (id: string, script: string): Promise<unknown> => {
    assert.ok(cgroup !== undefined);
    const plan = cgroupPlan(['/bin/sh', '-c', script], [join(cgroup.dir, 'cgroup.procs')]);
    return bench.start(id, plan, { oomFile: cgroup.oomFile, cgroupDir: cgroup.dir });
  };

  it('is told apart from one that was killed', async () => {
    await run('hungry', 'exec tail /dev/zero');
    const oom = await bench.exit('hungry');
    assert.deepEqual([oom.code, oom.oomKilled], [137, true]);
    await run('killed', 'kill -9 $$; sleep 1000');
    await bench.shim.signal('killed', 9, true);
    const killed = await bench.exit('killed');
    assert.deepEqual([killed.code, killed.oomKilled], [137, false]);
  });

  it('has every process of its cgroup signalled on request', async () => {
    assert.ok(cgroup !== undefined);
    await run('c', 'setsid sleep 1000 & setsid sleep 1000 & sleep 1000');
    const procs = join(cgroup.dir, 'cgroup.procs');
    await until(() => readFileSync(procs, 'utf8').split('\n').length >= 4, 'its processes');
    await bench.shim.signal('c', 9, true);
    await bench.exit('c');
    await until(() => readFileSync(procs, 'utf8') === '', 'their end');
  });
});
