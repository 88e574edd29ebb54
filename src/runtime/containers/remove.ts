import type { Call } from '../../kit/call.js';
import type { Parts } from '../parts.js';
import { cleanVolumes } from './volumes.js';
import { killContainer, type KillContainerDeps } from './stop.js';

export type RemoveContainerDeps = KillContainerDeps &
  Pick<Parts, 'paths' | 'residue' | 'images' | 'snapshots' | 'templates' | 'lifecycle'>;

/**
 * RemoveContainer: kills what runs, then takes away cgroup, snapshot and bundle. A missing container is success. An
 * unmanaged root directory is the user's and stays.
 */
export async function removeContainer(idOrPrefix: string, deps: RemoveContainerDeps, call: Call): Promise<void> {
  const { registry, residue, paths } = deps;
  const entry = registry.findContainer(idOrPrefix);
  if (entry === undefined || entry.record.stage === 'creating') return;
  const { id, sandboxId, cgroupPath, imageId } = entry.record;
  const { observer } = call;

  await observer.step('kill', () => killContainer(id, deps));
  if (deps.lifecycle.active) {
    const { record } = registry.container(id);
    await observer.step('tell plugins', () =>
      deps.lifecycle.tell('remove-container', registry.sandbox(sandboxId).record, record),
    );
  }
  // The shim first, so that no log or exit record is written once the container is gone.
  await observer.step('forget in shim', async () => {
    await registry
      .findSandbox(sandboxId)
      ?.shim?.forget(id)
      .catch(() => undefined);
  });
  await observer.step('remove cgroup', () => residue.clean('cgroup', cgroupPath));
  if (imageId !== '') {
    await observer.step('remove snapshot', () => residue.clean('snapshot', id));
    await observer.step('remove volumes', () => cleanVolumes(entry.record, residue));
    await observer.step('release image', () => residue.clean('image-hold', `${imageId} ${id}`));
  }
  await observer.step('remove bundle', () => residue.clean('directory', paths.bundle(sandboxId, id)));
  await observer.step('forget container', () => {
    deps.templates.forget(id);
    registry.deleteContainer(id);
  });
}
