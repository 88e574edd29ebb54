import type { Call } from '../../kit/call.js';
import { RuntimeError } from '../../kit/errors.js';
import type { LinuxResources } from '../model.js';
import type { Parts } from '../parts.js';
import type { ContainerRecord } from '../state/records.js';

export type ApplyResourcesDeps = Pick<Parts, 'registry' | 'cgroups'>;
export type UpdateResourcesDeps = ApplyResourcesDeps & Pick<Parts, 'lifecycle'>;

/** UpdateContainerResources: all values or none. Of an exited container there is nothing to update. */
export async function updateContainerResources(
  idOrPrefix: string,
  resources: LinuxResources,
  deps: UpdateResourcesDeps,
  call: Call,
): Promise<void> {
  const { registry, lifecycle } = deps;
  if (!lifecycle.active) return await applyResources(idOrPrefix, resources, deps, call);
  const record = livingContainer(idOrPrefix, registry);
  const pod = registry.sandbox(record.sandboxId).record;
  const wanted = await call.observer.step('ask plugins', () => lifecycle.updateContainer(pod, record, resources));
  await applyResources(record.id, wanted, deps, call);
  await lifecycle.tell('container-updated', pod, registry.container(record.id).record);
}

/** The same for those who have been asked. */
export async function applyResources(
  idOrPrefix: string,
  resources: LinuxResources,
  deps: ApplyResourcesDeps,
  call: Call,
): Promise<void> {
  const record = livingContainer(idOrPrefix, deps.registry);
  await call.observer.step('update cgroup', () => deps.cgroups.update(record.cgroupPath, resources));
  deps.registry.updateContainer(record.id, { resources: { ...record.resources, ...resources } });
}

function livingContainer(idOrPrefix: string, registry: Parts['registry']): ContainerRecord {
  const { record } = registry.container(idOrPrefix);
  if (record.exit !== undefined) throw new RuntimeError('wrong-state', `container ${record.id} has exited`);
  return record;
}
