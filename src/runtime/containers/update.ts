import type { Call } from '../../kit/call.js';
import { RuntimeError } from '../../kit/errors.js';
import type { LinuxResources } from '../model.js';
import type { Parts } from '../parts.js';

export type UpdateResourcesDeps = Pick<Parts, 'registry' | 'cgroups'>;

/** UpdateContainerResources: all values or none. Of an exited container there is nothing to update. */
export async function updateContainerResources(
  idOrPrefix: string,
  resources: LinuxResources,
  deps: UpdateResourcesDeps,
  call: Call,
): Promise<void> {
  const { record, view } = deps.registry.container(idOrPrefix);
  if (view.state === 'exited') throw new RuntimeError('wrong-state', `container ${record.id} has exited`);
  await call.observer.step('update cgroup', () => deps.cgroups.update(record.cgroupPath, resources));
  deps.registry.updateContainer(record.id, { resources: { ...record.resources, ...resources } });
}
