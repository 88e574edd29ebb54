import type { Call } from '../../kit/call.js';
import { RuntimeError } from '../../kit/errors.js';
import type { ContainerStreams } from '../facade.js';
import type { Shim } from '../launch/shim.js';
import type { Parts } from '../parts.js';

type AttachDeps = Pick<Parts, 'registry'>;

/** Joins the streams of a running container; its log goes on. */
export function attachContainer(idOrPrefix: string, deps: AttachDeps, call: Call): Promise<ContainerStreams> {
  const { id, shim } = runningContainer(idOrPrefix, deps);
  return call.observer.step('attach', () => shim.attach(id));
}

/** Sets the size of a running container's terminal, in characters. */
export async function resizeContainer(
  idOrPrefix: string,
  rows: number,
  columns: number,
  deps: AttachDeps,
): Promise<void> {
  const { id, shim } = runningContainer(idOrPrefix, deps);
  await shim.resize(id, rows, columns);
}

/** A container and the shim it runs under; `wrong-state` when it does not run. */
export function runningContainer(idOrPrefix: string, deps: AttachDeps): { id: string; shim: Shim } {
  const { record, view } = deps.registry.container(idOrPrefix);
  const { shim } = deps.registry.sandbox(record.sandboxId);
  if (view.state !== 'running' || shim === undefined) {
    throw new RuntimeError('wrong-state', `container ${record.id} is not running`);
  }
  return { id: record.id, shim };
}
