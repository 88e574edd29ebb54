/** A listening unix socket: a file that only root can reach, in a directory that only root can enter. */
import { lstatSync, mkdirSync, statSync, unlinkSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { dirname } from 'node:path';
import { RuntimeError, asRuntimeError, isErrno } from './errors.js';

/** Longest path of a unix socket on Linux, without the final NUL (unix(7), sun_path). */
const longestSocketPath = 107;

/**
 * Listens on `path` with mode 0600. The directory is made with mode 0700; an existing one must be ours, and closed to
 * others if it is our own, else only to their writing. A socket nobody listens on is replaced; a live one is an
 * `already-exists` error.
 */
export async function listenOn(
  path: string,
  directory: 'own' | 'shared',
  onConnection: (socket: Socket) => void,
): Promise<Server> {
  checkPath(path);
  prepareDirectory(dirname(path), directory === 'own' ? 0o077 : 0o022);
  await removeStale(path);
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, onConnection);
  await listening(server, path);
  return server;
}

function checkPath(path: string): void {
  if (!path.startsWith('/')) throw new RuntimeError('invalid-argument', `socket ${path}: must be an absolute path`);
  if (Buffer.byteLength(path) > longestSocketPath) {
    throw new RuntimeError('invalid-argument', `socket ${path}: is longer than ${longestSocketPath} bytes`);
  }
}

function prepareDirectory(directory: string, forbidden: number): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const { mode, uid } = statSync(directory);
    const own = process.getuid?.() ?? 0;
    if (uid !== own) throw new RuntimeError('denied', `directory ${directory}: belongs to uid ${uid}, not to ${own}`);
    if ((mode & forbidden) === 0) return;
    const shown = (mode & 0o7777).toString(8).padStart(4, '0');
    throw new RuntimeError(
      'denied',
      `directory ${directory}: has mode ${shown}; others could reach the socket, make it 0700 or use another directory`,
    );
  } catch (error) {
    throw asRuntimeError(error, `prepare directory ${directory}`);
  }
}

async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new RuntimeError('already-exists', `${path}: exists and is not a socket`);
  if (await isLive(path)) throw new RuntimeError('already-exists', `socket ${path}: another process is serving on it`);
  try {
    unlinkSync(path);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw asRuntimeError(error, `remove stale socket ${path}`);
  }
}

/** Anything but a refusal counts as life: a busy server's full queue must not cost it its socket. */
function isLive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error) => resolve(!isErrno(error, 'ECONNREFUSED') && !isErrno(error, 'ENOENT')));
  });
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(asRuntimeError(error, `listen on ${path}`)));
    // The socket is bound within the call: it is never open to others.
    const before = process.umask(0o177);
    try {
      server.listen(path, resolve);
    } finally {
      process.umask(before);
    }
  });
}
