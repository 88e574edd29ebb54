import assert from 'node:assert/strict';
import { chownSync, existsSync, mkdirSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { endAgent, image, rootlessSuite } from '../support/rootless-suite.js';
import { uid } from '../support/rootless-user.js';
import { skip } from '../support/skip.js';

const root = '/sys/fs/cgroup/bt-rootless';

/** As systemd does it (kernel Documentation/admin-guide/cgroup-v2, "Delegation"). */
function delegate(path: string): void {
  mkdirSync(path);
  for (const file of ['', 'cgroup.procs', 'cgroup.subtree_control', 'cgroup.threads']) {
    chownSync(join(path, file), uid, uid);
  }
}

const below = (path: string): string[] =>
  readdirSync(path, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));

function removeCgroup(path: string): void {
  for (const name of below(path)) removeCgroup(join(path, name));
  rmdirSync(path);
}

describe('an agent of an ordinary user with a delegated part of cgroup v2', function () {
  this.timeout(300_000);
  const suite = rootlessSuite();
  const { open, text } = suite;

  before(function () {
    if (!existsSync('/sys/fs/cgroup/cgroup.controllers')) skip(this, 'the controllers are not on cgroup v2 here');
    writeFileSync('/sys/fs/cgroup/cgroup.subtree_control', '+memory +pids +cpu');
  });
  // After the suite's own hook, which has ended everything in it.
  afterEach(() => {
    if (existsSync(root)) removeCgroup(root);
  });

  const openIn = async (cgroup: string): Promise<void> => {
    delegate(root);
    if (cgroup !== root) delegate(cgroup);
    // Once its children have controllers, no process can come into the upper one again.
    const leaf = `${root}/berth-agent/cgroup.procs`;
    await open({ prepare: [`[ -e ${leaf} ] && echo $$ >${leaf} || echo $$ >${cgroup}/cgroup.procs`] });
  };

  it('has its limits applied, and its containers ended with their cgroups', async () => {
    await openIn(join(root, 'session'));
    const agent = await suite.user.serve();
    assert.doesNotMatch(suite.user.log(), /no cgroup/);
    const limits = ['--memory', '64MiB', '--cpus', '0.5'];
    const read = 'cd /sys/fs/cgroup; cat memory.max cpu.max; cat /proc/self/cgroup';
    assert.equal(await suite.shell(read, ...limits), '67108864\n50000 100000\n0::/\n');
    const script = 'setsid sleep 200010 & exec sleep 200011';
    await text('run', '-d', '--name', 'c', '--pid', 'host', image, 'sh', '-c', script);
    await text('stop', '--time', '0', 'c');
    assert.deepEqual(
      suite.user.processes().filter((line) => line.startsWith('sleep')),
      [],
    );
    await suite.removePods();
    assert.deepEqual(below(join(root, 'berth')), ['shims']);
    await endAgent(agent, 'SIGTERM', suite.user);
  });

  it('leaves a delegated cgroup that it is in itself, so that others can be made in it', async () => {
    await openIn(root);
    assert.equal(await suite.shell('cat /sys/fs/cgroup/memory.max', '--memory', '64MiB'), '67108864\n');
    assert.deepEqual(below(root).sort(), ['berth', 'berth-agent']);
  });
});
