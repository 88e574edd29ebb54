import { constants } from 'node:fs';
import { open, opendir, readFile, readlink, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { RuntimeError, isErrno } from '../../kit/errors.js';
import { mountsBelow, parseMountTable } from '../../kit/mount-table.js';
import type { StepProgress } from '../../kit/observer.js';
import type { Files } from '../../native/files.js';

const attribute = 'security.selinux';

/** Levels of directories; each keeps a descriptor open. */
const maxDepth = 256;

/** Calls under way at once: each waits for a disk on a thread of the pool. */
const together = 32;

export interface Relabelling {
  readonly files: Pick<Files, 'setXattrLater' | 'getXattrLater'>;
  readonly signal: AbortSignal;
  readonly progress?: ((done: StepProgress) => void) | undefined;
}

interface Walk extends Relabelling {
  readonly label: Buffer;
  /** Mount points in the tree, latin1. */
  readonly mounts: ReadonlySet<string>;
  readonly done: { entries: number };
}

/** A name in an open directory; both as latin1, since names need not be UTF-8. */
interface Entry {
  readonly directory: FileHandle;
  readonly name: string;
  readonly path: string;
  readonly depth: number;
}

/**
 * Gives a file or a tree a label: entry by entry in open directories, links themselves and not what they lead to, and
 * nothing of other mounts. The top comes last, so that its label says that all below has it: then nothing is done.
 *
 * @param path of the host, absolute and without links
 * @returns what became of it; `unsupported` where the file system has no labels. Errors: wrong-state when the path has
 * become another, exhausted for a tree that is too deep.
 */
export async function relabel(
  path: string,
  label: string,
  how: Relabelling,
): Promise<'labelled' | 'already' | 'unsupported'> {
  await using parent = await openParent(path);
  const top: Entry = { directory: parent, name: latin1(basename(path)), path: latin1(path), depth: 0 };
  try {
    const now = await how.files.getXattrLater(bytes(entryPath(top)), attribute);
    if (now?.toString('latin1').replace(/\0$/, '') === label) return 'already';
    const table = parseMountTable(await readFile('/proc/self/mountinfo', 'utf8'));
    const mounts = new Set(mountsBelow(table, path).map(({ point }) => latin1(point)));
    const done = { entries: 0 };
    await labelEntry(top, true, { ...how, label: Buffer.from(label, 'latin1'), mounts, done });
    how.progress?.(done);
    return 'labelled';
  } catch (error) {
    if (isErrno(error, 'ENOTSUP') || isErrno(error, 'EOPNOTSUPP')) return 'unsupported';
    throw error;
  }
}

const latin1 = (text: string): string => Buffer.from(text).toString('latin1');
const bytes = (path: string): Buffer => Buffer.from(path, 'latin1');
const within = ({ fd }: FileHandle, name: string): string => `/proc/self/fd/${fd}/${name}`;
const entryPath = ({ directory, name }: Entry): string => within(directory, name);

const directoryFlags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** Where the kernel says the descriptor is, no link was passed on the way. */
async function openParent(path: string): Promise<FileHandle> {
  const wanted = dirname(path);
  const parent = await open(wanted, directoryFlags);
  const found = await readlink(`/proc/self/fd/${parent.fd}`);
  if (found === wanted) return parent;
  await parent.close();
  throw new RuntimeError('wrong-state', `relabel ${path}: ${wanted} has become ${found}`);
}

async function labelEntry(entry: Entry, isDirectory: boolean, walk: Walk): Promise<void> {
  if (entry.depth > 0 && walk.mounts.has(entry.path)) return;
  if (!isDirectory) return await setLabel(entryPath(entry), walk);
  await using handle = await openDirectory(entryPath(entry));
  if (handle === undefined) return await setLabel(entryPath(entry), walk);
  await labelBelow(entry, handle, walk);
  await setLabel(within(handle, '.'), walk);
}

/** Undefined for what is no directory, or none any more. */
async function openDirectory(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(bytes(path), directoryFlags);
  } catch (error) {
    if (['ENOTDIR', 'ELOOP', 'ENOENT'].some((name) => isErrno(error, name))) return undefined;
    throw error;
  }
}

/** Files as they are listed, directories once the listing is closed again. */
async function labelBelow({ path, depth }: Entry, directory: FileHandle, walk: Walk): Promise<void> {
  if (depth >= maxDepth) throw new RuntimeError('exhausted', `relabel ${path}: more than ${maxDepth} directories deep`);
  walk.signal.throwIfAborted();
  walk.progress?.({ ...walk.done });
  const below = (name: string): Entry => ({ directory, name, path: join(path, name), depth: depth + 1 });
  const directories: string[] = [];
  let files: Promise<void>[] = [];
  for await (const entry of await listing(directory)) {
    if (entry.isDirectory()) directories.push(entry.name);
    else files.push(labelEntry(below(entry.name), false, walk));
    if (files.length < together) continue;
    await Promise.all(files);
    files = [];
  }
  await Promise.all(files);
  for (const name of directories) await labelEntry(below(name), true, walk);
}

const listing = ({ fd }: FileHandle) => opendir(`/proc/self/fd/${fd}`, { bufferSize: 256, encoding: 'latin1' });

/** What is gone meanwhile needs no label. */
async function setLabel(path: string, { files, label, done }: Walk): Promise<void> {
  done.entries += 1;
  await files.setXattrLater(bytes(path), attribute, label).catch((error: unknown) => {
    if (!isErrno(error, 'ENOENT')) throw error;
  });
}
