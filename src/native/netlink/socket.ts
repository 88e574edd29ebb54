/**
 * A netlink socket in the network namespace of this process. What the kernel is asked, and whether it agreed, is in
 * `exchange.ts`; here are bytes only.
 */
import type { Library } from '../library.js';
import { NLMSG_DONE, NLMSG_ERROR, expectsAnswer, parseMessages, sequenceOf, u32 } from './wire.js';

/** Sends messages as one datagram and resolves with everything the kernel answered, unparsed. */
export type NetlinkSend = (messages: readonly Uint8Array[]) => Promise<readonly Uint8Array[]>;

export interface NetlinkSocket {
  /** Sends the messages as one datagram and returns all answers. Blocks this thread while the kernel works. */
  request(messages: readonly Uint8Array[]): Uint8Array[];
  /** As `request`, with the kernel's work on another thread: for requests that wait for locks or grace periods. */
  readonly send: NetlinkSend;
  close(): void;
}

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 0x80003;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
/** Larger than any datagram the kernel makes of a dump (32 KiB). */
const receiveSize = 65_536;
/** Answers are there when send returns; the timeout only keeps a fault of ours from hanging the agent. */
const receiveTimeoutSeconds = 5;

/**
 * Opens a socket of one netlink protocol (NETLINK_ROUTE 0, NETLINK_NETFILTER 12), with the kernel's explanations in
 * its refusals (Linux 4.12). `made` is a socket of that protocol that another process made in its network namespace;
 * it is taken over. Throws SyscallError.
 */
export function openNetlink(protocol: number, library: Library, made?: number): NetlinkSocket {
  const fd = prepared(made ?? library.now('socket', 'netlink', AF_NETLINK, SOCK_RAW_CLOEXEC, protocol), library);
  const buffer = Buffer.alloc(receiveSize);
  const receive = (): Uint8Array => {
    const length = library.now('recv', 'netlink', fd, buffer, buffer.length, 0);
    return Uint8Array.prototype.slice.call(buffer, 0, length);
  };
  let open = true;
  // Answers of two requests must not mix: one at a time per socket.
  let tail: Promise<unknown> = Promise.resolve();
  return {
    request(messages) {
      const bytes = Buffer.concat(messages);
      library.now('sendto', 'netlink', fd, bytes, bytes.length, 0, null, 0);
      return collectAnswers(messages, receive);
    },
    send(messages) {
      const mine = tail.then(async () => {
        const bytes = Buffer.concat(messages);
        await library.later('sendto', 'netlink', fd, bytes, bytes.length, 0, null, 0);
        return collectAnswers(messages, receive);
      });
      tail = mine.catch(() => undefined);
      return mine;
    },
    close() {
      if (open) library.now('close', 'netlink', fd);
      open = false;
    },
  };
}

function prepared(fd: number, library: Library): number {
  try {
    const timeout = Buffer.alloc(16);
    timeout.writeBigInt64LE(BigInt(receiveTimeoutSeconds));
    library.now('setsockopt', 'netlink', fd, SOL_SOCKET, SO_RCVTIMEO, timeout, timeout.length);
    for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK]) {
      library.now('setsockopt', 'netlink', fd, SOL_NETLINK, option, u32(1), 4);
    }
    return fd;
  } catch (error) {
    library.now('close', 'netlink', fd);
    throw error;
  }
}

/** Receives until every message that expects an answer has had its last one. */
function collectAnswers(messages: readonly Uint8Array[], receive: () => Uint8Array): Uint8Array[] {
  const waiting = new Set(messages.filter(expectsAnswer).map(sequenceOf));
  const answers: Uint8Array[] = [];
  while (waiting.size > 0) {
    const bytes = receive();
    answers.push(bytes);
    for (const answer of parseMessages(bytes)) {
      if (answer.type === NLMSG_ERROR || answer.type === NLMSG_DONE) waiting.delete(answer.sequence);
    }
  }
  return answers;
}
