import { join } from 'node:path';
import { tryReadCgroupFile } from './files.js';
import { parseBig, parseBlkio, parseCount, parseFlat, parseIoStat, parseLimit, parsePsi } from './parse.js';
import type {
  CgroupLayout,
  CgroupStats,
  CpuStats,
  HugetlbStats,
  IoStats,
  MemoryStats,
  PidsStats,
  PsiStats,
} from './types.js';

/** Reads one file of the cgroup; undefined when it, its controller or the cgroup is not there. */
type Read = (controller: string, file: string) => string | undefined;

export interface StatsReader {
  stats(path: string): CgroupStats;
  oomKills(path: string): number;
}

/** `hugepageSizes` as the kernel writes them in file names, empty without the controller. */
export function statsReader(layout: CgroupLayout, hugepageSizes: readonly string[], now: () => bigint): StatsReader {
  const v2 = layout.version === 'v2';
  const reader = (path: string): Read => {
    return (controller, file) => {
      const root = v2 || controller === 'v2' ? layout.v2Root : layout.v1Roots.get(controller);
      return root === undefined ? undefined : tryReadCgroupFile(join(root, path, file));
    };
  };
  return {
    stats(path) {
      const timestamp = now();
      const read = reader(path);
      const parts = v2
        ? { cpu: cpuV2(read), memory: memoryV2(read), io: ioV2(read) }
        : { cpu: cpuV1(read), memory: memoryV1(read), io: ioV1(read) };
      return { timestamp, ...parts, pids: pids(read), hugetlb: hugetlb(read, hugepageSizes, v2) };
    },
    oomKills(path) {
      const [controller, file] = v2 ? ['v2', 'memory.events'] : ['memory', 'memory.oom_control'];
      return parseFlat(reader(path)(controller, file) ?? '').get('oom_kill') ?? 0;
    },
  };
}

const psiOf = (read: Read, file: string): { psi?: PsiStats } => {
  const psi = parsePsi(read('v2', file));
  return psi === undefined ? {} : { psi };
};

function cpuV1(read: Read): CpuStats {
  const stat = parseFlat(read('cpu', 'cpu.stat') ?? '');
  return {
    usage: parseBig(read('cpuacct', 'cpuacct.usage')),
    user: parseBig(read('cpuacct', 'cpuacct.usage_user')),
    system: parseBig(read('cpuacct', 'cpuacct.usage_sys')),
    periods: stat.get('nr_periods') ?? 0,
    throttledPeriods: stat.get('nr_throttled') ?? 0,
    throttledTime: BigInt(stat.get('throttled_time') ?? 0),
    ...psiOf(read, 'cpu.pressure'),
  };
}

function cpuV2(read: Read): CpuStats {
  const stat = parseFlat(read('cpu', 'cpu.stat') ?? '');
  const ns = (key: string): bigint => BigInt(stat.get(key) ?? 0) * 1000n;
  return {
    usage: ns('usage_usec'),
    user: ns('user_usec'),
    system: ns('system_usec'),
    periods: stat.get('nr_periods') ?? 0,
    throttledPeriods: stat.get('nr_throttled') ?? 0,
    throttledTime: ns('throttled_usec'),
    ...psiOf(read, 'cpu.pressure'),
  };
}

/** Fields that both versions count alike once the names are settled. */
function memoryStats(
  usage: number,
  limit: number | undefined,
  stat: (key: string) => number,
  rest: Pick<MemoryStats, 'rss' | 'cache' | 'mappedFile' | 'kernel' | 'maxUsage' | 'failures' | 'swap' | 'psi'>,
): MemoryStats {
  const workingSet = Math.max(usage - stat('inactive_file'), 0);
  return {
    usage,
    workingSet,
    limit,
    available: limit === undefined ? undefined : Math.max(limit - workingSet, 0),
    activeFile: stat('active_file'),
    inactiveFile: stat('inactive_file'),
    pageFaults: stat('pgfault'),
    majorPageFaults: stat('pgmajfault'),
    ...rest,
  };
}

/** memory.stat of v1 counts the cgroup alone; the `total_` keys take what is below with it, as usage does. */
function memoryV1(read: Read): MemoryStats {
  const values = parseFlat(read('memory', 'memory.stat') ?? '');
  const stat = (key: string): number => values.get(`total_${key}`) ?? 0;
  const limit = parseLimit(read('memory', 'memory.limit_in_bytes'));
  return memoryStats(parseCount(read('memory', 'memory.usage_in_bytes')), limit, stat, {
    rss: stat('rss'),
    cache: stat('cache'),
    mappedFile: stat('mapped_file'),
    kernel: parseCount(read('memory', 'memory.kmem.usage_in_bytes')),
    maxUsage: parseCount(read('memory', 'memory.max_usage_in_bytes')),
    failures: parseCount(read('memory', 'memory.failcnt')),
    swap: swapV1(read, values.get('total_swap'), limit),
    ...psiOf(read, 'memory.pressure'),
  });
}

/** The swap limit is what the limit on the sum leaves above the memory limit. */
function swapV1(read: Read, usage: number | undefined, limit: number | undefined): MemoryStats['swap'] {
  if (usage === undefined) return undefined;
  const sum = parseLimit(read('memory', 'memory.memsw.limit_in_bytes'));
  return { usage, limit: sum === undefined || limit === undefined ? undefined : Math.max(sum - limit, 0) };
}

function memoryV2(read: Read): MemoryStats {
  const values = parseFlat(read('memory', 'memory.stat') ?? '');
  const stat = (key: string): number => values.get(key) ?? 0;
  const usage = parseCount(read('memory', 'memory.current'));
  const swap = read('memory', 'memory.swap.current');
  return memoryStats(usage, parseLimit(read('memory', 'memory.max')), stat, {
    rss: stat('anon'),
    cache: stat('file'),
    mappedFile: stat('file_mapped'),
    kernel: stat('kernel'),
    maxUsage: parseCount(read('memory', 'memory.peak')),
    failures: parseFlat(read('memory', 'memory.events') ?? '').get('max') ?? 0,
    swap:
      swap === undefined
        ? undefined
        : { usage: parseCount(swap), limit: parseLimit(read('memory', 'memory.swap.max')) },
    ...psiOf(read, 'memory.pressure'),
  });
}

const pids = (read: Read): PidsStats => ({
  current: parseCount(read('pids', 'pids.current')),
  limit: parseLimit(read('pids', 'pids.max')),
});

function ioV1(read: Read): IoStats {
  const bytes = read('blkio', 'blkio.throttle.io_service_bytes_recursive') ?? '';
  const counts = read('blkio', 'blkio.throttle.io_serviced_recursive') ?? '';
  return { devices: parseBlkio(bytes, counts), ...psiOf(read, 'io.pressure') };
}

const ioV2 = (read: Read): IoStats => ({
  devices: parseIoStat(read('io', 'io.stat') ?? ''),
  ...psiOf(read, 'io.pressure'),
});

function hugetlb(read: Read, sizes: readonly string[], v2: boolean): HugetlbStats[] {
  return sizes.map((pageSize) => {
    const [usage, limit] = v2 ? ['current', 'max'] : ['usage_in_bytes', 'limit_in_bytes'];
    return {
      pageSize,
      usage: parseCount(read('hugetlb', `hugetlb.${pageSize}.${usage}`)),
      limit: parseLimit(read('hugetlb', `hugetlb.${pageSize}.${limit}`)),
    };
  });
}
