import { constants, type Stats } from 'node:fs';
import { lstat, open, readdir, readlink, type FileHandle } from 'node:fs/promises';
import { throwIfCancelled } from '../../kit/deadline.js';
import { isErrno } from '../../kit/errors.js';
import type { Files } from '../../native/files.js';
import { linesOf, toContainer, type IdMappings } from '../idmap/mapping.js';
import type { Snapshot } from '../snapshots/snapshotter.js';
import type { TarEntry, TarWriter } from './tar-writer.js';

export interface RootfsDiffInput {
  readonly snapshot: Pick<Snapshot, 'upperDir' | 'lowerDirs'>;
  /** Where the container's root can be read with all its layers, for files of which the upper one has no data. */
  readonly mergedRoot: string;
  /** Absolute paths inside the container that are mounted over: what lies below them is not the root's. */
  readonly mountPoints: ReadonlySet<string>;
  readonly mappings?: IdMappings;
}

/**
 * What a container has changed in its root: new and changed files go to the archive, with the owners the container
 * sees, and the answer names those it removed. Nothing may change meanwhile: the container is frozen. Links are never
 * followed. Paths are bytes, one per character (latin1).
 */
export async function writeRootfsDiff(
  tar: TarWriter,
  input: RootfsDiffInput,
  files: Pick<Files, 'fgetXattr'>,
  signal: AbortSignal,
): Promise<string[]> {
  const { snapshot } = input;
  const upper = asBytes(snapshot.upperDir);
  const walk: Walk = { tar, input, upper, files, signal, deleted: [], links: new Map() };
  await walkDirectory(walk, '', snapshot.lowerDirs.map(asBytes));
  return walk.deleted;
}

interface Walk {
  readonly tar: TarWriter;
  readonly input: RootfsDiffInput;
  readonly upper: string;
  readonly files: Pick<Files, 'fgetXattr'>;
  readonly signal: AbortSignal;
  readonly deleted: string[];
  /** First path of each file with several, by inode. */
  readonly links: Map<number, string>;
}

/** `lowers`: directories that lie below this one in the layers, wherever there are any. */
async function walkDirectory(walk: Walk, path: string, lowers: readonly string[]): Promise<void> {
  const names = await namesIn(walk.upper + path);
  if (await isOpaque(walk, walk.upper + path)) {
    for (const name of await namesOfAll(lowers)) if (!names.includes(name)) walk.deleted.push(`${path}/${name}`);
  }
  for (const name of names) {
    throwIfCancelled(walk.signal, 'archive the root file system');
    await visit(
      walk,
      `${path}/${name}`,
      lowers.map((dir) => `${dir}/${name}`),
    );
  }
}

async function visit(walk: Walk, path: string, lowers: readonly string[]): Promise<void> {
  if (walk.input.mountPoints.has(path)) return;
  const full = walk.upper + path;
  const st = await lstat(bytes(full));
  if (st.isCharacterDevice() && st.rdev === 0) return void walk.deleted.push(path);
  if (st.isDirectory()) {
    await walk.tar.entry({ ...common(walk, path, st), path: `${path.slice(1)}/`, type: 'directory' });
    return await walkDirectory(walk, path, await directoriesOf(lowers));
  }
  if (st.isSocket()) return; // its server makes it again
  const first = st.nlink > 1 ? walk.links.get(st.ino) : undefined;
  if (first !== undefined) {
    return await walk.tar.entry({ ...common(walk, path, st), type: 'link', linkTo: first.slice(1) });
  }
  if (st.nlink > 1) walk.links.set(st.ino, path);
  if (st.isFile()) return await writeFile(walk, path, st);
  await walk.tar.entry({ ...common(walk, path, st), ...(await special(full, st)) });
}

async function special(full: string, st: Stats): Promise<Pick<TarEntry, 'type' | 'linkTo' | 'device'>> {
  if (st.isSymbolicLink()) return { type: 'symlink', linkTo: await readlink(bytes(full), 'latin1') };
  if (st.isFIFO()) return { type: 'fifo' };
  return { type: st.isBlockDevice() ? 'block' : 'char', device: deviceNumbers(st.rdev) };
}

async function writeFile(walk: Walk, path: string, st: Stats): Promise<void> {
  await using upper = await openFile(walk.upper + path);
  const capability = walk.files.fgetXattr(upper.fd, 'security.capability');
  const entry: TarEntry = {
    ...common(walk, path, st),
    type: 'file',
    size: st.size,
    ...(capability === undefined ? {} : { xattrs: { 'security.capability': capability } }),
  };
  if (walk.files.fgetXattr(upper.fd, 'trusted.overlay.metacopy') === undefined) {
    return await walk.tar.copy(entry, upper);
  }
  // Only its owner or mode was changed: the data are in a layer below.
  await using merged = await openFile(walk.input.mergedRoot + path);
  await walk.tar.copy(entry, merged);
}

function common(walk: Walk, path: string, st: Stats): Pick<TarEntry, 'path' | 'mode' | 'uid' | 'gid' | 'mtime'> {
  const { mappings } = walk.input;
  const inside = (kind: 'uid' | 'gid', id: number): number =>
    mappings === undefined ? id : (toContainer(linesOf(mappings, kind), id) ?? id);
  return {
    path: path.slice(1),
    mode: st.mode,
    uid: inside('uid', st.uid),
    gid: inside('gid', st.gid),
    mtime: st.mtimeMs / 1000,
  };
}

/** Whether it hides what the layers below have there (Documentation/filesystems/overlayfs.rst, "opaque directories"). */
async function isOpaque(walk: Walk, dir: string): Promise<boolean> {
  await using opened = await openFile(dir, constants.O_DIRECTORY);
  return walk.files.fgetXattr(opened.fd, 'trusted.overlay.opaque')?.[0] === 0x79;
}

const openFile = (path: string, flags = 0): Promise<FileHandle> =>
  open(bytes(path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | flags);

/** As the overlay merges them: what is no directory hides what is below. */
async function directoriesOf(paths: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const path of paths) {
    const st = await lstatOrNothing(path);
    if (st === undefined) continue;
    if (!st.isDirectory()) break;
    found.push(path);
  }
  return found;
}

async function namesOfAll(dirs: readonly string[]): Promise<Set<string>> {
  const names = new Set<string>();
  for (const dir of dirs) for (const name of await namesIn(dir)) names.add(name);
  return names;
}

const namesIn = async (dir: string): Promise<string[]> => (await readdir(bytes(dir), 'latin1')).sort();

const lstatOrNothing = (path: string): Promise<Stats | undefined> =>
  lstat(bytes(path)).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  });

const bytes = (path: string): Buffer => Buffer.from(path, 'latin1');
const asBytes = (path: string): string => Buffer.from(path).toString('latin1');

/** The user-space encoding of dev_t (glibc gnu_dev_major, gnu_dev_minor). */
function deviceNumbers(rdev: number): { readonly major: number; readonly minor: number } {
  const wide = BigInt(rdev);
  return {
    major: Number(((wide >> 8n) & 0xfffn) | ((wide >> 32n) & 0xfffff000n)),
    minor: Number((wide & 0xffn) | ((wide >> 12n) & 0xffffff00n)),
  };
}
