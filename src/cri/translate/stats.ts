/** Usage of containers as the answers show it. */
import type * as wire from '../../../api/cri/v1/generated/api.js';
import type { ContainerStatsView } from '../../runtime/facade.js';
import { wireFilesystem } from './image.js';

const wrapped = (value: bigint | number | undefined): wire.UInt64Value | undefined =>
  value === undefined ? undefined : { value: BigInt(value) };

function cpu(stats: ContainerStatsView): wire.CpuUsage | undefined {
  if (stats.cpu === undefined) return undefined;
  return {
    timestamp: stats.timestamp,
    usageCoreNanoSeconds: wrapped(stats.cpu.usageCoreNanoSeconds),
    usageNanoCores: wrapped(stats.cpu.usageNanoCores),
    psi: undefined,
  };
}

function memory(stats: ContainerStatsView): wire.MemoryUsage | undefined {
  const usage = stats.memory;
  if (usage === undefined) return undefined;
  return {
    timestamp: stats.timestamp,
    workingSetBytes: wrapped(usage.workingSetBytes),
    availableBytes: wrapped(usage.availableBytes),
    usageBytes: wrapped(usage.usageBytes),
    rssBytes: wrapped(usage.rssBytes),
    pageFaults: wrapped(usage.pageFaults),
    majorPageFaults: wrapped(usage.majorPageFaults),
    psi: undefined,
  };
}

function swap(stats: ContainerStatsView): wire.SwapUsage | undefined {
  if (stats.swap === undefined) return undefined;
  return {
    timestamp: stats.timestamp,
    swapAvailableBytes: wrapped(stats.swap.availableBytes),
    swapUsageBytes: wrapped(stats.swap.usageBytes),
  };
}

export function wireContainerStats(stats: ContainerStatsView): wire.ContainerStats {
  const { id, config } = stats.container;
  return {
    attributes: { id, metadata: { ...config.metadata }, labels: config.labels, annotations: config.annotations },
    cpu: cpu(stats),
    memory: memory(stats),
    writableLayer: stats.writableLayer && wireFilesystem(stats.writableLayer),
    swap: swap(stats),
    io: undefined,
  };
}
