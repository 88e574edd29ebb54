import { readFileSync, rmSync } from 'node:fs';
import { connect as connectSocket, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { withDeadline } from '../../kit/deadline.js';
import { RuntimeError } from '../../kit/errors.js';
import type { Native } from '../../native/native.js';
import { ShimConnection } from './connection.js';
import { PayloadWriter, frameTypes, protocolVersion } from './frames.js';

/** The kernel calls that starting and finding shims takes. */
export type ShimNative = Pick<Native, 'spawn' | 'memfds' | 'files' | 'processes' | 'sockets'>;

const release = 'berth';

export interface Greeted {
  readonly connection: ShimConnection;
  readonly pid: number;
}

/** Connects, says HELLO and checks that the listener is the process it says it is and runs as root or as ourselves. */
export async function greet(
  sandboxId: string,
  path: string,
  wantsEvents: boolean,
  native: ShimNative,
  timeoutMs: number,
): Promise<Greeted> {
  const socket = await openSocket(path);
  const connection = new ShimConnection(socket);
  try {
    const hello = new PayloadWriter()
      .u32(protocolVersion)
      .string(release)
      .u32(wantsEvents ? 1 : 0);
    const answer = await withDeadline('greet shim', timeoutMs, (signal) =>
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

function descriptorOf(socket: Socket): number {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
  if (fd === undefined || fd < 0) throw mismatch('closed the connection');
  return fd;
}

function checkPeer(socket: Socket, pid: number, startTime: bigint, native: ShimNative): void {
  const peer = native.sockets.peer(descriptorOf(socket));
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

/** Kills the process that listens at a socket without asking it: for one that does not answer. */
export async function killListener(path: string, dir: string, native: ShimNative): Promise<void> {
  const socket = await openSocket(path);
  socket.on('error', () => undefined); // its end is what we are here for
  try {
    const { pid } = native.sockets.peer(descriptorOf(socket));
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    if (words[words.indexOf('--dir') + 1] !== dir) throw mismatch(`is not the one of ${dir}`);
    using held = native.processes.open(pid);
    const startTime = native.processes.startTime(pid);
    if (held === undefined || startTime === undefined || !native.processes.signalFd(held.fd, sigkill)) return;
    for (let attempt = 0; attempt < 1000 && native.processes.isRunning(pid, startTime); attempt++) await sleep(5);
  } finally {
    socket.destroy();
  }
  rmSync(path, { force: true });
}

const sigkill = 9;
