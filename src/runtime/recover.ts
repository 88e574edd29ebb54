import { join } from 'node:path';
import { messageOf } from '../kit/errors.js';
import type { Observer } from '../kit/observer.js';
import { cleanVolumes } from './containers/volumes.js';
import { readExitRecords } from './launch/exit-records.js';
import type { ShimExit, ShimState } from './launch/shim.js';
import { findStrangers, type OrphanDeps } from './orphans.js';
import type { Parts } from './parts.js';
import { releaseNetwork } from './sandbox/release-network.js';
import type { ContainerRecord, SandboxRecord } from './state/records.js';
import type { Table } from './state/store.js';

export type RecoverDeps = OrphanDeps &
  Pick<Parts, 'host' | 'shims' | 'network'> & {
    readonly tables: { readonly sandboxes: Table<SandboxRecord>; readonly containers: Table<ContainerRecord> };
    readonly observer: Observer;
    /** Connects a pod's shim to its records. */
    readonly takeUp: (sandboxId: string, shim: NonNullable<Awaited<ReturnType<Parts['shims']['connect']>>>) => void;
    readonly recordExit: (exit: ShimExit) => void;
  };

/**
 * Brings memory, disk and kernel together after a start of the agent. The store says what there should be; shims and
 * cgroups say what lives. Running pods are taken up with the exits that happened meanwhile; requests that died half
 * way are undone; what belongs to nobody goes. After a reboot nothing lives, and every container has ended. One bad
 * record never stops the rest.
 */
export async function recover(deps: RecoverDeps): Promise<void> {
  const { registry, tables, observer } = deps;
  for (const [, record] of tables.sandboxes.entries()) registry.loadSandbox(record);
  for (const [id, record] of tables.containers.entries()) {
    if (registry.findSandbox(record.sandboxId) === undefined) tables.containers.delete(id);
    else registry.loadContainer(record);
  }
  await Promise.all(
    [...registry.sandboxes()].map(({ record }) =>
      recoverSandbox(record, deps).catch((error: unknown) =>
        observer.note('error', `pod ${record.id} could not be recovered: ${messageOf(error)}`),
      ),
    ),
  );
  await removeStrangers(deps);
  const left = await deps.residue.retry();
  if (left > 0) observer.note('warn', `${left} things of earlier requests still resist removal; see berth doctor`);
}

async function recoverSandbox(record: SandboxRecord, deps: RecoverDeps): Promise<void> {
  if (record.stage === 'creating') return await undoSandbox(record, deps);
  const alive = record.stage === 'ready' && record.bootId === deps.host.bootId;
  const shim = alive ? await deps.shims.connect(record.id, deps.paths.podDir(record.id)) : undefined;
  const state = await shim?.state();
  if (shim !== undefined) deps.takeUp(record.id, shim);
  else for (const exit of await readExitRecords(deps.paths.podDir(record.id))) deps.recordExit(exit);
  for (const { record: container } of deps.registry.containersOf(record.id)) {
    await recoverContainer(container, state, deps);
  }
  if (record.stage === 'ready' && shim === undefined) await endSandbox(record, deps);
}

/** A RunPodSandbox that died half way: everything it may have made goes, and its name is free. */
async function undoSandbox(record: SandboxRecord, deps: RecoverDeps): Promise<void> {
  const { residue, paths } = deps;
  await residue.clean('shim', record.id);
  await releaseNetwork(record, deps);
  await residue.clean('cgroup', record.ownsCgroup ? record.cgroupPath : join(record.cgroupPath, record.id));
  await residue.clean('directory', paths.podDir(record.id));
  deps.registry.deleteSandbox(record.id);
}

/** The pod's shim is gone (killed, or the machine was restarted): the pod has stopped and its network is free. */
async function endSandbox(record: SandboxRecord, deps: RecoverDeps): Promise<void> {
  deps.registry.updateSandbox(record.id, { stage: 'stopped' });
  await deps.residue.clean('shim', record.id);
  await releaseNetwork(record, deps);
}

async function recoverContainer(
  record: ContainerRecord,
  state: ShimState | undefined,
  deps: RecoverDeps,
): Promise<void> {
  const { registry } = deps;
  const seen = state?.containers.find(({ containerId }) => containerId === record.id);
  if (record.stage === 'creating') return await undoContainer(record, deps);
  if (record.exit !== undefined || (record.stage === 'created' && seen === undefined)) return;
  if (seen === undefined) {
    await deps.cgroups.kill(record.cgroupPath);
    if (record.stage === 'starting') {
      // The agent died before the shim had the request: nothing ran, the start may be tried again.
      if (state !== undefined) return void registry.updateContainer(record.id, { stage: 'created' });
    }
    const code = 255;
    const message = state === undefined ? "the pod's processes ended while no agent ran" : 'unknown to the shim';
    return void registry.updateContainer(record.id, {
      exit: { code, finishedAt: deps.host.now(), reason: 'Unknown', message },
    });
  }
  const { pid, startTime, startedAt } = seen;
  // Written only when the agent died before it was: a restart among hundreds of pods changes nothing.
  if (record.stage !== 'started' || record.pid !== pid || record.startTime !== startTime) {
    registry.updateContainer(record.id, { stage: 'started', pid, startTime, startedAt });
  }
  if (seen.exit !== undefined) deps.recordExit(seen.exit);
}

async function undoContainer(record: ContainerRecord, deps: RecoverDeps): Promise<void> {
  const { residue, paths } = deps;
  await residue.clean('cgroup', record.cgroupPath);
  await residue.clean('snapshot', record.id);
  await cleanVolumes(record, residue);
  if (record.imageId !== '') await residue.clean('image-hold', `${record.imageId} ${record.id}`);
  await residue.clean('directory', paths.bundle(record.sandboxId, record.id));
  deps.registry.deleteContainer(record.id);
}

/** What lies in Berth's own directories without a record. */
async function removeStrangers(deps: RecoverDeps): Promise<void> {
  for (const { kind, target } of await findStrangers(deps)) await deps.residue.clean(kind, target);
  const live = new Set<string>();
  for (const { record } of deps.registry.sandboxes()) if (record.stage === 'ready') live.add(record.id);
  await deps.network.reconcile(live, { signal: new AbortController().signal, observer: deps.observer });
}
