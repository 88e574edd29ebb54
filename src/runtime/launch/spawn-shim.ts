import { Socket } from 'node:net';
import { withDeadline } from '../../kit/deadline.js';
import { RuntimeError, messageOf } from '../../kit/errors.js';
import type { Descriptor } from '../../native/descriptor.js';
import type { ShimNative } from './greet.js';
import { errnoSymbol } from './plan-failed.js';

export interface SpawnOptions {
  readonly native: ShimNative;
  readonly cgroupProcs: readonly string[];
  readonly env: readonly string[];
  readonly timeoutMs: number;
}

/** Whose shim it is to become. */
export interface Assignment {
  readonly sandboxId: string;
  readonly dir: string;
  readonly socketPath: string;
}

/** A shim that waits for its pod. It ends by itself when the agent does. */
export interface WaitingShim {
  /** Resolves with the shim's pid once it listens. Call once. */
  assign(to: Assignment): Promise<number>;
  /** Ends it. */
  discard(): void;
}

/** Room in the shim's arguments for its pod's id and directory, which it shows there later. */
const shownBytes = 400;

/** Starts a shim; returns at once, while it still settles into its cgroup. */
export function spawnShim(program: number, options: SpawnOptions): WaitingShim {
  const { native, cgroupProcs, env, timeoutMs } = options;
  const readiness = native.files.pipe();
  const assignment = native.files.pipe();
  using ready = readiness.write;
  using assigned = assignment.read;
  const args = [
    'berth-shim',
    ...cgroupProcs.flatMap((file) => ['--cgroup', file]),
    '--waiting',
    '-'.repeat(shownBytes),
  ];
  let parent: number;
  try {
    parent = native.spawn({
      path: `/proc/self/fd/${program}`,
      args,
      env,
      descriptors: ['null', 'null', env.length === 0 ? 'null' : 2, ready.fd, assigned.fd],
      newSession: true,
    });
  } catch (error) {
    readiness.read[Symbol.dispose]();
    assignment.write[Symbol.dispose]();
    throw new RuntimeError('internal', `start shim: ${messageOf(error)}`, { cause: error });
  }
  reapSoon(native, parent);
  return {
    async assign({ sandboxId, dir, socketPath }) {
      using to = assignment.write;
      // Shorter than PIPE_BUF: it arrives whole or not at all.
      native.files.write(to.fd, Buffer.from([socketPath, dir, sandboxId, ''].join('\0')));
      return await withDeadline('start shim', timeoutMs, (signal) => readReadiness(readiness.read, signal));
    },
    discard() {
      readiness.read[Symbol.dispose]();
      assignment.write[Symbol.dispose]();
    },
  };
}

/** The first process of the shim only forks; it is ours to reap, libuv does not know it. */
function reapSoon(native: ShimNative, pid: number, attempt = 0): void {
  try {
    if (native.processes.reap(pid) !== undefined || attempt > 100) return;
  } catch {
    return; // not our child any more
  }
  setTimeout(() => reapSoon(native, pid, attempt + 1), 2 * attempt).unref();
}

/** "R" pid start time, or "E" errno text; the end without either means that it died. */
async function readReadiness(read: Descriptor, signal: AbortSignal): Promise<number> {
  const pipe = new Socket({ fd: read.take(), readable: true, writable: false });
  const stop = (): void => void pipe.destroy();
  signal.addEventListener('abort', stop, { once: true });
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of pipe as AsyncIterable<Buffer>) chunks.push(chunk);
  } finally {
    signal.removeEventListener('abort', stop);
    pipe.destroy();
  }
  const message = Buffer.concat(chunks);
  if (message[0] === 0x52 && message.length >= 13) return message.readUInt32LE(1);
  if (message[0] === 0x45 && message.length >= 5) {
    const what = message.subarray(5).toString();
    throw new RuntimeError('internal', `start shim: ${what}: ${errnoSymbol(message.readUInt32LE(1))}`);
  }
  throw new RuntimeError('internal', 'start shim: it ended before it listened');
}
