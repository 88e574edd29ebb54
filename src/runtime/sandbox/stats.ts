import { stat, statfs } from 'node:fs/promises';
import type {
  ContainerUsageView,
  ContainerView,
  InterfaceUsage,
  SandboxStatsView,
  SandboxUsageView,
  SandboxView,
} from '../facade.js';
import { containerStats, writableLayerUsage, type StatsDeps } from '../containers/stats.js';
import { linkRequest, readLinks } from '../network/link-stats.js';
import type { UsageSampler } from '../stats.js';
import { countProcesses } from './process-counts.js';

/** Usage of a pod: its own cgroup, which holds its containers' ones, its network, and each container. */
export async function sandboxStats(
  sandbox: SandboxView,
  sampler: UsageSampler,
  deps: StatsDeps,
): Promise<SandboxStatsView> {
  const { record } = deps.registry.sandbox(sandbox.id);
  const usage = sandbox.state === 'ready' ? sampler.read(sandbox.id, record.cgroupPath) : undefined;
  const running = runningContainers(sandbox.id, deps);
  const [interfaces, containers] = await Promise.all([
    readInterfaces(sandbox, deps),
    Promise.all(running.map((view) => containerStats(view, sampler, deps))),
  ]);
  return {
    ...(usage ?? { timestamp: deps.host.now() }),
    sandbox,
    containers,
    interfaces,
  };
}

/** Everything the kernel counts, for metrics. */
export async function sandboxUsage(sandbox: SandboxView, deps: StatsDeps): Promise<SandboxUsageView> {
  const { cgroupPath } = deps.registry.sandbox(sandbox.id).record;
  const group = deps.cgroups.stats(cgroupPath, { detail: true });
  const views = runningContainers(sandbox.id, deps);
  const [interfaces, processes, containers] = await Promise.all([
    readInterfaces(sandbox, deps),
    countProcesses(deps.cgroups.pids(cgroupPath)),
    Promise.all(views.map((view) => containerUsage(view, deps))),
  ]);
  return {
    sandbox,
    cgroupPath,
    interfaces,
    processes,
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
async function containerUsage(container: ContainerView, deps: StatsDeps): Promise<ContainerUsageView | undefined> {
  const record = deps.registry.findContainer(container.id)?.record;
  if (record === undefined) return undefined;
  const { cgroupPath, rootfs } = record;
  const group = deps.cgroups.stats(cgroupPath, { detail: true });
  if (group === undefined) return undefined;
  const processes = await countProcesses(deps.cgroups.pids(cgroupPath));
  const filesystem = rootfs === '' ? await filesystemOf(container.id, deps) : undefined;
  const oomKills = deps.cgroups.oomKills(cgroupPath);
  return { container, cgroupPath, group, oomKills, processes, ...(filesystem === undefined ? {} : { filesystem }) };
}

async function filesystemOf(id: string, deps: StatsDeps): Promise<ContainerUsageView['filesystem']> {
  const usage = await writableLayerUsage(id, deps);
  if (usage === undefined) return undefined;
  try {
    const [{ bsize, blocks, files, ffree }, { dev }] = await Promise.all([
      statfs(usage.mountpoint),
      stat(usage.mountpoint),
    ]);
    const device = `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
    return { ...usage, limitBytes: bsize * blocks, inodes: files, inodesFree: ffree, device };
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
