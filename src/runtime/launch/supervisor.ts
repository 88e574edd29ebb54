import { mkdirSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { connect as connectSocket, Socket } from 'node:net';
import { join } from 'node:path';
import { withDeadline } from '../../kit/deadline.js';
import { RuntimeError, isErrno, messageOf } from '../../kit/errors.js';
import type { Observer } from '../../kit/observer.js';
import type { Descriptor } from '../../native/descriptor.js';
import type { Native } from '../../native/native.js';
import { ShimConnection } from './connection.js';
import { PayloadWriter, frameTypes, protocolVersion } from './frames.js';
import type { ExplainFailure } from './plan-failed.js';
import { shimClient } from './shim-client.js';
import type { Shim, ShimExit } from './shim.js';

export interface SupervisorOptions {
  readonly native: Pick<Native, 'spawn' | 'memfds' | 'files' | 'processes' | 'sockets'>;
  /** Path of the berth-shim program. */
  readonly binary: string;
  readonly note?: Observer['note'];
  /** Files of cgroup.procs the shim puts itself into, so that a pod's limits never hit it. */
  readonly cgroupProcs?: readonly string[];
  readonly explain?: ExplainFailure;
  /** Environment of the shim, for sanitizers; empty otherwise. */
  readonly env?: readonly string[];
  /** Milliseconds a shim may take to listen. */
  readonly launchTimeoutMs?: number;
}

/** Starts and finds the shims of pods. */
export interface Supervisor {
  /** `dir` is the pod's directory, 0700; the socket and the exit records are made in it. */
  launch(sandboxId: string, dir: string): Promise<Shim>;
  /** The shim of a pod made by an earlier agent; undefined when it is gone. */
  connect(sandboxId: string, dir: string): Promise<Shim | undefined>;
  /** Ends whatever shim serves in `dir`, with everything it holds; gone is fine. */
  kill(sandboxId: string, dir: string): Promise<void>;
  close(): void;
}

const socketName = 'shim.sock';
/** sun_path with its zero byte (unix(7)). */
const maxSocketPath = 107;
const greetingTimeoutMs = 10_000;
const release = 'berth';

export function openSupervisor(options: SupervisorOptions): Supervisor {
  const { native } = options;
  let program: Descriptor | undefined;
  const binary = (): Descriptor => (program ??= native.memfds.sealedCopy(options.binary, 'berth-shim', true));

  const client = async (sandboxId: string, path: string): Promise<Shim> => {
    const { connection, pid } = await greet(sandboxId, path, true, native);
    return shimClient({
      sandboxId,
      pid,
      connection,
      openStream: async () => (await greet(sandboxId, path, false, native)).connection,
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
      const pid = await spawnShim(sandboxId, dir, path, binary().fd, options);
      try {
        return await client(sandboxId, path);
      } catch (error) {
        native.processes.kill(pid, sigkill);
        throw error;
      }
    },
    connect,
    async kill(sandboxId, dir) {
      const shim = await connect(sandboxId, dir);
      await shim?.shutdown();
    },
    close: () => program?.[Symbol.dispose](),
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

// ---------------------------------------------------------------------------------------------------- launching

/** Resolves with the shim's pid once it listens. */
async function spawnShim(
  sandboxId: string,
  dir: string,
  path: string,
  program: number,
  options: SupervisorOptions,
): Promise<number> {
  const { native, cgroupProcs = [], env = [], launchTimeoutMs = 10_000 } = options;
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
    return await withDeadline('start shim', launchTimeoutMs, (signal) => readReadiness(read, signal));
  } finally {
    reapSoon(native, parent);
  }
}

/** The first process of the shim only forks; it is ours to reap, libuv does not know it. */
function reapSoon(native: SupervisorOptions['native'], pid: number, attempt = 0): void {
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
    throw new RuntimeError('internal', `start shim: ${what}: errno ${message.readUInt32LE(1)}`);
  }
  throw new RuntimeError('internal', 'start shim: it ended before it listened');
}

// --------------------------------------------------------------------------------------------------- connecting

interface Greeted {
  readonly connection: ShimConnection;
  readonly pid: number;
}

/** Connects, says HELLO and checks that the listener is the process it says it is and runs as root or as ourselves. */
async function greet(
  sandboxId: string,
  path: string,
  wantsEvents: boolean,
  native: SupervisorOptions['native'],
): Promise<Greeted> {
  const socket = await openSocket(path);
  const connection = new ShimConnection(socket);
  try {
    const hello = new PayloadWriter()
      .u32(protocolVersion)
      .string(release)
      .u32(wantsEvents ? 1 : 0);
    const answer = await withDeadline('greet shim', greetingTimeoutMs, (signal) =>
      connection.request(frameTypes.hello, hello.parts, { signal }),
    );
    const version = answer.u32();
    answer.string();
    const [pid, startTime, servesSandbox] = [answer.u32(), answer.u64(), answer.string()];
    if (version !== protocolVersion) throw mismatch(`speaks protocol ${version}`);
    if (servesSandbox !== sandboxId) throw mismatch(`serves pod ${servesSandbox}`);
    checkPeer(socket, pid, startTime, native);
    return { connection, pid };
  } catch (error) {
    connection.close();
    throw error;
  }
}

const mismatch = (what: string): RuntimeError => new RuntimeError('internal', `the shim at this socket ${what}`);

function checkPeer(socket: Socket, pid: number, startTime: bigint, native: SupervisorOptions['native']): void {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
  if (fd === undefined || fd < 0) throw mismatch('closed the connection');
  const peer = native.sockets.peer(fd);
  if (peer.uid !== 0 && peer.uid !== process.geteuid?.()) throw mismatch(`runs as user ${peer.uid}`);
  if (peer.pid !== pid) throw mismatch(`is process ${peer.pid} and says ${pid}`);
  if (native.processes.startTime(pid) !== startTime) throw mismatch(`is not the process ${pid} it was`);
}

function openSocket(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket(path);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(socket);
    });
  });
}

// ------------------------------------------------------------------------------------------------- exit records

/** The exits a shim wrote down before it died itself, from the pod's directory. */
export async function readExitRecords(dir: string): Promise<readonly ShimExit[]> {
  const exits = join(dir, 'exits');
  let names: string[];
  try {
    names = await readdir(exits);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
  const records = await Promise.all(
    names
      .filter((name) => !name.startsWith('.'))
      .map(async (name) => parseExitRecord(name, await readFile(join(exits, name), 'utf8'))),
  );
  return records.filter((record) => record !== undefined);
}

/** `1 CODE OOM FINISHED`, the leading number being the version; undefined for a text this release cannot read. */
export function parseExitRecord(containerId: string, text: string): ShimExit | undefined {
  const match = /^1 (\d+) ([01]) (\d+)\n$/.exec(text);
  if (match === null) return undefined;
  return { containerId, code: Number(match[1]), oomKilled: match[2] === '1', finishedAt: BigInt(match[3] ?? '0') };
}
