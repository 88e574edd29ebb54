import type { Call } from '../../kit/call.js';
import { removeContainer, type RemoveContainerDeps } from '../containers/remove.js';
import { pauseCgroup } from './run.js';
import { stopPodSandbox, type StopPodSandboxDeps } from './stop.js';

export type RemovePodSandboxDeps = StopPodSandboxDeps & RemoveContainerDeps;

/** RemovePodSandbox: stops what runs, removes its containers, cgroup and directory. A missing pod is success. */
export async function removePodSandbox(idOrPrefix: string, deps: RemovePodSandboxDeps, call: Call): Promise<void> {
  const { registry, residue, paths } = deps;
  const entry = registry.findSandbox(idOrPrefix);
  if (entry === undefined || entry.record.stage === 'creating') return;
  const { id, cgroupPath, ownsCgroup } = entry.record;
  const { observer } = call;

  if (entry.record.stage === 'ready') await stopPodSandbox(id, deps, call);
  for (const container of registry.containersOf(id)) await removeContainer(container.record.id, deps, call);
  if (deps.lifecycle.active)
    await observer.step('tell plugins', () => deps.lifecycle.tell('remove-sandbox', entry.record));
  await observer.step('remove pod cgroup', () =>
    residue.clean('cgroup', ownsCgroup ? cgroupPath : pauseCgroup(cgroupPath, id)),
  );
  await observer.step('remove pod directory', () => residue.clean('directory', paths.podDir(id)));
  await observer.step('forget pod', () => registry.deleteSandbox(id));
}
