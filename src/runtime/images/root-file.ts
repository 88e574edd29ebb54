import { constants } from 'node:fs';
import { lstat, open, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno, messageOf, RuntimeError } from '../../kit/errors.js';

/**
 * Finds and reads files of an image in its layers, as the overlay would show them, without mounting anything. Links are
 * resolved here, inside the image; layers are never written to, so that looking at a path and opening it see the same.
 */

const maxLinks = 40;

/** Whether a directory of a layer hides what lower layers have there (trusted.overlay.opaque). */
export type IsOpaque = (dir: string) => boolean;

/**
 * The content of a regular file, or undefined when there is no such file or it is something else. `layers` are
 * directories, topmost first. Errors: exhausted when it is larger than `maxBytes`.
 */
export async function readRootFile(
  layers: readonly string[],
  path: string,
  maxBytes: number,
  isOpaque: IsOpaque,
): Promise<Buffer | undefined> {
  const found = await findRootPath(layers, path, isOpaque);
  return found?.kind === 'file' ? await readRegular(found.path, maxBytes, path) : undefined;
}

/** The directory or regular file that a path leads to, or undefined when there is neither. */
export async function findRootPath(
  layers: readonly string[],
  path: string,
  isOpaque: IsOpaque,
): Promise<Found | undefined> {
  let names = path.split('/');
  let done: string[] = [];
  let links = 0;
  while (names.length > 0) {
    const [name = '', ...rest] = names;
    names = rest;
    if (name === '' || name === '.') continue;
    if (name === '..') {
      done.pop();
      continue;
    }
    const found = await look(layers, [...done, name], isOpaque);
    if (found === undefined) return undefined;
    if (found.kind === 'link') {
      if (++links > maxLinks) return undefined;
      const target = await readlink(found.path);
      if (target.startsWith('/')) done = [];
      names = [...target.split('/'), ...names];
    } else if (found.kind === 'directory') done.push(name);
    else return names.every((each) => each === '') ? found : undefined;
  }
  return done.length === 0 ? { kind: 'directory', path: layers[0] ?? '' } : await look(layers, done, isOpaque);
}

export interface Found {
  readonly kind: 'directory' | 'link' | 'file';
  /** On the host, in the topmost layer that has it. */
  readonly path: string;
}

/** What the stack shows at a path whose parents are real directories in it. */
async function look(
  layers: readonly string[],
  names: readonly string[],
  isOpaque: IsOpaque,
): Promise<Found | undefined> {
  let visible = layers.map((root) => ({ root, path: root }));
  for (const [i, name] of names.entries()) {
    const last = i === names.length - 1;
    const next: typeof visible = [];
    for (const { root, path } of visible) {
      const st = await lstatOrNothing(join(path, name));
      if (st === undefined) continue;
      const here = { root, path: join(path, name) };
      if (!st.isDirectory()) {
        if (next.length > 0) break;
        if (!last || isWhiteout(st)) return undefined;
        if (st.isSymbolicLink()) return { kind: 'link', path: here.path };
        return st.isFile() ? { kind: 'file', path: here.path } : undefined;
      }
      next.push(here);
      if (isOpaque(here.path)) break;
    }
    const [top] = next;
    if (top === undefined) return undefined;
    if (last) return { kind: 'directory', path: top.path };
    visible = next;
  }
  return undefined;
}

const isWhiteout = (st: { isCharacterDevice(): boolean; rdev: number }): boolean =>
  st.isCharacterDevice() && st.rdev === 0;

async function readRegular(path: string, maxBytes: number, asked: string): Promise<Buffer | undefined> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const st = await file.stat();
    if (!st.isFile()) return undefined;
    if (st.size > maxBytes)
      throw new RuntimeError('exhausted', `${asked} in the image is larger than ${maxBytes} bytes`);
    return await file.readFile();
  } catch (error) {
    if (error instanceof RuntimeError) throw error;
    throw new RuntimeError('internal', `read ${asked} of the image: ${messageOf(error)}`, { cause: error });
  } finally {
    await file.close();
  }
}

const lstatOrNothing = (path: string) =>
  lstat(path).catch((error: unknown) => {
    if (['ENOENT', 'ENOTDIR', 'ENAMETOOLONG'].some((name) => isErrno(error, name))) return undefined;
    throw error;
  });
