/** LinuxContainerResources both ways. 0 and '' on the wire are "not given" in every field. */
import type * as wire from '../../../api/cri/v1/generated/api.js';
import { invalid } from '../../kit/errors.js';
import type { HugepageLimit, LinuxResources, StringMap } from '../../runtime/model.js';
import { atLeast, given, integer, limit, text, within } from './fields.js';

const fewestShares = 2;
const mostShares = 262144;

/** The kernel moves shares into its range silently; so do we, so that status shows what is in force. */
function cpuShares(path: string, value: bigint): number | undefined {
  if (value === 0n) return undefined;
  const shares = atLeast(path, integer(path, value), 0);
  return Math.min(Math.max(shares, fewestShares), mostShares);
}

function oomScoreAdj(path: string, value: bigint): number | undefined {
  return value === 0n ? undefined : within(path, integer(path, value), -1000, 1000);
}

function cpuList(path: string, value: string): string | undefined {
  if (value === '') return undefined;
  if (!/^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(value)) throw invalid(path, `"${value}" is not a list like 0-3,7`);
  return value;
}

/** A limit of 0 is a real one here: the kubelet sends it for page sizes the pod may not use. */
function hugepageLimit(path: string, entry: wire.HugepageLimit): HugepageLimit {
  if (!/^\d+[KMG]B$/.test(entry.pageSize)) throw invalid(`${path}.page_size`, `"${entry.pageSize}" is not a page size`);
  return { pageSize: entry.pageSize, limitBytes: integer(`${path}.limit`, entry.limit) };
}

function hugepageLimits(path: string, entries: readonly wire.HugepageLimit[]): readonly HugepageLimit[] | undefined {
  if (entries.length === 0) return undefined;
  const limits = entries.map((entry, index) => hugepageLimit(`${path}[${index}]`, entry));
  const sizes = new Set(limits.map((entry) => entry.pageSize));
  if (sizes.size !== limits.length) throw invalid(path, 'a page size is given twice');
  return limits;
}

function unified(path: string, values: StringMap): StringMap | undefined {
  const entries = Object.entries(values);
  if (entries.length === 0) return undefined;
  for (const [file, value] of entries) {
    if (!/^[a-z0-9_]+(\.[a-z0-9_]+)+$/i.test(file)) throw invalid(`${path}["${file}"]`, 'is not a cgroup file name');
    text(`${path}["${file}"]`, value);
  }
  return { ...values };
}

function cpuPeriod(path: string, value: bigint): number | undefined {
  return value === 0n ? undefined : atLeast(path, integer(path, value), 1);
}

export function linuxResources(path: string, resources: wire.LinuxContainerResources | undefined): LinuxResources {
  if (resources === undefined) return {};
  const memoryLimit = limit(`${path}.memory_limit_in_bytes`, resources.memoryLimitInBytes);
  const memorySwapLimit = limit(`${path}.memory_swap_limit_in_bytes`, resources.memorySwapLimitInBytes);
  if (memorySwapLimit !== undefined && memorySwapLimit >= 0 && memoryLimit !== undefined) {
    const swapPath = `${path}.memory_swap_limit_in_bytes`;
    if (memoryLimit < 0) throw invalid(swapPath, 'needs a memory limit');
    atLeast(swapPath, memorySwapLimit, memoryLimit);
  }
  return given<LinuxResources>({
    cpuPeriod: cpuPeriod(`${path}.cpu_period`, resources.cpuPeriod),
    cpuQuota: limit(`${path}.cpu_quota`, resources.cpuQuota),
    cpuShares: cpuShares(`${path}.cpu_shares`, resources.cpuShares),
    memoryLimit,
    memorySwapLimit,
    oomScoreAdj: oomScoreAdj(`${path}.oom_score_adj`, resources.oomScoreAdj),
    cpusetCpus: cpuList(`${path}.cpuset_cpus`, resources.cpusetCpus),
    cpusetMems: cpuList(`${path}.cpuset_mems`, resources.cpusetMems),
    hugepageLimits: hugepageLimits(`${path}.hugepage_limits`, resources.hugepageLimits),
    unified: unified(`${path}.unified`, resources.unified),
    pidsLimit: undefined,
  });
}

const wireNumber = (value: number | undefined): bigint => BigInt(value ?? 0);

export function wireResources(resources: LinuxResources): wire.LinuxContainerResources {
  return {
    cpuPeriod: wireNumber(resources.cpuPeriod),
    cpuQuota: wireNumber(resources.cpuQuota),
    cpuShares: wireNumber(resources.cpuShares),
    memoryLimitInBytes: wireNumber(resources.memoryLimit),
    oomScoreAdj: wireNumber(resources.oomScoreAdj),
    cpusetCpus: resources.cpusetCpus ?? '',
    cpusetMems: resources.cpusetMems ?? '',
    hugepageLimits: (resources.hugepageLimits ?? []).map((entry) => ({
      pageSize: entry.pageSize,
      limit: BigInt(entry.limitBytes),
    })),
    unified: { ...resources.unified },
    memorySwapLimitInBytes: wireNumber(resources.memorySwapLimit),
  };
}
