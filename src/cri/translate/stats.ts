/** Usage of containers as the answers show it. */
import type * as wire from '../../../api/cri/v1/generated/api.js';
import type { ContainerStatsView, InterfaceUsage, SandboxStatsView, UsageView } from '../../runtime/facade.js';
import type { PsiLine, PsiStats } from '../../runtime/usage.js';
import { wireFilesystem } from './image.js';

const wrapped = (value: bigint | number | undefined): wire.UInt64Value | undefined =>
  value === undefined ? undefined : { value: BigInt(value) };

function cpu(stats: UsageView): wire.CpuUsage | undefined {
  if (stats.cpu === undefined) return undefined;
  return {
    timestamp: stats.timestamp,
    usageCoreNanoSeconds: wrapped(stats.cpu.usageCoreNanoSeconds),
    usageNanoCores: wrapped(stats.cpu.usageNanoCores),
    psi: pressure(stats.cpu.psi),
  };
}

function memory(stats: UsageView): wire.MemoryUsage | undefined {
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
    psi: pressure(usage.psi),
  };
}

function swap(stats: UsageView): wire.SwapUsage | undefined {
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
    io: io(stats),
  };
}

export function wireSandboxStats(stats: SandboxStatsView): wire.PodSandboxStats {
  const { id, config } = stats.sandbox;
  return {
    attributes: { id, metadata: { ...config.metadata }, labels: config.labels, annotations: config.annotations },
    linux: {
      cpu: cpu(stats),
      memory: memory(stats),
      network: network(stats),
      process:
        stats.tasks === undefined ? undefined : { timestamp: stats.timestamp, processCount: wrapped(stats.tasks) },
      containers: stats.containers.map(wireContainerStats),
      io: io(stats),
    },
    windows: undefined,
  };
}

/** The default interface is eth0, as CNI has it for a pod's first network, or else the only one there is. */
function network({ timestamp, interfaces }: SandboxStatsView): wire.NetworkUsage | undefined {
  if (interfaces.length === 0) return undefined;
  const main = interfaces.find(({ name }) => name === 'eth0') ?? interfaces[0];
  const others = interfaces.filter((link) => link !== main);
  return { timestamp, defaultInterface: main && wireInterface(main), interfaces: others.map(wireInterface) };
}

const wireInterface = ({ name, rxBytes, rxErrors, txBytes, txErrors }: InterfaceUsage): wire.NetworkInterfaceUsage => ({
  name,
  rxBytes: wrapped(rxBytes),
  rxErrors: wrapped(rxErrors),
  txBytes: wrapped(txBytes),
  txErrors: wrapped(txErrors),
});

function io(stats: UsageView): wire.IoUsage | undefined {
  return stats.io === undefined ? undefined : { timestamp: stats.timestamp, psi: pressure(stats.io.psi) };
}

/** The CRI wants the total in nanoseconds; the kernel counts microseconds. */
const pressure = (view: PsiStats | undefined): wire.PsiStats | undefined =>
  view === undefined ? undefined : { Some: pressureData(view.some), Full: pressureData(view.full) };

const pressureData = ({ total, avg10, avg60, avg300 }: PsiLine): wire.PsiData => ({
  Total: total * 1000n,
  Avg10: avg10,
  Avg60: avg60,
  Avg300: avg300,
});
