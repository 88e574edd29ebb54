import { compileExecPlan } from '../../../src/runtime/plan/compile-exec.js';
import { compileSandboxPlan } from '../../../src/runtime/plan/compile-sandbox.js';
import { compilePlan } from '../../../src/runtime/plan/compile.js';
import type { LaunchFacts, LaunchNamespace } from '../../../src/runtime/plan/facts.js';
import type { LaunchPlan } from '../../../src/runtime/plan/plan.js';
import { defaultContainerCapabilities } from '../../../src/runtime/plan/capabilities.js';
import { defaultMounts } from '../../../src/runtime/spec/defaults.js';
import { testSpec, type SpecChanges } from './specs.js';

/** Plans of every kind and with every step, made from fixed facts. */

const fromPod: LaunchNamespace = { from: 'pod' };
const kernel = { lastCapability: 40, capabilities: 0x1ff_ffff_ffffn, canRaiseLimits: true };

const overlay = {
  kind: 'overlay',
  lower: ['/layers/2/fs', '/layers/1/fs'],
  upper: '/snapshots/c1/upper',
  work: '/snapshots/c1/work',
} as const;

const v2: LaunchFacts = {
  rootfs: overlay,
  rootOn: '/run/berth/pods/p1/root',
  namespaces: {
    net: fromPod,
    ipc: fromPod,
    uts: fromPod,
    pid: { from: 'new' },
    mnt: { from: 'new' },
    cgroup: { from: 'new' },
  },
  cgroup: {
    path: '/kubepods/podX/c1',
    join: { v2Dir: '/sys/fs/cgroup/kubepods/podX/c1', v1Procs: [] },
    layout: { version: 'v2', v2Root: '/sys/fs/cgroup', v1Roots: new Map() },
  },
  kernel,
};

const v1: LaunchFacts = {
  ...v2,
  namespaces: { net: fromPod, ipc: fromPod, uts: fromPod, pid: fromPod, mnt: { from: 'new' }, cgroup: { from: 'new' } },
  cgroup: {
    path: '/kubepods/podX/c1',
    join: {
      v1Procs: [
        '/sys/fs/cgroup/cpu,cpuacct/kubepods/podX/c1/cgroup.procs',
        '/sys/fs/cgroup/memory/kubepods/podX/c1/cgroup.procs',
      ],
    },
    layout: {
      version: 'hybrid',
      v2Root: '/sys/fs/cgroup/unified',
      v1Roots: new Map([
        ['cpu', '/sys/fs/cgroup/cpu,cpuacct'],
        ['cpuacct', '/sys/fs/cgroup/cpu,cpuacct'],
        ['memory', '/sys/fs/cgroup/memory'],
        ['name=systemd', '/sys/fs/cgroup/systemd'],
      ]),
    },
  },
  kernel: { ...kernel, canRaiseLimits: false },
};

const usualMounts = [
  ...defaultMounts({ privileged: false, sys: 'fresh' }),
  { destination: '/dev/shm', type: 'bind', source: 'held:shm', options: ['nosuid', 'nodev', 'noexec'] },
  {
    destination: '/etc/hosts',
    type: 'bind',
    source: '/var/lib/kubelet/pods/X/etc-hosts',
    options: ['rbind', 'rprivate', 'rw'],
  },
];

const container = (changes: SpecChanges, facts: LaunchFacts = v2): LaunchPlan =>
  compilePlan(
    testSpec(['/app', '--flag', 'two words'], { ...changes, spec: { mounts: usualMounts, ...changes.spec } }),
    facts,
  );

const filter = new Uint8Array([6, 0, 0, 0, 0, 0, 0xff, 0x7f]);

export interface GoldenPlan {
  readonly name: string;
  readonly plan: LaunchPlan;
}

export function goldenPlans(): GoldenPlan[] {
  return [...containerPlans(), ...otherPlans()];
}

