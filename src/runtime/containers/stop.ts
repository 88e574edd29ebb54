import type { Call } from '../../kit/call.js';
import { RuntimeError } from '../../kit/errors.js';
import type { Parts } from '../parts.js';
import { signalNumber } from '../spec/signals.js';

export type KillContainerDeps = Pick<Parts, 'registry' | 'cgroups' | 'host'>;
export type StopContainerDeps = KillContainerDeps;

/** Milliseconds from SIGKILL until a container that has not ended is reported as stuck (uninterruptible sleep). */
const killDeadlineMs = 30_000;

/**
 * StopContainer: stop signal, `timeoutSeconds` of grace, then SIGKILL to everything in its cgroup. A container that is
 * missing or has ended is success. Any number of stops may run at once; the shortest grace wins.
 */
export async function stopContainer(
  idOrPrefix: string,
  timeoutSeconds: number,
  deps: StopContainerDeps,
  call: Call,
): Promise<void> {
  const entry = deps.registry.findContainer(idOrPrefix);
  if (entry === undefined || entry.view.state !== 'running') return;
  const { record } = entry;
  const { shim } = deps.registry.sandbox(record.sandboxId);
  if (timeoutSeconds > 0 && shim !== undefined) {
    await call.observer.step(`send ${record.stopSignal}`, () =>
      shim.signal(record.id, signalNumber(record.stopSignal), false),
    );
    const ended = await call.observer.step('wait for exit', () =>
      deps.registry.waitForExit(record.id, timeoutSeconds * 1000, call.signal),
    );
    if (ended) return;
  }
  await call.observer.step('kill', () => killContainer(record.id, deps));
}

/** Kills every process of a container and waits until its exit is known. Gone is success. */
export async function killContainer(id: string, deps: KillContainerDeps): Promise<void> {
  const entry = deps.registry.findContainer(id);
  if (entry === undefined) return;
  await deps.cgroups.kill(entry.record.cgroupPath);
  if (entry.view.state !== 'running' && entry.record.stage !== 'starting') return;
  if (await deps.registry.waitForExit(id, killDeadlineMs)) return;
  throw new RuntimeError('unavailable', `container ${id} does not end although it was killed`);
}
