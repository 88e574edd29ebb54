import type { Parts } from '../parts.js';
import type { Shim, ShimExit } from '../launch/shim.js';
import { releaseNetwork } from './release-network.js';
import { exitReason } from '../registry.js';

/** Name under which a pod's shim holds the mount of its /dev/shm. */
export const shmName = 'shm';

export type ShimEventDeps = Pick<Parts, 'registry' | 'cgroups' | 'host' | 'residue' | 'paths' | 'lifecycle'> & {
  readonly note?: (message: string) => void;
};

/** Makes a shim the pod's own: its exits become the containers' exits, its death theirs. */
export function takeUpShim(sandboxId: string, shim: Shim, deps: ShimEventDeps): void {
  deps.registry.setShim(sandboxId, shim);
  shim.onExit((exit) => recordExit(exit, deps));
  shim.onGone((reason) => void podLost(sandboxId, reason, deps));
}

/** Takes down how a container ended. The first word counts; a container already gone is nobody's. */
export function recordExit(exit: ShimExit, deps: ShimEventDeps): void {
  const entry = deps.registry.findContainer(exit.containerId);
  if (entry === undefined || entry.record.exit !== undefined) return;
  // A start under way records its own outcome: the exit then follows from the shim's state.
  deps.registry.updateContainer(exit.containerId, {
    stage: 'started',
    exit: {
      code: exit.code,
      finishedAt: exit.finishedAt,
      reason: exitReason(exit.code, exit.oomKilled),
      message: '',
    },
  });
  // What the first process left behind in the container's cgroup has lost its parent and its log.
  deps.cgroups.kill(entry.record.cgroupPath).catch((error: unknown) => deps.note?.(String(error)));
}

/** A shim died under its pod: nobody holds the namespaces any more, so the pod ends too. */
export async function podLost(sandboxId: string, reason: string, deps: ShimEventDeps): Promise<void> {
  const entry = deps.registry.findSandbox(sandboxId);
  if (entry === undefined || entry.record.stage !== 'ready') return;
  deps.registry.setShim(sandboxId, undefined);
  deps.registry.updateSandbox(sandboxId, { stage: 'stopped' });
  for (const container of deps.registry.containersOf(sandboxId)) {
    await deps.cgroups.kill(container.record.cgroupPath).catch((error: unknown) => deps.note?.(String(error)));
    if (container.record.exit !== undefined || container.record.stage !== 'started') continue;
    deps.registry.updateContainer(container.record.id, {
      exit: { code: 137, finishedAt: deps.host.now(), reason: 'Error', message: `the pod's shim ended: ${reason}` },
    });
  }
  if (deps.lifecycle.active) await deps.lifecycle.tell('stop-sandbox', entry.record);
  await releaseNetwork(entry.record, deps);
}
