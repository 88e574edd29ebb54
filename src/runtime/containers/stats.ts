import { isKind } from '../../kit/errors.js';
import type { ContainerStatsView, ContainerView, FilesystemUsage } from '../facade.js';
import type { Parts } from '../parts.js';
import type { UsageSampler } from '../stats.js';

export type StatsDeps = Pick<Parts, 'registry' | 'cgroups' | 'snapshots' | 'host'>;

/** Usage of one container, read at `timestamp`: its cgroup while it runs, and its writable layer. */
export async function containerStats(
  container: ContainerView,
  sampler: UsageSampler,
  deps: StatsDeps,
  timestamp = deps.host.now(),
): Promise<ContainerStatsView> {
  const { cgroupPath, rootfs } = deps.registry.container(container.id).record;
  const usage = container.state === 'running' ? sampler.read(container.id, cgroupPath, timestamp) : undefined;
  const writableLayer = rootfs === '' ? await writableLayerUsage(container.id, deps) : undefined;
  return { ...(usage ?? { timestamp }), container, ...(writableLayer === undefined ? {} : { writableLayer }) };
}

export async function writableLayerUsage(id: string, deps: StatsDeps): Promise<FilesystemUsage | undefined> {
  const snapshot = deps.snapshots.snapshot(id);
  if (snapshot === undefined) return undefined;
  try {
    const { bytes, inodes } = await deps.snapshots.usage(id);
    return { timestamp: deps.host.now(), mountpoint: snapshot.upperDir, usedBytes: bytes, inodesUsed: inodes };
  } catch (error) {
    if (isKind(error, 'not-found')) return undefined;
    throw error;
  }
}
