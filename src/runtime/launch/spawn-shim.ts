import { Socket } from 'node:net';
import { withDeadline } from '../../kit/deadline.js';
import { RuntimeError, messageOf } from '../../kit/errors.js';
import type { Descriptor } from '../../native/descriptor.js';
import type { ShimNative } from './greet.js';
import { errnoSymbol } from './plan-failed.js';

interface SpawnOptions {
  readonly native: ShimNative;
  readonly cgroupProcs: readonly string[];
  readonly env: readonly string[];
  readonly timeoutMs: number;
}

/** Resolves with the shim's pid once it listens. */
export async function spawnShim(
  sandboxId: string,
  dir: string,
  path: string,
  program: number,
  options: SpawnOptions,
): Promise<number> {
  const { native, cgroupProcs, env, timeoutMs } = options;
  const { read, write } = native.files.pipe();
  using ready = write;
  const args = ['berth-shim', '--socket', path, '--dir', dir, '--sandbox', sandboxId];
  for (const file of cgroupProcs) args.push('--cgroup', file);
  let parent: number;
  try {
    parent = native.spawn({
      path: `/proc/self/fd/${program}`,
      args,
      env,
      descriptors: ['null', 'null', env.length === 0 ? 'null' : 2, ready.fd],
      newSession: true,
    });
  } catch (error) {
    read[Symbol.dispose]();
    throw new RuntimeError('internal', `start shim: ${messageOf(error)}`, { cause: error });
  }
  ready[Symbol.dispose]();
  try {
    return await withDeadline('start shim', timeoutMs, (signal) => readReadiness(read, signal));
  } finally {
    reapSoon(native, parent);
  }
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
