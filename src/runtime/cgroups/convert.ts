import { RuntimeError, invalid } from '../../kit/errors.js';
import type { LinuxResources } from '../model.js';

/**
 * Resources to cgroup file contents, as data. `applyWrites` carries them out.
 *
 * | field            | v1                                    | v2                                                     |
 * |------------------|---------------------------------------|--------------------------------------------------------|
 * | cpuShares        | cpu.shares                            | cpu.weight, see `sharesToWeight`                       |
 * | cpuQuota, Period | cpu.cfs_quota_us, cpu.cfs_period_us   | cpu.max `QUOTA PERIOD`; a missing half is read back    |
 * | memoryLimit      | memory.limit_in_bytes                 | memory.max                                             |
 * | memorySwapLimit  | memory.memsw.limit_in_bytes (the sum) | memory.swap.max (swap alone: sum less memoryLimit)     |
 * | cpuset*          | cpuset.cpus, cpuset.mems              | the same                                               |
 * | pidsLimit        | pids.max                              | the same                                               |
 * | hugepageLimits   | hugetlb.SIZE.limit_in_bytes           | hugetlb.SIZE.max, and .rsvd.max where it exists        |
 * | unified          | refused                               | verbatim, last                                         |
 *
 * 0 and absent mean unspecified (CRI, LinuxContainerResources), -1 means no limit. oomScoreAdj is the process's.
 */
export interface CgroupWrite {
  /** Controller the file belongs to; says which hierarchy on v1. */
  readonly controller: string;
  readonly file: string;
  readonly value: string;
  /** A file this kernel may not have; its absence is no error. */
  readonly optional?: true;
}

/**
 * Writes that the kernel checks against each other (limit ≤ limit + swap, quota against the parent's): if the given
 * order is refused, the reverse is tried.
 */
export type WriteGroup = readonly CgroupWrite[];

/** OCI runtime-spec lets shares be 2 to 262144; the kernel clamps to the same, and 0 means unspecified. */
export const clampShares = (shares: number): number => Math.min(Math.max(shares, 2), 262_144);

/**
 * cpu.shares (2..262144, default 1024) to cpu.weight (1..10000, default 100). The quadratic in log2 meets the ends and
 * the defaults exactly, so that a default container keeps a default weight: the conversion runc and crun agreed on in
 * 2025. The straight line used before mapped 1024 to 39.
 */
export function sharesToWeight(shares: number): number {
  const clamped = clampShares(shares);
  if (clamped === 2) return 1;
  if (clamped === 262_144) return 10_000;
  const l = Math.log2(clamped);
  return Math.ceil(10 ** ((l * l + 125 * l) / 612 - 7 / 34));
}

/** Largest value a memory limit file takes; larger numbers are "no limit" to the kernel too. */
const maxBytes = Number.MAX_SAFE_INTEGER;

function limit(value: number | undefined, field: string, none: string): string | undefined {
  if (value === undefined || value === 0) return undefined;
  if (value === -1 || value > maxBytes) return none;
  if (value < 0 || !Number.isInteger(value)) throw invalid(field, `${value} is neither a count nor -1`);
  return String(value);
}

const write = (controller: string, file: string, value: string): CgroupWrite => ({ controller, file, value });

/** What conversion to v1 needs to know of the cgroup. */
export interface V1Current {
  /** Content of memory.memsw.limit_in_bytes, needed when a memory limit comes without a swap limit. */
  readonly memswLimit?: string;
}

export function convertV1(resources: LinuxResources, current: V1Current = {}): WriteGroup[] {
  const unified = Object.keys(resources.unified ?? {})[0];
  if (unified !== undefined) throw invalid(`unified["${unified}"]`, 'this host runs cgroup v1');
  return [
    cpuset(resources),
    cpuV1(resources),
    memoryV1(resources, current),
    pids(resources),
    hugetlbV1(resources),
  ].filter((group) => group.length > 0);
}

function cpuset({ cpusetCpus, cpusetMems }: LinuxResources): CgroupWrite[] {
  return [
    ...(cpusetCpus ? [write('cpuset', 'cpuset.cpus', cpusetCpus)] : []),
    ...(cpusetMems ? [write('cpuset', 'cpuset.mems', cpusetMems)] : []),
  ];
}

