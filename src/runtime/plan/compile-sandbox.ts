import { withLabel } from './compile-mounts.js';
import type { SandboxPlanOptions } from './facts.js';
import { MOUNT_ATTR, MS } from './kernel.js';
import type { FsOption, IdMapLine, InnerStep, LaunchPlan, NamespaceKind, OuterStep } from './plan.js';

export type { SandboxPlanOptions } from './facts.js';

const hardened = MOUNT_ATTR.NOSUID | MOUNT_ATTR.NODEV | MOUNT_ATTR.NOEXEC;
/** Any directory every host has: the pause process hangs its empty root there, in a mount namespace of its own. */
const pauseRootOn = '/proc';

/**
 * The plan that makes a pod's namespaces, which its shim then holds. With a PID namespace its first process stays as
 * the pod's reaper, in an empty read-only root and without capabilities: containers of the pod can see it.
 */
export function compileSandboxPlan(options: SandboxPlanOptions): LaunchPlan {
  const own = new Set<NamespaceKind>(options.namespaces);
  const pause = own.has('pid');
  return { kind: 'sandbox', outer: outerSteps(options, own, pause), inner: innerSteps(options, own, pause) };
}

const shmSlot = 0;
const rootSlot = 1;

function outerSteps(options: SandboxPlanOptions, own: ReadonlySet<NamespaceKind>, pause: boolean): OuterStep[] {
  const { shm, namespaces, cgroup, idMaps } = options;
  return [
    ...(shm === undefined
      ? []
      : [tmpfs(shmSlot, 'shm', '1777', `${shm.bytes}`, withLabel(ownerOf(idMaps), 'tmpfs', shm.label))]),
    ...(pause ? [tmpfs(rootSlot, 'root', '555', '4k')] : []),
    {
      op: 'clone',
      create: pause ? [...namespaces, 'mnt'] : namespaces,
      uidMap: idMaps?.uids ?? [],
      gidMap: idMaps?.gids ?? [],
      cgroupDir: cgroup?.v2Dir ?? '',
      cgroupProcs: cgroup?.v1Procs ?? [],
    },
    ...(namespaces.length === 0 ? [] : [{ op: 'hold-namespaces', kinds: namespaces } as const]),
    ...(own.has('net') ? [{ op: 'pin-namespace', kind: 'net', path: options.netnsPin } as const] : []),
    ...(shm === undefined ? [] : [{ op: 'hold-mount', slot: shmSlot, name: shm.name } as const]),
  ];
}

/** Made by the host's root, so the host's ids: without them the pod's root would not own its /dev/shm. */
function ownerOf(maps: SandboxPlanOptions['idMaps']): FsOption[] {
  if (maps === undefined) return [];
  const root = (lines: readonly IdMapLine[]): string => `${lines.find(({ inside }) => inside === 0)?.outside ?? 0}`;
  return [
    { key: 'uid', value: root(maps.uids) },
    { key: 'gid', value: root(maps.gids) },
  ];
}

function tmpfs(slot: number, source: string, mode: string, size: string, owner: readonly FsOption[] = []): OuterStep {
  const options: FsOption[] = [{ key: 'mode', value: mode }, { key: 'size', value: size }, ...owner];
  return { op: 'fs-source', slot, fstype: 'tmpfs', source, options, attributes: hardened };
}

function innerSteps(options: SandboxPlanOptions, own: ReadonlySet<NamespaceKind>, pause: boolean): InnerStep[] {
  return [
    ...(own.has('net') ? [{ op: 'loopback' } as const] : []),
    ...(own.has('uts') && options.hostname !== '' ? [{ op: 'hostname', name: options.hostname } as const] : []),
    ...options.sysctls.map(sysctlStep),
    ...(pause ? pauseSteps : [{ op: 'hold' } as const]),
  ];
}

/** The file of the domain name is the host's root's in every user namespace; the call asks who owns the namespace. */
const sysctlStep = ([name, value]: readonly [string, string]): InnerStep =>
  name === 'kernel/domainname' ? { op: 'domainname', name: value } : { op: 'sysctl', name, value };

/** Nobody to be, nothing to see, nothing to gain: what is left is to reap. */
const pauseSteps: readonly InnerStep[] = [
  { op: 'propagation', flags: MS.REC | MS.SLAVE },
  { op: 'attach-root', slot: rootSlot, on: pauseRootOn, propagation: 0 },
  { op: 'root-readonly' },
  { op: 'pivot' },
  { op: 'session', terminal: false, console: false },
  { op: 'capabilities', bounding: 0n, permitted: 0n, effective: 0n, inheritable: 0n, ambient: 0n },
  { op: 'no-new-privileges' },
  { op: 'pause' },
];
