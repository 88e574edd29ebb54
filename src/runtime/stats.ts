import type { CgroupStats } from './usage.js';
import type { UsageView } from './facade.js';
import type { Parts } from './parts.js';

interface CpuSample {
  readonly timestamp: bigint;
  readonly usage: bigint;
}

interface Samples {
  readonly last: CpuSample;
  /** Nanocores over the last span that was long enough to tell. */
  readonly rate: bigint | undefined;
}

/** Nanoseconds: the kernel's own accounting moves in ticks of up to 10 ms, so shorter spans say little. */
const shortestSpan = 100_000_000n;

/**
 * Reads usage straight from cgroup files when asked; keeps one earlier CPU sample per object, from which the rate of
 * use is made. Nothing runs while nobody asks.
 */
export class UsageSampler {
  readonly #cgroups: Parts['cgroups'];
  readonly #samples = new Map<string, Samples>();

  constructor(cgroups: Parts['cgroups']) {
    this.#cgroups = cgroups;
  }

  /** Usage of the object with this cgroup, at `timestamp` in nanoseconds since the epoch; undefined when it has none. */
  read(id: string, cgroupPath: string, timestamp: bigint): UsageView | undefined {
    const stats = this.#cgroups.stats(cgroupPath, { timestamp });
    return stats === undefined ? undefined : usageView(stats, this.#rate(id, stats));
  }

  /** Drops samples of objects that are gone. */
  retain(alive: (id: string) => boolean): void {
    for (const id of this.#samples.keys()) if (!alive(id)) this.#samples.delete(id);
  }

  #rate(id: string, { timestamp, cpu: { usage } }: CgroupStats): bigint | undefined {
    const before = this.#samples.get(id);
    if (before !== undefined && timestamp - before.last.timestamp < shortestSpan) return before.rate;
    const rate =
      before === undefined || usage < before.last.usage
        ? undefined
        : ((usage - before.last.usage) * 1_000_000_000n) / (timestamp - before.last.timestamp);
    this.#samples.set(id, { last: { timestamp, usage }, rate });
    return rate;
  }
}

export function usageView({ timestamp, cpu, memory, io, pids }: CgroupStats, rate: bigint | undefined): UsageView {
  const { swap } = memory;
  return {
    timestamp,
    cpu: {
      usageCoreNanoSeconds: cpu.usage,
      ...(rate === undefined ? {} : { usageNanoCores: rate }),
      ...(cpu.psi === undefined ? {} : { psi: cpu.psi }),
    },
    memory: {
      workingSetBytes: memory.workingSet,
      ...(memory.available === undefined ? {} : { availableBytes: memory.available }),
      usageBytes: memory.usage,
      rssBytes: memory.rss,
      pageFaults: memory.pageFaults,
      majorPageFaults: memory.majorPageFaults,
      ...(memory.psi === undefined ? {} : { psi: memory.psi }),
    },
    ...(swap === undefined
      ? {}
      : { swap: { usageBytes: swap.usage, availableBytes: Math.max(0, (swap.limit ?? swap.usage) - swap.usage) } }),
    ...(io.psi === undefined ? {} : { io: { psi: io.psi } }),
    tasks: pids.current,
  };
}