function containerPlans(): GoldenPlan[] {
  const sets = {
    bounding: defaultContainerCapabilities,
    permitted: defaultContainerCapabilities,
    effective: defaultContainerCapabilities,
  };
  return [
    {
      name: 'container-v2',
      plan: container(
        { process: { capabilities: sets, cwd: '/srv' } },
        { ...v2, seccomp: { program: filter, flags: 0 } },
      ),
    },
    {
      name: 'container-v1-pod-pid',
      plan: container(
        { process: { oomScoreAdj: 999, rlimits: [{ type: 'RLIMIT_NOFILE', soft: 1024n, hard: 4096n }] } },
        v1,
      ),
    },
    {
      name: 'container-user-without-nnp',
      plan: container(
        {
          process: { user: { uid: 1000, gid: 2000, additionalGids: [4, 3, 4], umask: 0o27 }, noNewPrivileges: false },
          spec: { root: { path: '/', readonly: true } },
        },
        { ...v2, seccomp: { program: filter, flags: 2 } },
      ),
    },
    {
      name: 'container-privileged-host',
      plan: compilePlan(
        testSpec(['/agent'], {
          process: {
            noNewPrivileges: false,
            apparmorProfile: 'unconfined',
            selinuxLabel: 'system_u:system_r:spc_t:s0',
          },
          spec: {
            hostname: '',
            mounts: [
              { destination: '/host', source: '/', options: ['rbind', 'rslave', 'ro'] },
              { destination: '/dev', source: '/dev', options: ['rbind'] },
            ],
          },
          linux: {
            namespaces: [{ type: 'mount' }],
            rootfsPropagation: 'rshared',
            maskedPaths: [],
            readonlyPaths: [],
            devices: [{ path: '/dev/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o666 }],
          },
        }),
        { ...v2, namespaces: { mnt: { from: 'new' } } },
      ),
    },
    { name: 'container-mount-options', plan: mountOptionsPlan() },
    { name: 'container-own-names', plan: ownNamesPlan() },
    { name: 'container-user-namespace', plan: userNamespacePlan(mapped) },
    {
      name: 'container-user-namespace-metacopy',
      plan: userNamespacePlan({
        ...mapped,
        rootfs: { ...overlay, lower: ['/remaps/1/fs', ...overlay.lower], metacopy: true },
      }),
    },
    {
      name: 'container-user-namespace-rootfs',
      plan: userNamespacePlan({ ...mapped, rootfs: { kind: 'directory', path: '/srv/root', idmap: 'pod' } }),
    },
    { name: 'container-volumes', plan: volumesPlan({ ...v2, directories: ['/var/lib/data'] }, 'none') },
    { name: 'container-user-namespace-volumes', plan: volumesPlan(mapped, 'pod') },
  ];
}

function mountOptionsPlan(): LaunchPlan {
  const ids = [{ containerID: 0, hostID: 100000, size: 65536 }];
  return container({
    process: { terminal: true },
    spec: {
      mounts: [
        {
          destination: '/tmpfs',
          type: 'tmpfs',
          source: 'scratch',
          options: ['size=1m', 'noatime', 'ro', 'tmpcopyup', 'sync'],
        },
        { destination: '/a', source: '/src', options: ['bind', 'ro', 'nosuid', 'nosymfollow'] },
        { destination: '/b', source: '/src', options: ['rbind', 'rro', 'rnoexec', 'rprivate'] },
        { destination: '/c', source: '/src', options: ['rbind', 'ro', 'rshared'] },
        { destination: '/d', source: '/src', options: ['bind', 'slave', 'exec', 'strictatime'] },
        { destination: '/e', source: '/src', options: ['bind', 'idmap'], uidMappings: ids, gidMappings: ids },
      ],
    },
    linux: { mountLabel: 'system_u:object_r:container_file_t:s0' },
  });
}

const ids = [{ containerID: 0, hostID: 100000, size: 65536 }];
const inPodUserNamespace: NonNullable<SpecChanges['linux']> = {
  namespaces: [{ type: 'user' }, { type: 'mount' }, { type: 'pid' }, { type: 'network' }],
  uidMappings: ids,
  gidMappings: ids,
};

const mapped: LaunchFacts = {
  ...v2,
  rootfs: { ...overlay, idmap: 'pod' },
  namespaces: { ...v2.namespaces, user: fromPod },
  rootOn: '/proc',
  devices: 'bind',
  deviceSources: new Map([['/dev/fuse', '/dev/other']]),
};

function userNamespacePlan(facts: LaunchFacts): LaunchPlan {
  return container(
    {
      process: { user: { uid: 1000, gid: 1000 } },
      spec: {
        mounts: [
          ...usualMounts,
          { destination: '/a', source: '/src', options: ['rbind', 'idmap'], uidMappings: ids, gidMappings: ids },
          { destination: '/b', source: '/src', options: ['rbind', 'ridmap'], uidMappings: ids, gidMappings: ids },
        ],
      },
      linux: {
        ...inPodUserNamespace,
        devices: [{ path: '/dev/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o666 }],
      },
    },
    facts,
  );
}

/** One volume that the image declares, one image whole, and a part of it. */
function volumesPlan(facts: LaunchFacts, idmap: 'none' | 'pod'): LaunchPlan {
  const lower = ['/layers/4/fs', '/layers/3/fs'];
  const declared = { destination: '/data', type: 'bind', source: '/volumes/c1/0', options: ['bind', 'private', 'rw'] };
  const image = { type: 'bind', options: ['bind', 'private', 'ro', 'noexec'] };
  return container(
    {
      spec: {
        mounts: [
          declared,
          ...usualMounts,
          { ...image, destination: '/models', source: 'image:sha256:1#0' },
          { ...image, destination: '/part', source: 'image:sha256:1#1' },
        ],
      },
      ...(idmap === 'pod' ? { linux: inPodUserNamespace } : {}),
    },
    {
      ...facts,
      volumes: new Map([
        ['/volumes/c1/0', { kind: 'copy-up' }],
        ['image:sha256:1#0', { kind: 'image', lower, subPath: '', idmap }],
        ['image:sha256:1#1', { kind: 'image', lower, subPath: '/some where', idmap, metacopy: true }],
      ]),
    },
  );
}

function ownNamesPlan(): LaunchPlan {
  const facts: LaunchFacts = {
    ...v2,
    rootfs: { kind: 'directory', path: '/srv/root' },
    devices: 'bind',
    namespaces: { net: { from: 'path', path: '/run/netns/x' }, pid: { from: 'container', id: 'c0' } },
  };
  const changes: SpecChanges = {
    spec: { domainname: 'example.org', mounts: [{ destination: '/proc', type: 'proc' }] },
    linux: { sysctl: { 'net.ipv4.ip_forward': '1', 'kernel/msgmax': '8192' } },
  };
  return container(changes, facts);
}

function otherPlans(): GoldenPlan[] {
  const shm = { name: 'shm', bytes: 64 << 20 };
  const base = { netnsPin: '/run/netns/berth-p1', hostname: 'web', sysctls: [['net/ipv4/ip_forward', '1']] as const };
  return [
    {
      name: 'sandbox',
      plan: compileSandboxPlan({ ...base, namespaces: ['net', 'ipc', 'uts'], shm, cgroup: undefined }),
    },
    {
      name: 'sandbox-pid',
      plan: compileSandboxPlan({ ...base, namespaces: ['pid', 'net', 'ipc', 'uts'], shm, cgroup: v2.cgroup.join }),
    },
    {
      name: 'sandbox-host',
      plan: compileSandboxPlan({ ...base, namespaces: [], sysctls: [], shm: undefined, cgroup: undefined }),
    },
    {
      name: 'sandbox-user-namespace',
      plan: compileSandboxPlan({
        ...base,
        namespaces: ['pid', 'net', 'ipc', 'uts', 'user'],
        shm,
        cgroup: v2.cgroup.join,
        idMaps: {
          uids: [{ inside: 0, outside: 100000, count: 65536 }],
          gids: [{ inside: 0, outside: 200000, count: 65536 }],
        },
      }),
    },
    {
      name: 'exec-user-namespace',
      plan: compileExecPlan(
        testSpec('true', { process: { user: { uid: 7, gid: 8 } }, linux: { ...inPodUserNamespace } }),
        { containerId: 'c1', args: ['id'], terminal: false, cgroup: v2.cgroup, kernel },
      ),
    },
    {
      name: 'exec',
      plan: compileExecPlan(testSpec('true', { process: { user: { uid: 7, gid: 8 } } }), {
        containerId: 'c1',
        args: ['ls', '-l'],
        terminal: true,
        cgroup: v1.cgroup,
        kernel,
        seccomp: { program: filter, flags: 0 },
      }),
    },
  ];
}
