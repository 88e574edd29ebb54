import type { KeptFiles } from './kept-files.js';
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
  StatsOptions,
} from './types.js';

/** The cgroup's files. Undefined: the file, its controller or the cgroup is not there, or only detail needs it. */
interface Read {
  (controller: string, file: string): string | undefined;
  detail(controller: string, file: string): string | undefined;
}

export interface StatsReader {
  /** Undefined when the cgroup does not exist. */
  stats(path: string, options: StatsOptions): CgroupStats | undefined;
  oomKills(path: string): number;
}

/** What a reader needs to know of the host. */
export interface StatsHost {
  readonly layout: CgroupLayout;
  /** As the kernel writes them in file names, empty without the controller. */
  readonly hugepageSizes: readonly string[];
  /** Nanoseconds since the epoch. */
  readonly now: () => bigint;
  readonly exists: (path: string) => boolean;
}

export function statsReader({ layout, hugepageSizes, now, exists }: StatsHost, files: KeptFiles): StatsReader {
  const v2 = layout.version === 'v2';
  const rootOf = (controller: string): string | undefined =>
    v2 || controller === 'v2' ? layout.v2Root : layout.v1Roots.get(controller);
  const reader = (path: string, detail: boolean): Read => {
    const read = (controller: string, file: string): string | undefined => {
      const root = rootOf(controller);
      return root === undefined ? undefined : files.read(root, path, file);
    };
    return Object.assign(read, { detail: detail ? read : () => undefined });
  };
  return {
    stats(path, { detail = false, timestamp = now() }) {
      const read = reader(path, detail);
      const tasks = pids(read);
      if (tasks === undefined && !exists(path)) return void files.drop(path);
      const parts = v2
        ? { cpu: cpuV2(read), memory: memoryV2(read), io: ioV2(read) }
        : { cpu: cpuV1(read), memory: memoryV1(read), io: ioV1(read) };
      const hugepages = detail ? hugetlb(read, hugepageSizes, v2) : [];
      return { timestamp, ...parts, pids: tasks ?? { current: 0, limit: undefined }, hugetlb: hugepages };
    },
    oomKills(path) {
      const [controller, file] = v2 ? ['v2', 'memory.events'] : ['memory', 'memory.oom_control'];
      return parseFlat(reader(path, false)(controller, file) ?? '').get('oom_kill') ?? 0;
    },
  };
}

const psiOf = (text: string | undefined): { psi?: PsiStats } => {
  const psi = parsePsi(text);
  return psi === undefined ? {} : { psi };
};

/** Hybrid hosts count time in the v2 hierarchy as well, where one file tells all three. */
function cpuV1(read: Read): CpuStats {
  const throttling = parseFlat(read.detail('cpu', 'cpu.stat') ?? '');
  const unified = read('v2', 'cpu.stat');
  return {
    ...(unified === undefined ? cpuacct(read) : cpuTimes(parseFlat(unified))),
    periods: throttling.get('nr_periods') ?? 0,
    throttledPeriods: throttling.get('nr_throttled') ?? 0,
    throttledTime: BigInt(throttling.get('throttled_time') ?? 0),
    ...psiOf(read.detail('v2', 'cpu.pressure')),
  };
}

type CpuTimes = Pick<CpuStats, 'usage' | 'user' | 'system'>;

const cpuacct = (read: Read): CpuTimes => ({
  usage: parseBig(read('cpuacct', 'cpuacct.usage')),
  user: parseBig(read('cpuacct', 'cpuacct.usage_user')),
  system: parseBig(read('cpuacct', 'cpuacct.usage_sys')),
});

function cpuTimes(stat: ReadonlyMap<string, number>): CpuTimes {
  const ns = (key: string): bigint => BigInt(stat.get(key) ?? 0) * 1000n;
  return { usage: ns('usage_usec'), user: ns('user_usec'), system: ns('system_usec') };
}

function cpuV2(read: Read): CpuStats {
  const stat = parseFlat(read('cpu', 'cpu.stat') ?? '');
  return {
    ...cpuTimes(stat),
    periods: stat.get('nr_periods') ?? 0,
    throttledPeriods: stat.get('nr_throttled') ?? 0,
    throttledTime: BigInt(stat.get('throttled_usec') ?? 0) * 1000n,
    ...psiOf(read('v2', 'cpu.pressure')),
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
    kernel: parseCount(read.detail('memory', 'memory.kmem.usage_in_bytes')),
    maxUsage: parseCount(read.detail('memory', 'memory.max_usage_in_bytes')),
    failures: parseCount(read.detail('memory', 'memory.failcnt')),
    swap: swapV1(read, values.get('total_swap'), limit),
    ...psiOf(read.detail('v2', 'memory.pressure')),
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
    maxUsage: parseCount(read.detail('memory', 'memory.peak')),
    failures: parseFlat(read.detail('memory', 'memory.events') ?? '').get('max') ?? 0,
    swap:
      swap === undefined
        ? undefined
        : { usage: parseCount(swap), limit: parseLimit(read('memory', 'memory.swap.max')) },
    ...psiOf(read('v2', 'memory.pressure')),
  });
}

/** Undefined without the controller, or the cgroup. */
function pids(read: Read): PidsStats | undefined {
  const current = read('pids', 'pids.current');
  return current === undefined
    ? undefined
    : { current: parseCount(current), limit: parseLimit(read.detail('pids', 'pids.max')) };
}

function ioV1(read: Read): IoStats {
  const bytes = read.detail('blkio', 'blkio.throttle.io_service_bytes_recursive') ?? '';
  const counts = read.detail('blkio', 'blkio.throttle.io_serviced_recursive') ?? '';
  return { devices: parseBlkio(bytes, counts), ...psiOf(read.detail('v2', 'io.pressure')) };
}

const ioV2 = (read: Read): IoStats => ({
  devices: parseIoStat(read.detail('io', 'io.stat') ?? ''),
  ...psiOf(read('v2', 'io.pressure')),
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
