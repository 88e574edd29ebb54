import { constants } from 'node:os';
import { RuntimeError, type ErrorKind } from '../../kit/errors.js';

/** Where a launch plan failed. */
export interface PlanFailure {
  /** Which part of the plan: `outer` steps run in the shim, `inner` ones in the new process; `none`: not a step. */
  readonly side: 'outer' | 'inner' | 'none';
  /** Index within its part; -1 when it was not a step. */
  readonly step: number;
  /** Positive; 0: the process was killed before its last step. */
  readonly errno: number;
  /** `ENOENT`; '' for 0. */
  readonly errnoName: string;
  /** Which call of the step, see `enum launch_detail` of the shim. */
  readonly detail: number;
}

/** The words for a failure, from the plan's step table. */
export type ExplainFailure = (plan: Uint8Array, failure: PlanFailure) => string;

/** A launch that stopped at a step. The message reads `mount /etc/resolv.conf: ENOENT`. */
export class PlanFailed extends RuntimeError {
  readonly failure: PlanFailure;

  constructor(failure: PlanFailure, words: string) {
    const { side, step, errnoName, detail } = failure;
    super(kindOf(failure), words, { facts: { side, step, errno: errnoName, detail } });
    this.name = 'PlanFailed';
    this.failure = failure;
  }
}

/** A plan is made from a request that was checked: what still fails is the host's fault, unless the kernel says no. */
const kindOf = (failure: PlanFailure): ErrorKind =>
  failure.errno === constants.errno.EPERM || failure.errno === constants.errno.EACCES ? 'denied' : 'internal';

const names = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

export const errnoSymbol = (errno: number): string => (errno === 0 ? '' : (names.get(errno) ?? `errno ${errno}`));

const noStep = 0xffffffff;

/** Splits the step number of the wire (outer steps first) by the counts in the plan's header. */
export function locateFailure(plan: Uint8Array, step: number, errno: number, detail: number): PlanFailure {
  const rest = { errno, errnoName: errnoSymbol(errno), detail };
  if (step === noStep || plan.length < 16) return { side: 'none', step: -1, ...rest };
  const outer = new DataView(plan.buffer, plan.byteOffset, plan.byteLength).getUint32(8, true);
  return step < outer ? { side: 'outer', step, ...rest } : { side: 'inner', step: step - outer, ...rest };
}

/** What can be said without the step table. */
export function explainPlainly(_plan: Uint8Array, failure: PlanFailure): string {
  const reason = failure.errnoName === '' ? 'the process was killed' : failure.errnoName;
  return failure.side === 'none' ? `launch: ${reason}` : `${failure.side} step ${failure.step}: ${reason}`;
}
