/** What a cgroup counts: for pods and containers alike. */
import type { CgroupStats, PsiStats } from '../../runtime/usage.js';
import type { Family, Sample } from './metric-family.js';

const one = (value: number | bigint | undefined): readonly Sample[] => (value === undefined ? [] : [[[], value]]);
const seconds = (nanoseconds: bigint): bigint => nanoseconds / 1_000_000_000n;

type Read = (stats: CgroupStats) => number | bigint | undefined;

const counter = (name: string, help: string, read: Read): Family<CgroupStats> => ({
  name,
  help,
  type: 'counter',
  read: (stats) => one(read(stats)),
});
const gauge = (name: string, help: string, read: Read): Family<CgroupStats> => ({
  ...counter(name, help, read),
  type: 'gauge',
});

const cpu: readonly Family<CgroupStats>[] = [
  counter('cpu_user_seconds_total', 'CPU time in user mode, in seconds.', (s) => seconds(s.cpu.user)),
  counter('cpu_system_seconds_total', 'CPU time in the kernel, in seconds.', (s) => seconds(s.cpu.system)),
  {
    name: 'cpu_usage_seconds_total',
    help: 'CPU time, in seconds.',
    type: 'counter',
    labels: ['cpu'],
    read: (s) => [[['total'], seconds(s.cpu.usage)]],
  },
  counter('cpu_cfs_periods_total', 'Periods in which the CPU quota was enforced.', (s) => s.cpu.periods),
  counter('cpu_cfs_throttled_periods_total', 'Periods cut short by the quota.', (s) => s.cpu.throttledPeriods),
  counter('cpu_cfs_throttled_seconds_total', 'Time waited for the quota, in seconds.', (s) =>
    seconds(s.cpu.throttledTime),
  ),
];

const memory: readonly Family<CgroupStats>[] = [
  gauge('memory_cache', 'Page cache, in bytes.', (s) => s.memory.cache),
  gauge('memory_rss', 'Anonymous memory, in bytes.', (s) => s.memory.rss),
  gauge('memory_kernel_usage', 'Memory of the kernel, in bytes.', (s) => s.memory.kernel),
  gauge('memory_mapped_file', 'Mapped files, in bytes.', (s) => s.memory.mappedFile),
  gauge('memory_swap', 'Swap used, in bytes.', (s) => s.memory.swap?.usage ?? 0),
  counter('memory_failcnt', 'Times the memory limit was hit.', (s) => s.memory.failures),
  gauge('memory_usage_bytes', 'Memory used, page cache included, in bytes.', (s) => s.memory.usage),
  gauge('memory_max_usage_bytes', 'Most memory ever used, in bytes.', (s) => s.memory.maxUsage),
  gauge('memory_working_set_bytes', 'Memory used less inactive page cache, in bytes.', (s) => s.memory.workingSet),
  gauge('memory_total_active_file_bytes', 'Active page cache, in bytes.', (s) => s.memory.activeFile),
  gauge('memory_total_inactive_file_bytes', 'Inactive page cache, in bytes.', (s) => s.memory.inactiveFile),
  {
    name: 'memory_failures_total',
    help: 'Page faults.',
    type: 'counter',
    labels: ['failure_type', 'scope'],
    read: ({ memory: { pageFaults, majorPageFaults } }) => [
      [['pgfault', 'container'], pageFaults],
      [['pgfault', 'hierarchy'], pageFaults],
      [['pgmajfault', 'container'], majorPageFaults],
      [['pgmajfault', 'hierarchy'], majorPageFaults],
    ],
  },
];

const io: readonly Family<CgroupStats>[] = [
  {
    name: 'blkio_device_usage_total',
    help: 'Bytes read and written, by block device.',
    type: 'counter',
    labels: ['device', 'major', 'minor', 'operation'],
    read: (s) =>
      s.io.devices.flatMap(({ device, readBytes, writeBytes }) => {
        const [major = '', minor = ''] = device.split(':');
        return [
          [['', major, minor, 'Read'], readBytes],
          [['', major, minor, 'Write'], writeBytes],
        ] as const;
      }),
  },
  ...(
    [
      ['fs_reads_bytes_total', 'Bytes read.', 'readBytes'],
      ['fs_reads_total', 'Reads completed.', 'reads'],
      ['fs_writes_bytes_total', 'Bytes written.', 'writeBytes'],
      ['fs_writes_total', 'Writes completed.', 'writes'],
    ] as const
  ).map(([name, help, field]): Family<CgroupStats> => ({
    name,
    help,
    type: 'counter',
    labels: ['device'],
    read: (s) => s.io.devices.map((device) => [[device.device], device[field]]),
  })),
];

const hugetlb: readonly Family<CgroupStats>[] = [
  {
    name: 'hugetlb_usage_bytes',
    help: 'Huge pages used, in bytes.',
    type: 'gauge',
    labels: ['pagesize'],
    read: (s) => s.hugetlb.map(({ pageSize, usage }) => [[pageSize], usage]),
  },
];

const pressureOf: readonly (readonly [string, (s: CgroupStats) => PsiStats | undefined])[] = [
  ['cpu', (s) => s.cpu.psi],
  ['memory', (s) => s.memory.psi],
  ['io', (s) => s.io.psi],
];

/** Microseconds in the kernel's files. */
const pressure: readonly Family<CgroupStats>[] = pressureOf.flatMap(([of, read]) => [
  counter(`pressure_${of}_waiting_seconds_total`, `Time in which some task waited for ${of}, in seconds.`, (s) =>
    toSeconds(read(s)?.some.total),
  ),
  counter(`pressure_${of}_stalled_seconds_total`, `Time in which every task waited for ${of}, in seconds.`, (s) =>
    toSeconds(read(s)?.full.total),
  ),
]);

const toSeconds = (microseconds: bigint | undefined): bigint | undefined =>
  microseconds === undefined ? undefined : microseconds / 1_000_000n;

export const groupFamilies: readonly Family<CgroupStats>[] = [...cpu, ...memory, ...io, ...hugetlb, ...pressure];
