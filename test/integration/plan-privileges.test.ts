import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  rmdirSync,
  statfsSync,
  statSync,
  chownSync,
  writeFileSync,
} from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { compilePlan } from '../../src/runtime/plan/compile.js';
import type { LaunchFacts } from '../../src/runtime/plan/facts.js';
import type { LaunchPlan } from '../../src/runtime/plan/plan.js';
import { compileSeccomp } from '../../src/runtime/plan/seccomp/compile.js';
import { defaultSeccompProfile } from '../../src/runtime/plan/seccomp/default-profile.js';
import { readSeccompProfile } from '../../src/runtime/plan/seccomp/profile.js';
import { runPlan, runPlans } from '../support/plan/exec-tool.js';
import { testFacts, testRoot, testSpec, type SpecChanges, type TestRoot } from '../support/plan/specs.js';
import { skip } from '../support/skip.js';

/** What launch plans do with filters, cgroups, propagation and user namespaces, on the real kernel. */
describe('launch plans and privileges', function () {
  this.timeout(60_000);
  let root: TestRoot;
  let dir: string;
  before(() => {
    root = testRoot();
    dir = mkdtempSync(join(tmpdir(), 'berth-privileges-'));
  });
  after(() => {
    root.remove();
    rmSync(dir, { recursive: true, force: true });
  });

  const run = (command: string | readonly string[], changes: SpecChanges = {}, facts: Partial<LaunchFacts> = {}) =>
    runPlan(compilePlan(testSpec(command, changes), testFacts(root, facts)));

  describe('seccomp', () => {
    const arch = process.arch === 'arm64' ? 'arm64' : 'x86_64';
    const compiled = (profile: unknown): NonNullable<LaunchFacts['seccomp']> => {
      const facts = { arch, capabilities: [], kernel: { major: 6, minor: 1 } } as const;
      return compileSeccomp(readSeccompProfile(profile, facts, 'seccomp'), arch, 'seccomp');
    };

    for (const noNewPrivileges of [true, false]) {
      const with_ = noNewPrivileges ? 'with' : 'without';
      it(`is in force ${with_} no_new_privs, for any user`, async () => {
        const seccomp = compiled(defaultSeccompProfile([], arch));
        for (const uid of [0, 1000]) {
          const result = await run(
            'grep -E "^(Seccomp|NoNewPrivs|CapBnd):" /proc/self/status | cut -f 2; mkdir -p /tmp/m; mount -t tmpfs none /tmp/m 2>/dev/null || echo refused',
            { process: { noNewPrivileges, user: { uid, gid: uid } } },
            { seccomp },
          );
          assert.equal(result.failure, '');
          const [bounding, nnp, mode, mount] = result.stdout.trim().split('\n');
          assert.deepEqual([nnp, mode, mount], [noNewPrivileges ? '1' : '0', '2', 'refused']);
          assert.equal(bounding, '00000000000004e3');
        }
      });

      it(`need allow nothing that only a launcher does, ${with_} no_new_privs`, async () => {
        const names = [
          ...['execve', 'exit_group', 'brk', 'arch_prctl', 'set_tid_address', 'set_robust_list', 'rseq', 'prlimit64'],
          ...['getrandom', 'mprotect', 'readlink', 'readlinkat', 'newfstatat', 'prctl', 'write', 'capset'],
          ...['getuid', 'getgid', 'setuid', 'setgid'], // busybox gives up rights it might have by setuid
        ];
        const seccomp = compiled({
          defaultAction: 'SCMP_ACT_KILL_PROCESS',
          syscalls: [
            { names: noNewPrivileges ? names.filter((name) => name !== 'capset') : names, action: 'SCMP_ACT_ALLOW' },
          ],
        });
        const result = await run(
          ['/bin/echo', 'alive'],
          { process: { noNewPrivileges, user: { uid: 7, gid: 7 } } },
          { seccomp },
        );
        assert.equal(result.failure, '');
        assert.equal(result.stdout, 'alive\n', `exit ${result.exit}`);
      });
    }
  });

  describe('cgroups', () => {
    const top = '/sys/fs/cgroup';
    const v2 = existsSync(join(top, 'cgroup.procs'));
    const hierarchy = v2 ? top : join(top, 'pids');
    const name = `/berth-plan-test-${process.pid}`;
    const own = join(hierarchy, name);
    before(function () {
      if (!existsSync(join(hierarchy, 'cgroup.procs'))) skip(this, `no cgroups in ${hierarchy}`);
      mkdirSync(own);
    });
    after(() => {
      if (existsSync(own)) rmdirSync(own);
    });
    const layout = v2
      ? { version: 'v2' as const, v2Root: top, v1Roots: new Map<string, string>() }
      : { version: 'v1' as const, v1Roots: new Map([['pids', hierarchy]]) };
    const joining = (dir_: string): LaunchFacts['cgroup']['join'] =>
      v2 ? { v2Dir: dir_, v1Procs: [] } : { v1Procs: [join(dir_, 'cgroup.procs')] };
    const facts = (changes: Partial<LaunchFacts> = {}): Partial<LaunchFacts> => ({
      cgroup: { path: name, join: joining(own), layout },
      ...changes,
    });
    const newNamespace = { namespaces: { cgroup: { from: 'new' } } } as const;
    const line = v2 ? '^0:' : ':pids:';
    const mounts = [
      { destination: '/proc', type: 'proc' },
      { destination: '/sys', type: 'sysfs', options: ['ro'] },
      { destination: top, type: 'cgroup', options: ['ro', 'nosuid'] },
    ];

    it('are joined before the program runs', async () => {
      assert.match((await run(`grep ${line} /proc/self/cgroup`, {}, facts())).stdout, new RegExp(`:${name}$`, 'm'));
    });

    it('show the container its own part only, read-only', async () => {
      const dir_ = v2 ? top : `${top}/pids`;
      const result = await run(
        `grep -c "" ${dir_}/cgroup.procs; mkdir ${dir_}/x ${top}/y 2>/dev/null || echo refused`,
        { spec: { mounts } },
        facts(v2 ? newNamespace : {}),
      );
      assert.match(result.stdout, /^[23]\nrefused\n$/);
    });

    it('are the root of a cgroup namespace', async () => {
      const result = await run(`grep ${line} /proc/self/cgroup`, {}, facts(newNamespace));
      assert.match(result.stdout, /:\/$/m);
    });

    it('that are gone are named by the step that joins them', async () => {
      const gone = { path: name, join: joining(join(hierarchy, 'none')), layout };
      const result = await run('true', {}, { cgroup: gone });
      assert.equal(result.failure, 'create process: ENOENT (cgroup)');
    });
  });

  describe('propagation', () => {
    let volume: string;
    before(() => {
      volume = join(dir, 'volume');
      mkdirSync(volume);
      spawnSync('mount', ['--bind', volume, volume]);
      spawnSync('mount', ['--make-shared', volume]);
      mkdirSync(join(volume, 'inside'));
      mkdirSync(join(volume, 'outside'));
    });
    after(() => {
      spawnSync('umount', ['-l', join(volume, 'inside')], { stdio: 'ignore' });
      spawnSync('umount', ['-l', volume], { stdio: 'ignore' });
    });
    const admin = { bounding: ['CAP_SYS_ADMIN'], permitted: ['CAP_SYS_ADMIN'], effective: ['CAP_SYS_ADMIN'] };
    const volumeWith = (propagation: string): SpecChanges => ({
      process: { capabilities: admin },
      spec: {
        mounts: [
          { destination: '/proc', type: 'proc' },
          { destination: '/v', source: volume, options: ['rbind', propagation] },
        ],
      },
      linux: { rootfsPropagation: propagation },
    });
    const seenOutside = async (propagation: string): Promise<boolean> => {
      const result = await run('mount -t tmpfs none /v/inside', volumeWith(propagation));
      assert.equal(result.failure, '');
      assert.equal(result.exit, 0);
      const seen = readFileSync('/proc/self/mountinfo', 'utf8').includes(join(volume, 'inside'));
      if (seen) spawnSync('umount', [join(volume, 'inside')]);
      return seen;
    };

    it('lets mounts out of a shared volume, and of no other', async () => {
      assert.deepEqual(
        [await seenOutside('rshared'), await seenOutside('rslave'), await seenOutside('rprivate')],
        [true, false, false],
      );
    });

    it('says so in mountinfo', async () => {
      const tags = async (propagation: string): Promise<string> =>
        (await run('grep " /v " /proc/self/mountinfo | cut -d" " -f7', volumeWith(propagation))).stdout
          .replace(/\d+/g, 'N')
          .trim();
      assert.deepEqual(
        [await tags('rshared'), await tags('rslave'), await tags('rprivate')],
        ['shared:N', 'master:N', '-'],
      );
    });
  });

  describe('user namespaces', () => {
    const ids = [{ inside: 0, outside: 200000, count: 65536 }];
    before(function () {
      // tmpfs can be idmapped since Linux 6.3.
      const TMPFS = 0x01021994;
      const [major = 0, minor = 0] = release().split('.').map(Number);
      if (statfsSync(dir).type === TMPFS && major * 100 + minor < 603)
        skip(this, 'tmpfs of this kernel cannot be idmapped');
    });
    const podPlan: LaunchPlan = {
      kind: 'sandbox',
      outer: [
        {
          op: 'clone',
          create: ['net', 'ipc', 'uts', 'user'],
          uidMap: ids,
          gidMap: ids,
          cgroupDir: '',
          cgroupProcs: [],
        },
        { op: 'hold-namespaces', kinds: ['net', 'ipc', 'uts', 'user'] },
      ],
      inner: [{ op: 'loopback' }, { op: 'hostname', name: 'mapped' }, { op: 'hold' }],
    };
    const facts = (): LaunchFacts => {
      const base = mkdtempSync(join(dir, 'userns-'));
      for (const name of ['upper', 'work', 'empty']) mkdirSync(join(base, name));
      chownSync(join(base, 'upper'), 200000, 200000);
      return testFacts(root, {
        rootfs: {
          kind: 'overlay',
          lower: [join(base, 'empty'), root.path],
          upper: join(base, 'upper'),
          work: join(base, 'work'),
          idmap: 'pod',
        },
        namespaces: { user: { from: 'pod' }, net: { from: 'pod' }, ipc: { from: 'pod' }, uts: { from: 'pod' } },
        devices: 'bind',
      });
    };

    for (const [way, options] of [
      ['', []],
      [', with an overlay of one page', ['--without', '3']],
    ] as const)
      it(`of the pod hold a container whose root is a stranger outside${way}`, async () => {
        const given = facts();
        const spec = testSpec(
          'id -u; hostname; stat -c "%u:%g" /bin/sh; touch /made && stat -c %u /made; cat /proc/self/uid_map | tr -s " "; echo $$; echo x >/dev/null; cat /proc/self/oom_score_adj',
          {
            process: { oomScoreAdj: 300, rlimits: [{ type: 'RLIMIT_NOFILE', soft: 64n, hard: 128n }] },
          },
        );
        const { results, stdout, stderr } = await runPlans(
          [{ plan: podPlan }, { plan: compilePlan(spec, given) }],
          options,
        );
        assert.deepEqual(
          results.map(({ failure }) => failure),
          ['', ''],
        );
        assert.equal(stderr, '');
        assert.equal(stdout, '0\nmapped\n0:0\n0\n 0 200000 65536\n1\n300\n');
        assert.equal(statSync(join((given.rootfs as { upper: string }).upper, 'made')).uid, 200000);
      });

    it('idmap volumes, by the pod’s maps or by given ones', async () => {
      const volume = join(dir, 'idmapped');
      mkdirSync(volume);
      writeFileSync(join(volume, 'file'), 'x');
      chownSync(join(volume, 'file'), 5, 6);
      const line = [{ containerID: 0, hostID: 200100, size: 1000 }];
      const mounts = [
        { destination: '/proc', type: 'proc' },
        { destination: '/a', source: volume, options: ['bind', 'idmap'] },
        { destination: '/b', source: volume, options: ['bind'], uidMappings: line, gidMappings: line },
        { destination: '/c', source: volume, options: ['bind'] },
        { destination: '/d', source: volume, options: ['rbind', 'idmap'] },
        { destination: '/e', source: volume, options: ['rbind', 'ridmap'] },
      ];
      const below = join(volume, 'below');
      const other = join(dir, 'other-volume');
      for (const path of [below, other]) mkdirSync(path);
      writeFileSync(join(other, 'file'), 'x');
      chownSync(join(other, 'file'), 7, 8);
      execFileSync('mount', ['--bind', other, below]);
      const files = '/a/file /b/file /c/file /d/file /d/below/file /e/file /e/below/file';
      const spec = testSpec(`stat -c "%u:%g" ${files}`, { spec: { mounts } });
      const plans = [{ plan: podPlan }, { plan: compilePlan(spec, facts()) }];
      const { results, stdout } = await runPlans(plans).finally(() => execFileSync('umount', [below]));
      assert.deepEqual(
        results.map(({ failure }) => failure),
        ['', ''],
      );
      assert.equal(stdout, '5:6\n105:106\n65534:65534\n5:6\n65534:65534\n5:6\n7:8\n');
    });
  });
});
