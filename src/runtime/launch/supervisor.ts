import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { withDeadline } from '../../kit/deadline.js';
import { RuntimeError, isErrno, messageOf } from '../../kit/errors.js';
import type { Observer } from '../../kit/observer.js';
import type { Descriptor } from '../../native/descriptor.js';
import { greet, killListener, type ShimNative } from './greet.js';
import type { ExplainFailure } from './plan-failed.js';
import { shimClient } from './shim-client.js';
import type { Shim } from './shim.js';
import { ShimReserve } from './shim-reserve.js';
import { spawnShim } from './spawn-shim.js';

export { parseExitRecord, readExitRecords } from './exit-records.js';

export interface SupervisorOptions {
  readonly native: ShimNative;
  /** Path of the berth-shim program. */
  readonly binary: string;
  readonly note?: Observer['note'];
  /** Files of cgroup.procs the shim puts itself into, so that a pod's limits never hit it. */
  readonly cgroupProcs?: readonly string[];
  readonly explain?: ExplainFailure;
  /** Environment of the shim, for sanitizers; empty otherwise. */
  readonly env?: readonly string[];
  /** Shims kept waiting for pods. Default 2. */
  readonly reserve?: number;
  /** Milliseconds a shim may take to listen, and to answer where the answer is quick. */
  readonly answerTimeoutMs?: number;
}

/** Starts and finds the shims of pods. */
export interface Supervisor {
  /** `dir` is the pod's directory, 0700; the socket and the exit records are made in it. */
  launch(sandboxId: string, dir: string): Promise<Shim>;
  /** The shim of a pod made by an earlier agent; undefined when it is gone. */
  connect(sandboxId: string, dir: string): Promise<Shim | undefined>;
  /** Ends whatever shim serves in `dir`, with everything it holds; gone is fine. */
  kill(sandboxId: string, dir: string): Promise<void>;
  /** Ends shims that wait for pods; the next pod brings new ones. */
  drain(): void;
  close(): void;
}

const socketName = 'shim.sock';
/** sun_path with its zero byte (unix(7)). */
const maxSocketPath = 107;
const defaultTimeoutMs = 10_000;
/** The shim itself gives the processes it kills ten seconds to be gone. */
const shutdownTimeoutMs = 15_000;

export function openSupervisor(options: SupervisorOptions): Supervisor {
  const {
    native,
    cgroupProcs = [],
    env = [],
    reserve: reserved = 2,
    answerTimeoutMs: timeoutMs = defaultTimeoutMs,
  } = options;
  let program: Descriptor | undefined;
  const binary = (): Descriptor => (program ??= native.memfds.sealedCopy(options.binary, 'berth-shim', true));

  const reserve = new ShimReserve(() => spawnShim(binary().fd, { native, cgroupProcs, env, timeoutMs }), reserved);

  const client = async (sandboxId: string, path: string): Promise<Shim> => {
    const { connection, pid } = await greet(sandboxId, path, true, native, timeoutMs);
    return shimClient({
      sandboxId,
      pid,
      connection,
      answerTimeoutMs: timeoutMs,
      openStream: async () => (await greet(sandboxId, path, false, native, timeoutMs)).connection,
      ...(options.explain === undefined ? {} : { explain: options.explain }),
    });
  };

  const connect = async (sandboxId: string, dir: string): Promise<Shim | undefined> => {
    try {
      return await client(sandboxId, socketPath(dir));
    } catch (error) {
      if (isErrno(error, 'ENOENT') || isErrno(error, 'ECONNREFUSED') || isErrno(error, 'ENOTDIR')) return undefined;
      throw error;
    }
  };

  return {
    async launch(sandboxId, dir) {
      const path = socketPath(dir);
      mkdirSync(dir, { recursive: true, mode: 0o700 });
      const pid = await reserve.take().assign({ sandboxId, dir, socketPath: path });
      try {
        return await client(sandboxId, path);
      } catch (error) {
        native.processes.kill(pid, sigkill);
        throw error;
      }
    },
    connect,
    async kill(sandboxId, dir) {
      try {
        const shim = await connect(sandboxId, dir);
        await withDeadline('end shim', shutdownTimeoutMs, async () => shim?.shutdown());
      } catch (error) {
        options.note?.('warn', `the shim of pod ${sandboxId} is killed: ${messageOf(error)}`);
        await killListener(socketPath(dir), dir, native);
      }
    },
    drain: () => reserve.drain(),
    close: () => {
      reserve.close();
      program?.[Symbol.dispose]();
    },
  };
}

const sigkill = 9;

function socketPath(dir: string): string {
  const path = join(dir, socketName);
  if (Buffer.byteLength(path) > maxSocketPath) {
    throw new RuntimeError('invalid-argument', `socket path ${path} is longer than ${maxSocketPath} bytes`);
  }
  return path;
}
