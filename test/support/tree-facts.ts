import { createHash } from 'node:crypto';
import { lstatSync, openSync, readdirSync, readlinkSync, readSync, closeSync } from 'node:fs';
import type { Files } from '../../src/native/files.js';

/** All that can be seen of one entry of a tree. */
export interface EntryFacts {
  /** Type and permission bits, octal. */
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  /** In nanoseconds since the epoch. */
  readonly mtime: bigint;
  /** 0 for directories. */
  readonly size: number;
  readonly device: number;
  /** Target of a symbolic link. */
  readonly target: string | undefined;
  /** Hash of a file's data: of its pieces that are not all zeroes, and where they are. */
  readonly data: string | undefined;
  /** The first path of the same inode, its own when there is none before it. */
  readonly inode: string;
  /** Values in hex; overlayfs's own attributes are left out, and XFS's raw access control lists. */
  readonly xattrs: Readonly<Record<string, string>>;
}

/** Everything in a tree by path, "." for the root. Paths that are no UTF-8 come as `latin1`. */
export function treeFacts(files: Files, root: string): Map<string, EntryFacts> {
  const facts = new Map<string, EntryFacts>();
  const inodes = new Map<bigint, string>();
  const add = (path: string, isDirectory: boolean): void => {
    facts.set(path, entryFacts(files, root, path, inodes));
    if (!isDirectory) return;
    for (const child of readdirSync(bytes(`${root}/${path}`), { withFileTypes: true, encoding: 'buffer' }).sort(
      byName,
    )) {
      add(`${path}/${child.name.toString('latin1')}`, child.isDirectory());
    }
  };
  add('.', true);
  return facts;
}

const bytes = (path: string): Buffer => Buffer.from(path, 'latin1');

const byName = (a: { name: Buffer }, b: { name: Buffer }): number => Buffer.compare(a.name, b.name);

function entryFacts(files: Files, root: string, path: string, inodes: Map<bigint, string>): EntryFacts {
  const full = bytes(`${root}/${path}`);
  const st = lstatSync(full, { bigint: true });
  if (!st.isDirectory() && !inodes.has(st.ino)) inodes.set(st.ino, path);
  return {
    mode: st.mode.toString(8),
    uid: Number(st.uid),
    gid: Number(st.gid),
    mtime: st.mtimeNs,
    size: st.isDirectory() ? 0 : Number(st.size),
    device: Number(st.rdev),
    target: st.isSymbolicLink() ? readlinkSync(full, 'latin1') : undefined,
    data: st.isFile() ? hashOf(full) : undefined,
    inode: st.isDirectory() ? path : (inodes.get(st.ino) as string),
    xattrs: xattrsOf(files, `${root}/${path}`),
  };
}

/** Attributes are read through calls that take text, so only those of entries named in ASCII are. */
function xattrsOf(files: Files, path: string): Record<string, string> {
  if (!/^[\x20-\x7e]*$/.test(path)) return {};
  const names = files.listXattr(path).filter((name) => !/^trusted\.(overlay\.|SGI_ACL_)/.test(name));
  return Object.fromEntries(names.sort().map((name) => [name, files.getXattr(path, name)?.toString('hex') ?? '']));
}

const zeroes = Buffer.alloc(1 << 20);

function hashOf(path: Buffer): string {
  const hash = createHash('sha1');
  const fd = openSync(path, 'r');
  try {
    const buffer = Buffer.alloc(zeroes.length);
    for (let at = 0, got = 1; (got = readSync(fd, buffer)) > 0; at += got) {
      if (buffer.compare(zeroes, 0, got, 0, got) !== 0) hash.update(`${at} ${got} `).update(buffer.subarray(0, got));
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}
