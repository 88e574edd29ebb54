/**
 * Network namespaces pinned as files, where CNI plugins and people look for them (`ip netns`): a bind mount of the
 * namespace on an empty file. A pinned namespace outlives every process in it.
 */
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { readdir, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { RuntimeError, isErrno, messageOf } from '../../kit/errors.js';
import type { Mounts } from '../../native/mounts.js';

export type NamespaceMounts = Pick<Mounts, 'mount' | 'unmount'>;

/** Starts the name of every pin that is ours; what has no such name is never touched. */
export const pinPrefix = 'berth-';

const MS_BIND = 4096;
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;
/** A path that was pinned again and again has mounts on top of each other; more than this is somebody else's trouble. */
const maxLayers = 16;

/** Pins the namespace behind `namespacePath` (`/proc/PID/ns/net`, `/proc/self/fd/N`) at `path`. */
export function pin(mounts: NamespaceMounts, path: string, namespacePath: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  closeSync(openSync(path, 'wx', 0o444));
  mounts.mount(namespacePath, path, 'none', MS_BIND, '');
}

/**
 * Takes a pin away. Idempotent: a pin that is gone or half made is success. The namespace itself ends when nothing else
 * holds it. Throws `internal` when the kernel refuses.
 */
export async function unpin(mounts: NamespaceMounts, path: string): Promise<void> {
  try {
    for (let layer = 0; layer < maxLayers; layer++) await mounts.unmount(path, MNT_DETACH | UMOUNT_NOFOLLOW);
  } catch (error) {
    // EINVAL: not a mount point (any more).
    if (!isErrno(error, 'EINVAL') && !isErrno(error, 'ENOENT')) throw failed(path, error);
  }
  try {
    await unlink(path);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw failed(path, error);
  }
}

const failed = (path: string, error: unknown): RuntimeError =>
  new RuntimeError('internal', `unpin network namespace: ${messageOf(error)}`, { facts: { path }, cause: error });

/** Paths of the pins in a directory that are ours. A missing directory has none. */
export async function listPins(directory: string): Promise<string[]> {
  try {
    const names = await readdir(directory);
    return names.filter((name) => name.startsWith(pinPrefix)).map((name) => join(directory, name));
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}
