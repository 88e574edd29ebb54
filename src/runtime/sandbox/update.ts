import type { PodResources } from '../facade.js';
import type { Parts } from '../parts.js';

export type UpdatePodSandboxDeps = Pick<Parts, 'registry' | 'lifecycle'>;

/** UpdatePodSandboxResources: takes note. The pod's cgroup is the kubelet's own, which has changed it already. */
export async function updatePodSandboxResources(
  idOrPrefix: string,
  change: PodResources,
  { registry, lifecycle }: UpdatePodSandboxDeps,
): Promise<void> {
  const { record } = registry.sandbox(idOrPrefix);
  if (lifecycle.active) await lifecycle.updateSandbox(record, change);
  const { record: updated } = registry.updateSandbox(record.id, { config: { ...record.config, ...change } });
  if (lifecycle.active) await lifecycle.tell('sandbox-updated', updated);
}
