/** What is told of each container beside its cgroup's counters. */
import type { ContainerUsageView } from '../../runtime/facade.js';
import type { Family, Sample } from './metric-family.js';

type Read = (usage: ContainerUsageView) => number | bigint | undefined;

const samples = (value: number | bigint | undefined): readonly Sample[] => (value === undefined ? [] : [[[], value]]);

const gauge = (name: string, help: string, read: Read): Family<ContainerUsageView> => ({
  name,
  help,
  type: 'gauge',
  read: (usage) => samples(read(usage)),
});

/** Limits of what `resources` says is in force; absent ones have no sample. */
const limit = (value: number | undefined): number | undefined => (value === undefined || value < 0 ? undefined : value);

const seconds = (nanoseconds: bigint): bigint => nanoseconds / 1_000_000_000n;

type Filesystem = NonNullable<ContainerUsageView['filesystem']>;

const filesystem = (
  name: string,
  help: string,
  read: (filesystem: Filesystem) => number,
): Family<ContainerUsageView> => ({
  name,
  help,
  type: 'gauge',
  labels: ['device'],
  read: ({ filesystem: of }) => (of === undefined ? [] : [[[of.device], read(of)]]),
});

export const containerFamilies: readonly Family<ContainerUsageView>[] = [
  { ...gauge('oom_events_total', 'Processes killed for want of memory.', (u) => u.oomKills), type: 'counter' },
  filesystem('fs_inodes_free', 'Free inodes of the file system.', (of) => of.inodesFree),
  filesystem('fs_inodes_total', 'Inodes of the file system.', (of) => of.inodes),
  filesystem('fs_limit_bytes', 'Size of the file system, in bytes.', (of) => of.limitBytes),
  filesystem('fs_usage_bytes', 'Used by the container’s writable layer, in bytes.', (of) => of.usedBytes),
  gauge('processes', 'Processes.', (u) => u.processes.processes),
  gauge('file_descriptors', 'Open file descriptors.', (u) => u.processes.descriptors),
  gauge('sockets', 'Open sockets.', (u) => u.processes.sockets),
  gauge('threads', 'Threads.', (u) => u.processes.threads),
  gauge('threads_max', 'Threads allowed.', (u) => u.group.pids.limit ?? Infinity),
  {
    name: 'ulimits_soft',
    help: 'Soft resource limits of the first process.',
    type: 'gauge',
    labels: ['ulimit'],
    read: ({ processes: { openFilesLimit } }) =>
      openFilesLimit === undefined ? [] : [[['max_open_files'], openFilesLimit]],
  },
  gauge('last_seen', 'When these figures were read, in seconds since the epoch.', (u) => seconds(u.group.timestamp)),
  gauge('start_time_seconds', 'When it started, in seconds since the epoch.', (u) => seconds(u.container.startedAt)),
  gauge('spec_cpu_period', 'CPU period, in microseconds.', (u) => limit(u.container.resources.cpuPeriod)),
  gauge('spec_cpu_quota', 'CPU time in a period, in microseconds.', (u) => limit(u.container.resources.cpuQuota)),
  gauge('spec_cpu_shares', 'CPU shares.', (u) => limit(u.container.resources.cpuShares)),
  gauge('spec_memory_limit_bytes', 'Memory limit, in bytes; 0 is none.', (u) => u.group.memory.limit ?? 0),
  gauge('spec_memory_reservation_limit_bytes', 'Memory reservation, in bytes; 0 is none.', () => 0),
  gauge('spec_memory_swap_limit_bytes', 'Swap limit, in bytes; 0 is none.', (u) => u.group.memory.swap?.limit ?? 0),
];
