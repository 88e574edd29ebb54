import { randomBytes } from 'node:crypto';
import { lstat, opendir, readFile, rename, rmdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno, RuntimeError } from '../../kit/errors.js';
import { parseMountTable } from '../../kit/mount-table.js';
import type { DiskUsage } from './snapshotter.js';

/**
 * Walks over directory trees that hold other people's files: links are never followed, mounts never entered. Names are
 * bytes and need not be UTF-8, so paths go about as latin1, where a character is a byte.
 */
const bytes = (path: string): Buffer => Buffer.from(path, 'latin1');

const listing = { bufferSize: 256, encoding: 'latin1' } as const;

const asLatin1 = (path: string): string => Buffer.from(path).toString('latin1');

/**
 * Deletes `path` and everything below. What is gone already is fine. Throws `wrong-state` at a directory of another
 * file system, which is a mount, before anything in it is touched.
 */
export async function removeTree(path: string): Promise<void> {
  const start = asLatin1(path);
  const root = await lstatOrNothing(start);
  if (root === undefined) return;
  await removeBelow(start, root.isDirectory(), { root: start, device: root.dev, depth: 0, hoisted: { count: 0 } });
}

interface Removal {
  readonly root: string;
  readonly device: number;
  readonly depth: number;
  /** Directories moved up to the root, where another round finds them. */
  readonly hoisted: { count: number };
}

/** Each level keeps a descriptor open, and a path may not be longer than the kernel's PATH_MAX of 4096 bytes. */
const maxDepth = 64;
const maxLength = 2048;

async function removeBelow(path: string, isDirectory: boolean, removal: Removal): Promise<void> {
  if (!isDirectory) return await ignoreMissing(unlink(bytes(path)));
  const { root, device, depth, hoisted } = removal;
  const st = await lstatOrNothing(path);
  if (st === undefined) return;
  if (st.dev !== device)
    throw new RuntimeError('wrong-state', `remove ${bytes(path).toString()}: something is mounted there`);
  if (depth > 1 && (depth > maxDepth || path.length > root.length + maxLength)) {
    hoisted.count += 1;
    return await rename(bytes(path), bytes(join(root, `.deep-${randomBytes(6).toString('hex')}`)));
  }
  for (let tries = 0; ; tries++) {
    const before = hoisted.count;
    for await (const entry of await opendir(bytes(path), listing)) {
      await removeBelow(join(path, entry.name), entry.isDirectory(), { ...removal, depth: depth + 1 });
    }
    try {
      return await ignoreMissing(rmdir(bytes(path)));
    } catch (error) {
      if (!isErrno(error, 'ENOTEMPTY')) throw error;
      if (hoisted.count > before) tries = 0;
      /* A helper of a killed agent may write its last file while we delete. */
      if (tries === 5) throw error;
    }
  }
}

/** Bytes and inodes of a tree; hard links count once. Entries that vanish meanwhile are not counted. */
export async function measureTree(path: string): Promise<DiskUsage> {
  const sum = { bytes: 0, inodes: 0 };
  const linked = new Set<bigint>();
  const pending = [asLatin1(path)];
  for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
    for (const name of await namesIn(dir)) {
      const child = join(dir, name);
      const st = await lstat(bytes(child), { bigint: true }).catch(() => undefined);
      if (st === undefined) continue;
      if (st.isDirectory()) pending.push(child);
      else if (st.nlink > 1n) {
        if (linked.has(st.ino)) continue;
        linked.add(st.ino);
      }
      sum.bytes += Number(st.blocks) * 512;
      sum.inodes += 1;
    }
  }
  return sum;
}

async function namesIn(dir: string): Promise<readonly string[]> {
  const names: string[] = [];
  try {
    for await (const entry of await opendir(bytes(dir), listing)) names.push(entry.name);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  return names;
}

/** Mount points at or below `path` in this mount namespace. */
export async function mountsBelow(path: string): Promise<readonly string[]> {
  const points = parseMountTable(await readFile('/proc/self/mountinfo', 'utf8')).map(({ point }) => point);
  return points.filter((point) => point === path || point.startsWith(`${path}/`));
}

const lstatOrNothing = (path: string) =>
  lstat(bytes(path)).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  });

async function ignoreMissing(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}
