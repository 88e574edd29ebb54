import { isKind } from '../../kit/errors.js';
import type { CgroupStats } from '../cgroups/types.js';
import type { ContainerStatsView, ContainerView } from '../facade.js';
import type { Parts } from '../parts.js';

export type StatsDeps = Pick<Parts, 'registry' | 'cgroups' | 'snapshots' | 'host'>;

/** The sample before, per container, from which the rate of CPU use is computed. */
interface CpuSample {
  readonly timestamp: bigint;
  readonly usage: bigint;
}

/** Reads statistics straight from cgroup files; keeps one earlier CPU sample per container. */
export class ContainerStatsReader {
  readonly #deps: StatsDeps;
  readonly #samples = new Map<string, CpuSample>();

  constructor(deps: StatsDeps) {
    this.#deps = deps;
  }

  async read(container: ContainerView): Promise<ContainerStatsView> {
    const { cgroupPath, rootfs } = this.#deps.registry.container(container.id).record;
    const stats = container.state === 'running' ? this.#deps.cgroups.stats(cgroupPath) : undefined;
    const writableLayer = rootfs === '' ? await this.#writableLayer(container.id) : undefined;
    return {
      container,
      timestamp: stats?.timestamp ?? this.#deps.host.now(),
      ...(stats === undefined ? {} : this.#figures(container.id, stats)),
      ...(writableLayer === undefined ? {} : { writableLayer }),
    };
  }

  /** Drops samples of containers that are gone. */
  retain(alive: ReadonlySet<string>): void {
    for (const id of this.#samples.keys()) if (!alive.has(id)) this.#samples.delete(id);
  }

  #figures(id: string, stats: CgroupStats): Pick<ContainerStatsView, 'cpu' | 'memory' | 'swap'> {
    const { memory, cpu } = stats;
    const rate = this.#cpuRate(id, { timestamp: stats.timestamp, usage: cpu.usage });
    return {
      cpu: { usageCoreNanoSeconds: cpu.usage, ...(rate === undefined ? {} : { usageNanoCores: rate }) },
      memory: {
        workingSetBytes: memory.workingSet,
        ...(memory.available === undefined ? {} : { availableBytes: memory.available }),
        usageBytes: memory.usage,
        rssBytes: memory.rss,
        pageFaults: memory.pageFaults,
        majorPageFaults: memory.majorPageFaults,
      },
      ...(memory.swap === undefined
        ? {}
        : {
            swap: {
              usageBytes: memory.swap.usage,
              availableBytes: Math.max(0, (memory.swap.limit ?? memory.swap.usage) - memory.swap.usage),
            },
          }),
    };
  }

  /** Nanoseconds of CPU per second since the sample before; undefined for the first. */
  #cpuRate(id: string, now: CpuSample): bigint | undefined {
    const before = this.#samples.get(id);
    this.#samples.set(id, now);
    if (before === undefined || now.timestamp <= before.timestamp || now.usage < before.usage) return undefined;
    return ((now.usage - before.usage) * 1_000_000_000n) / (now.timestamp - before.timestamp);
  }

  async #writableLayer(id: string): Promise<ContainerStatsView['writableLayer']> {
    const snapshot = this.#deps.snapshots.snapshot(id);
    if (snapshot === undefined) return undefined;
    try {
      const { bytes, inodes } = await this.#deps.snapshots.usage(id);
      return { timestamp: this.#deps.host.now(), mountpoint: snapshot.upperDir, usedBytes: bytes, inodesUsed: inodes };
    } catch (error) {
      if (isKind(error, 'not-found')) return undefined;
      throw error;
    }
  }
}
