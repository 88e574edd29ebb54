import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import type {
  ContainerUsageView,
  ContainerView,
  FilesystemUsage,
  InterfaceUsage,
  SandboxStatsView,
  SandboxUsageView,
  SandboxView,
} from '../facade.js';
import { containerStats, writableLayerUsage, type StatsDeps } from '../containers/stats.js';
import { linkRequest, readLinks } from '../network/link-stats.js';
import type { UsageSampler } from '../stats.js';
import { countProcesses } from './process-counts.js';

/**
 * Usage of a pod: its own cgroup, which holds its containers' ones, its network, and each container. The cgroups are
 * read in one go, so that containers add up to no more than their pod but for what happens in microseconds.
 */
export async function sandboxStats(
  sandbox: SandboxView,
  sampler: UsageSampler,
  deps: StatsDeps,
): Promise<SandboxStatsView> {
  const { record } = deps.registry.sandbox(sandbox.id);
  const timestamp = deps.host.now();
  const usage = sandbox.state === 'ready' ? sampler.read(sandbox.id, record.cgroupPath, timestamp) : undefined;
  const running = runningContainers(sandbox.id, deps);
  const [interfaces, containers] = await Promise.all([
    readInterfaces(sandbox, deps),
    Promise.all(running.map((view) => containerStats(view, sampler, deps, timestamp))),
  ]);
  return {
    ...(usage ?? { timestamp }),
    sandbox,
    containers,
    interfaces,
  };
}

/** Everything the kernel counts, for metrics. `disk` is asked for the file system of the writable layers. */
export async function sandboxUsage(
  sandbox: SandboxView,
  deps: StatsDeps,
  disk = diskFacts(),
): Promise<SandboxUsageView> {
  const { cgroupPath } = deps.registry.sandbox(sandbox.id).record;
  const timestamp = deps.host.now();
  const group = deps.cgroups.stats(cgroupPath, { detail: true, timestamp });
  const views = runningContainers(sandbox.id, deps);
  const [interfaces, containers] = await Promise.all([
    readInterfaces(sandbox, deps),
    Promise.all(views.map((view) => containerUsage(view, timestamp, disk, deps))),
  ]);
  return {
    sandbox,
    cgroupPath,
    interfaces,
    ...(group === undefined ? {} : { group }),
    containers: containers.filter((usage) => usage !== undefined),
  };
}

const runningContainers = (sandboxId: string, { registry }: StatsDeps): ContainerView[] =>
  registry
    .containersOf(sandboxId)
    .map(({ view }) => view)
    .filter(({ state }) => state === 'running');

/** Undefined for a container that ended meanwhile. */
async function containerUsage(
  container: ContainerView,
  timestamp: bigint,
  disk: DiskFacts,
  deps: StatsDeps,
): Promise<ContainerUsageView | undefined> {
  const record = deps.registry.findContainer(container.id)?.record;
  if (record === undefined) return undefined;
  const { cgroupPath, rootfs } = record;
  const group = deps.cgroups.stats(cgroupPath, { detail: true, timestamp });
  if (group === undefined) return undefined;
  const oomKills = deps.cgroups.oomKills(cgroupPath);
  const processes = await countProcesses(deps.cgroups.pids(cgroupPath), group.pids.current || undefined);
  const filesystem = rootfs === '' ? await filesystemOf(container.id, disk, deps) : undefined;
  return { container, cgroupPath, group, oomKills, processes, ...(filesystem === undefined ? {} : { filesystem }) };
}

type Filesystem = NonNullable<ContainerUsageView['filesystem']>;
type DiskFacts = (path: string) => Promise<Omit<Filesystem, keyof FilesystemUsage>>;

/** Asks once for as long as it is used: writable layers lie beside each other, on one file system. */
export function diskFacts(): DiskFacts {
  let asked: ReturnType<DiskFacts> | undefined;
  return (path) => (asked ??= askDisk(path));
}

async function askDisk(path: string): ReturnType<DiskFacts> {
  const [{ bsize, blocks, files, ffree }, { dev }] = await Promise.all([statfs(path), stat(path)]);
  const device = `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  return { limitBytes: bsize * blocks, inodes: files, inodesFree: ffree, device };
}

async function filesystemOf(id: string, disk: DiskFacts, deps: StatsDeps): Promise<Filesystem | undefined> {
  const usage = await writableLayerUsage(id, deps);
  if (usage === undefined) return undefined;
  try {
    return { ...usage, ...(await disk(dirname(dirname(usage.mountpoint)))) };
  } catch {
    return undefined; // removed meanwhile
  }
}

/** Through the pod's shim, which alone is sure to reach the pod's network. */
async function readInterfaces(sandbox: SandboxView, { registry }: StatsDeps): Promise<readonly InterfaceUsage[]> {
  const shim = registry.findSandbox(sandbox.id)?.shim;
  if (shim === undefined || sandbox.config.security.namespaces.network === 'node') return [];
  try {
    const [answer] = await shim.netlink([linkRequest()]);
    return answer === undefined ? [] : readLinks(answer);
  } catch {
    return []; // the pod is going: its other figures still count
  }
}
