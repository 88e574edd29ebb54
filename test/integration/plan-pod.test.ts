import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compileExecPlan } from '../../src/runtime/plan/compile-exec.js';
import { compileSandboxPlan } from '../../src/runtime/plan/compile-sandbox.js';
import { compilePlan } from '../../src/runtime/plan/compile.js';
import type { LaunchFacts, LaunchNamespace, SandboxPlanOptions } from '../../src/runtime/plan/facts.js';
import type { LaunchPlan } from '../../src/runtime/plan/plan.js';
import { encodePlan } from '../../src/runtime/plan/wire.js';
import { execTool, runPlan, runPlans, type PlanRun } from '../support/plan/exec-tool.js';
import { testFacts, testRoot, testSpec, type SpecChanges, type TestRoot } from '../support/plan/specs.js';

const fromPod: LaunchNamespace = { from: 'pod' };

describe('pods made of plans', function () {
  this.timeout(60_000);
  let root: TestRoot;
  let dir: string;
  let pin: string;
  before(() => {
    root = testRoot();
    dir = mkdtempSync(join(tmpdir(), 'berth-pod-'));
    pin = join(dir, 'netns');
  });
  afterEach(() => {
    spawnSync('umount', ['-l', pin], { stdio: 'ignore' });
    rmSync(pin, { force: true, recursive: true });
  });
  after(() => {
    root.remove();
    rmSync(dir, { recursive: true, force: true });
  });

  const sandbox = (changes: Partial<SandboxPlanOptions> = {}): LaunchPlan =>
    compileSandboxPlan({
      namespaces: ['net', 'ipc', 'uts'],
      netnsPin: pin,
      hostname: 'mypod',
      sysctls: [['net/ipv4/ip_default_ttl', '99']],
      shm: { name: 'shm', bytes: 1 << 20 },
      cgroup: undefined,
      ...changes,
    });

  const inPod: Partial<LaunchFacts> = { namespaces: { net: fromPod, ipc: fromPod, uts: fromPod } };
  const container = (command: string, facts: Partial<LaunchFacts> = inPod, changes: SpecChanges = {}): LaunchPlan =>
    compilePlan(testSpec(command, changes), testFacts(root, facts));
  const exec = (id: string, args: readonly string[], terminal = false): LaunchPlan =>
    compileExecPlan(testSpec('true'), {
      containerId: id,
      args,
      terminal,
      cgroup: { join: { v1Procs: [] } },
      kernel: testFacts(root).kernel,
    });
  const all = async (runs: readonly PlanRun[], options: readonly string[] = []): Promise<string> => {
    const { results, stdout, stderr } = await runPlans(runs, options);
    assert.deepEqual(
      results.map(({ failure }) => failure),
      runs.map(() => ''),
    );
    assert.equal(stderr, '');
    return stdout;
  };

  const heldShm = {
    mounts: [
      { destination: '/proc', type: 'proc' },
      { destination: '/dev', type: 'tmpfs', options: ['mode=755'] },
      { destination: '/dev/shm', type: 'bind', source: 'held:shm', options: ['nosuid', 'nodev', 'noexec'] },
    ],
  };

  it('hold namespaces that containers share', async () => {
    const command =
      'for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; hostname; cat /proc/sys/net/ipv4/ip_default_ttl';
    const stdout = await all([{ plan: sandbox() }, { plan: container(command) }, { plan: container(command) }]);
    const lines = stdout.trim().split('\n');
    assert.equal(lines.length, 12);
    const [first, second] = [lines.slice(0, 6), lines.slice(6)];
    assert.deepEqual(first.slice(0, 3), second.slice(0, 3));
    assert.notEqual(first[0], readlinkSync('/proc/self/ns/net'));
    assert.notEqual(first[3], second[3]);
    assert.deepEqual(first.slice(4), ['mypod', '99']);
  });

  it('pin the network namespace where the plan says', async () => {
    const NSFS = 0x6e736673;
    await all([{ plan: sandbox() }]);
    assert.equal(statfsSync(pin).type, NSFS);
  });

  it('give back a pin that is in the way', async () => {
    mkdirSync(pin);
    const { results } = await runPlans([{ plan: sandbox() }, { plan: container('true') }]);
    assert.match(results[0]?.failure ?? '', /^pin net namespace .*netns: EINVAL \(attach\)/);
    // What was held is let go: the container finds nothing to join.
    assert.match(results[1]?.failure ?? '', /^enter net namespace of the pod: ENOENT \(not known to the shim\)/);
  });

  for (const [way, options] of [
    ['from the descriptor', []],
    ['by way of a namespace of its own, on older kernels', ['--without', '4']],
  ] as const) {
    it(`share /dev/shm ${way}`, async () => {
      const stdout = await all(
        [
          { plan: sandbox() },
          { plan: container('echo hello >/dev/shm/x; grep " /dev/shm " /proc/mounts', inPod, { spec: heldShm }) },
          { plan: container('cat /dev/shm/x; stat -c %a /dev/shm', inPod, { spec: heldShm }) },
        ],
        options,
      );
      assert.match(stdout, /^shm \/dev\/shm tmpfs rw,nosuid,nodev,noexec,\S*size=1024k\S* 0 0\nhello\n1777\n$/);
      assert.doesNotMatch(readFileSync('/proc/self/mountinfo', 'utf8'), /size=1024k/);
    });
  }

  it('share a PID namespace whose first process reaps, sees nothing and may nothing', async () => {
    const facts = { namespaces: { ...inPod.namespaces, pid: fromPod } };
    const command =
      'echo $$ | grep -vx 1 >/dev/null && echo second; (sleep 0.1 & ) ; sleep 0.5; ' +
      'ps -o stat,comm | grep -c "^Z"; cat /proc/1/comm; grep -E "^Cap(Prm|Bnd)" /proc/1/status | cut -f 2; ls -A /proc/1/root 2>/dev/null | wc -l; ls /proc/1/fd 2>/dev/null | wc -l';
    const stdout = await all([
      { plan: sandbox({ namespaces: ['pid', 'net', 'ipc', 'uts'], cgroup: { v1Procs: [] } }) },
      { plan: container(command, facts) },
    ]);
    assert.equal(stdout, 'second\n0\nberth-pause\n0000000000000000\n0000000000000000\n0\n0\n');
  });

  it('let a process join a container', async () => {
    const stdout = await all([
      { plan: sandbox() },
      { plan: container('echo marker >/tmp/marker; exec sleep 30'), background: true },
      {
        plan: exec('p1', [
          'sh',
          '-c',
          'sleep 0.2; cat /tmp/marker; hostname; ps -o args | grep -cx "sleep 30"; pwd; id -u; grep NoNewPrivs /proc/self/status | cut -f 2; ls /proc/self/fd | wc -l',
        ]),
      },
    ]);
    assert.equal(stdout, 'marker\nmypod\n1\n/\n0\n1\n4\n');
  });

  it('give a joining process a terminal', async () => {
    const { results, stdout } = await runPlans([
      { plan: sandbox() },
      { plan: container('exec sleep 30'), background: true },
      { plan: exec('p1', ['sh', '-c', 'tty; stty size'], true), console: true },
    ]);
    assert.equal(results[2]?.failure, '');
    assert.equal(stdout.replaceAll('\r', ''), '/dev/pts/0\n24 80\n');
  });

  it('share the PID namespace of a target container', async () => {
    const facts = { namespaces: { ...inPod.namespaces, pid: { from: 'container', id: 'p1' } as const } };
    const stdout = await all([
      { plan: sandbox() },
      { plan: container('exec sleep 31'), background: true },
      { plan: container('cat /proc/1/cmdline | tr "\\0" " "', facts) },
    ]);
    assert.equal(stdout, 'sleep 31 ');
  });

  it('say that a container to join is not there', async () => {
    const { results } = await runPlans([{ plan: exec('p7', ['true']) }]);
    assert.equal(results[0]?.failure, 'enter pid namespace of container p7: ENOENT (not known to the shim)');
  });

  describe('overlay root', () => {
    const layers = (): { rootfs: LaunchFacts['rootfs'] & { kind: 'overlay' } } => {
      const base = mkdtempSync(join(dir, 'overlay-'));
      for (const name of ['top', 'upper', 'work']) mkdirSync(join(base, name));
      writeFileSync(join(base, 'top/over'), 'top');
      writeFileSync(root.at('over'), 'bottom');
      return {
        rootfs: {
          kind: 'overlay',
          lower: [join(base, 'top'), root.path],
          upper: join(base, 'upper'),
          work: join(base, 'work'),
        },
      };
    };
    for (const [way, options] of [
      ['by descriptors', []],
      ['by strings', ['--without', '1']],
      ['by one page', ['--without', '3']],
    ] as const) {
      it(`is made ${way}`, async () => {
        const { rootfs } = layers();
        const before = readFileSync('/proc/self/mountinfo', 'utf8');
        const plan = compilePlan(
          testSpec('cat /over; echo; echo written >/over; cut -d" " -f3 /proc/mounts | head -n 1'),
          testFacts(root, { rootfs }),
        );
        const result = await runPlan(plan, {}, options);
        assert.equal(result.failure, '');
        assert.equal(result.stdout, 'top\noverlay\n');
        assert.equal(readFileSync(join(rootfs.upper, 'over'), 'utf8'), 'written\n');
        assert.equal(readFileSync('/proc/self/mountinfo', 'utf8'), before);
      });
    }

    it('names the layer that is missing', async () => {
      const { rootfs } = layers();
      const plan = compilePlan(testSpec('true'), testFacts(root, { rootfs: { ...rootfs, lower: ['/nonexistent'] } }));
      assert.equal((await runPlan(plan)).failure, 'mount rootfs: ENOENT (source)');
    });
  });

  describe('a shim that dies', () => {
    it('takes the container that waits at the gate with it', async () => {
      const gate = join(dir, 'cgroup.procs');
      const file = join(dir, 'plan');
      spawnSync('mkfifo', [gate]);
      const facts = testFacts(root);
      const cgroup = { ...facts.cgroup, join: { v1Procs: [gate] } };
      writeFileSync(file, encodePlan(compilePlan(testSpec('exec sleep 30'), { ...facts, cgroup })));
      const shim = spawn(execTool(), [file], { stdio: 'ignore' });
      const child = await until(() => childOf(shim.pid ?? 0));
      await until(() => read(`/proc/${child}/wchan`) !== '' || read(`/proc/${child}/status`).includes('S (sleeping)'));
      shim.kill('SIGKILL');
      await until(() => !existsSync(`/proc/${child}`) || /State:\s+[ZX]/.test(read(`/proc/${child}/status`)));
      rmSync(gate);
    });
  });

  it('leaves no process behind', () => {
    const left = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && commandOf(name).startsWith('sleep 3'));
    assert.deepEqual(
      left.filter((pid) => rootOf(pid) === root.path),
      [],
    );
  });
});

/** Asks again and again until there is an answer. */
async function until<T>(ask: () => T): Promise<NonNullable<T>> {
  for (;;) {
    const answer = ask();
    if (answer) return answer;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const childOf = (pid: number): number => Number(read(`/proc/${pid}/task/${pid}/children`).trim().split(' ')[0]);

const commandOf = (pid: string): string => read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function rootOf(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/root`);
  } catch {
    return '';
  }
}