function cpuV1({ cpuShares, cpuQuota, cpuPeriod }: LinuxResources): CgroupWrite[] {
  const quota = quotaOf(cpuQuota, '-1');
  return [
    ...(cpuShares ? [write('cpu', 'cpu.shares', String(clampShares(cpuShares)))] : []),
    ...(cpuPeriod ? [write('cpu', 'cpu.cfs_period_us', String(cpuPeriod))] : []),
    ...(quota === undefined ? [] : [write('cpu', 'cpu.cfs_quota_us', quota)]),
  ];
}

/** Every negative quota is "no limit" (runtime-spec, linux.resources.cpu.quota). */
const quotaOf = (quota: number | undefined, none: string): string | undefined =>
  quota === undefined || quota === 0 ? undefined : quota < 0 ? none : String(quota);

function memoryV1(resources: LinuxResources, current: V1Current): CgroupWrite[] {
  const bytes = limit(resources.memoryLimit, 'memoryLimit', '-1');
  checkSwap(resources);
  const sum = limit(resources.memorySwapLimit, 'memorySwapLimit', '-1') ?? impliedSum(bytes, current);
  // Without swap accounting there is no file, and only a limit that leaves room for swap is lost by that.
  const needed = resources.memorySwapLimit !== undefined && Number(sum) > Number(bytes ?? Infinity);
  return [
    ...(bytes === undefined ? [] : [write('memory', 'memory.limit_in_bytes', bytes)]),
    ...(sum === undefined ? [] : [swapWrite('memory.memsw.limit_in_bytes', sum, needed)]),
  ];
}

/** No limit on memory means none on the sum; and the kernel refuses a memory limit above the sum in force. */
function impliedSum(bytes: string | undefined, { memswLimit }: V1Current): string | undefined {
  if (bytes === undefined || bytes === '-1') return bytes;
  return memswLimit !== undefined && Number(bytes) > Number(memswLimit) ? bytes : undefined;
}

function swapWrite(file: string, value: string, needed: boolean): CgroupWrite {
  return needed ? write('memory', file, value) : { ...write('memory', file, value), optional: true };
}

function checkSwap({ memoryLimit, memorySwapLimit }: LinuxResources): void {
  if (!memorySwapLimit || memorySwapLimit === -1 || !memoryLimit) return;
  if (memoryLimit === -1) throw invalid('memorySwapLimit', 'limits memory plus swap while memory has no limit');
  if (memorySwapLimit < memoryLimit) {
    throw invalid(
      'memorySwapLimit',
      `${memorySwapLimit} is memory plus swap and below the memory limit ${memoryLimit}`,
    );
  }
}

function pids({ pidsLimit }: LinuxResources): CgroupWrite[] {
  const value = limit(pidsLimit, 'pidsLimit', 'max');
  return value === undefined ? [] : [write('pids', 'pids.max', value)];
}

const pageSizePattern = /^[1-9][0-9]*[KMG]B$/;

function hugetlb({ hugepageLimits = [] }: LinuxResources, suffix: string): CgroupWrite[] {
  return hugepageLimits.flatMap(({ pageSize, limitBytes }, index) => {
    const field = `hugepageLimits[${index}]`;
    if (!pageSizePattern.test(pageSize)) throw invalid(`${field}.pageSize`, `"${pageSize}" is no page size like 2MB`);
    if (!Number.isInteger(limitBytes) || limitBytes < 0) throw invalid(`${field}.limitBytes`, `${limitBytes}`);
    // Unlike the other limits 0 is a limit here: the kubelet forbids each page size a pod did not ask for this way.
    const value = String(Math.min(limitBytes, maxBytes));
    return [
      write('hugetlb', `hugetlb.${pageSize}.${suffix}`, value),
      { ...write('hugetlb', `hugetlb.${pageSize}.rsvd.${suffix}`, value), optional: true as const },
    ];
  });
}

const hugetlbV1 = (resources: LinuxResources): CgroupWrite[] => hugetlb(resources, 'limit_in_bytes');

