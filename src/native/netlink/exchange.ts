/** Asking the kernel in steps with names: numbering, pairing answers with requests, refusals as SyscallErrors. */
import { constants } from 'node:os';
import { SyscallError } from '../../kit/errors.js';
import type { NetlinkSend } from './socket.js';
import { type Acknowledgement, acknowledgement, numbered, parseMessages } from './wire.js';

/** One request, and the words an error about it uses: `add address 10.77.0.2 to eth0`. */
export interface NetlinkStep {
  readonly doing: string;
  readonly message: Uint8Array;
  /** errno names that count as success, for requests that may find their work done. */
  readonly tolerate?: readonly string[];
}

/**
 * Sends all steps as one datagram and resolves with the raw answers. Throws a SyscallError for the first step that the
 * kernel refused; NETLINK_ROUTE has then still executed the others, nf_tables none of them.
 */
export async function exchange(send: NetlinkSend, steps: readonly NetlinkStep[]): Promise<readonly Uint8Array[]> {
  const first = nextSequence(steps.length);
  const answers = await send(
    numbered(
      steps.map((step) => step.message),
      first,
    ),
  );
  for (const ack of answers.flatMap(parseMessages).map(acknowledgement)) {
    if (ack !== undefined) refuse(ack, steps[ack.sequence - first]);
  }
  return answers;
}

function refuse(ack: Acknowledgement, step: NetlinkStep | undefined): void {
  if (ack.errno === 0 || step === undefined) return;
  const name = errnoName(ack.errno);
  if (step.tolerate?.includes(name) === true) return;
  throw new SyscallError(`netlink: ${step.doing}`, ack.errno, name, ack.text === '' ? undefined : `(${ack.text})`);
}

const namesByErrno = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]));

const errnoName = (errno: number): string => namesByErrno.get(errno) ?? `errno ${errno}`;

let sequence = 0;

/** Sequence numbers only have to differ between neighbours: a late answer must not be taken for the next one's. */
function nextSequence(count: number): number {
  if (sequence + count > 0x7fffffff) sequence = 0;
  const first = sequence + 1;
  sequence += count;
  return first;
}
