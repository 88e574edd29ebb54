import type { Call } from '../../kit/call.js';
import type { Parts } from '../parts.js';
import { runningContainer } from './attach.js';

/** ReopenContainerLog: the shim opens the path anew and only then lets go of the old file. */
export async function reopenContainerLog(idOrPrefix: string, deps: Pick<Parts, 'registry'>, call: Call): Promise<void> {
  const { id, shim } = runningContainer(idOrPrefix, deps);
  await call.observer.step('reopen log', () => shim.reopenLog(id));
}
