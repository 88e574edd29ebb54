import type { Call } from '../../kit/call.js';
import { RuntimeError } from '../../kit/errors.js';
import type { PodResources } from '../facade.js';
import type { Parts } from '../parts.js';

export type UpdatePodSandboxDeps = Pick<Parts, 'registry' | 'lifecycle' | 'cgroups'>;

/**
 * UpdatePodSandboxResources (KEP-5419): plugins may refuse, then the pod's cgroup and its record change, or neither. A
 * pod's cgroup that the kubelet made has been resized by it already and is left alone; one of our own, of a pod that
 * names no parent, gets the new limits.
 */
export async function updatePodSandboxResources(
  idOrPrefix: string,
  change: PodResources,
  { registry, lifecycle, cgroups }: UpdatePodSandboxDeps,
  call: Call,
): Promise<void> {
  const { record } = registry.sandbox(idOrPrefix);
  if (record.stage !== 'ready') throw new RuntimeError('wrong-state', `pod sandbox ${record.id} is not ready`);
  if (lifecycle.active) await call.observer.step('ask plugins', () => lifecycle.updateSandbox(record, change));
  const { resources } = change;
  if (record.ownsCgroup && resources !== undefined)
    await call.observer.step('update cgroup', () => cgroups.update(record.cgroupPath, resources));
  const { record: updated } = registry.updateSandbox(record.id, { config: { ...record.config, ...change } });
  if (lifecycle.active) await lifecycle.tell('sandbox-updated', updated);
}