/** What conversion to v2 needs to know of the cgroup: files whose halves are not all given. */
export interface V2Current {
  /** Content of cpu.max, needed when only one of quota and period is given. */
  readonly cpuMax?: string;
  /** Content of memory.max, needed when a swap limit comes without a memory limit. */
  readonly memoryMax?: string;
}

export function convertV2(resources: LinuxResources, current: V2Current = {}): WriteGroup[] {
  return [
    cpuset(resources),
    cpuV2(resources, current),
    memoryV2(resources, current),
    pids(resources),
    hugetlb(resources, 'max'),
    unifiedWrites(resources),
  ].filter((group) => group.length > 0);
}

function cpuV2(
  { cpuShares, cpuQuota, cpuPeriod }: LinuxResources,
  { cpuMax = 'max 100000' }: V2Current,
): CgroupWrite[] {
  const writes = cpuShares ? [write('cpu', 'cpu.weight', String(sharesToWeight(cpuShares)))] : [];
  const quota = quotaOf(cpuQuota, 'max');
  if (quota === undefined && !cpuPeriod) return writes;
  const [oldQuota = 'max', oldPeriod = '100000'] = cpuMax.trim().split(' ');
  return [...writes, write('cpu', 'cpu.max', `${quota ?? oldQuota} ${cpuPeriod ? cpuPeriod : oldPeriod}`)];
}

function memoryV2(resources: LinuxResources, current: V2Current): CgroupWrite[] {
  const bytes = limit(resources.memoryLimit, 'memoryLimit', 'max');
  const swap = swapV2(resources, bytes, current);
  return [
    ...(swap === undefined ? [] : [swap]),
    ...(bytes === undefined ? [] : [write('memory', 'memory.max', bytes)]),
  ];
}

/** A swap limit of zero is asked of hosts without swap accounting as well, where it holds already. */
function swapV2(resources: LinuxResources, bytes: string | undefined, current: V2Current): CgroupWrite | undefined {
  checkSwap(resources);
  const sum = limit(resources.memorySwapLimit, 'memorySwapLimit', 'max');
  if (sum === undefined) return undefined;
  if (sum === 'max') return swapWrite('memory.swap.max', 'max', false);
  const memory = bytes ?? current.memoryMax?.trim();
  if (memory === undefined || memory === 'max' || Number(memory) > Number(sum)) {
    throw invalid('memorySwapLimit', `${sum} is memory plus swap, and the memory limit is ${memory ?? 'unknown'}`);
  }
  const swap = Number(sum) - Number(memory);
  return swapWrite('memory.swap.max', String(swap), swap > 0);
}

/** File names of v2 are `controller.rest`; a key that could leave the directory is refused. */
function unifiedWrites({ unified = {} }: LinuxResources): CgroupWrite[] {
  return Object.entries(unified).map(([file, value]) => {
    const field = `unified["${file}"]`;
    const controller = file.split('.')[0] ?? '';
    if (!/^[a-z]+(\.[A-Za-z0-9_]+)+$/.test(file)) throw invalid(field, 'is no cgroup v2 file name');
    if (/[\0]/.test(value) || value === '') throw invalid(field, 'the value is empty or holds NUL');
    return write(controller, file, value);
  });
}

/** Controllers that the resources cannot do without. */
export const controllersOf = (groups: readonly WriteGroup[]): Set<string> =>
  new Set(groups.flatMap((group) => group.filter((item) => item.optional !== true).map((item) => item.controller)));

/** Drops hugepage limits on hosts without the controller, or says that they cannot be kept. */
export function withoutHugetlb(resources: LinuxResources, tolerate: boolean): LinuxResources {
  const { hugepageLimits, ...rest } = resources;
  // 0 needs no controller: without one, pages are still not handed out by Berth.
  const wanted = hugepageLimits?.find(({ limitBytes }) => limitBytes > 0 && limitBytes <= maxBytes);
  if (wanted === undefined || tolerate) return rest;
  throw new RuntimeError(
    'unavailable',
    `hugepageLimits: ${wanted.pageSize} is limited to ${wanted.limitBytes} bytes, but this host has no hugetlb cgroup controller`,
  );
}
