import { toHost, type IdMappings } from '../idmap/mapping.js';
import type { SandboxNamespaces } from './namespaces.js';
import type { OciMount } from './oci.js';

/** What a container must not see although it shares the kernel, as the kubelet asks for it; for `berth run`. */
export const defaultMaskedPaths: readonly string[] = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/interrupts',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];

export const defaultReadonlyPaths: readonly string[] = [
  '/proc/bus',
  '/proc/fs',
  '/proc/irq',
  '/proc/sys',
  '/proc/sysrq-trigger',
];

/** Bytes of the /dev/shm of a pod, as every peer has it. */
export const shmBytes = 64 * 1024 * 1024;

export interface DefaultMountFacts {
  readonly privileged: boolean;
  readonly sys: SandboxNamespaces['sys'];
  /** Of the pod's user namespace; absent without one. */
  readonly mappings?: IdMappings;
}

/** A sysfs shows the network namespace it was mounted in, and takes rights over that. */
const ownSys = (access: string): OciMount => ({
  destination: '/sys',
  type: 'sysfs',
  source: 'sysfs',
  options: ['nosuid', 'noexec', 'nodev', access],
});

/** Without rights over the host's network only a bind is left; what hangs below must not be writable either. */
const hostSys: OciMount = {
  destination: '/sys',
  type: 'bind',
  source: '/sys',
  options: ['rbind', 'rprivate', 'rnosuid', 'rnoexec', 'rnodev', 'rro'],
};

const ttyGid = 5;

/** devpts refuses a group that the user namespace does not know. */
const ttyGroup = (mappings: IdMappings | undefined): string[] =>
  mappings === undefined || toHost(mappings.gids, ttyGid) !== undefined ? [`gid=${ttyGid}`] : [];

/**
 * The mounts every container starts from (runtime-spec "Default Filesystems" and what peers add). Order matters: later
 * ones lie beneath earlier ones.
 */
export function defaultMounts(facts: DefaultMountFacts): OciMount[] {
  const access = facts.privileged ? 'rw' : 'ro';
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', ...ttyGroup(facts.mappings)],
    },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
    facts.sys === 'bound' ? hostSys : ownSys(access),
    {
      destination: '/sys/fs/cgroup',
      type: 'cgroup',
      source: 'cgroup',
      options: ['nosuid', 'noexec', 'nodev', 'relatime', access],
    },
  ];
}
