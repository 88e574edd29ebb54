import type { Duplex } from 'node:stream';
import type { Call } from '../../kit/call.js';
import { RuntimeError } from '../../kit/errors.js';
import type { Parts } from '../parts.js';

/** A TCP connection into the network a pod uses, through its shim. */
export async function dialPod(
  idOrPrefix: string,
  port: number,
  deps: Pick<Parts, 'registry'>,
  call: Call,
): Promise<Duplex> {
  const { record, view, shim } = deps.registry.sandbox(idOrPrefix);
  if (view.state !== 'ready' || shim === undefined) {
    throw new RuntimeError('wrong-state', `pod sandbox ${record.id} is not ready`);
  }
  return await call.observer.step('connect to the pod', () => shim.dial(port, call));
}
