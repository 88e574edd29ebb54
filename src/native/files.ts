import { isErrno } from '../kit/errors.js';
import { AT, LOCK, O, SIZES, SYS } from './constants.js';
import { Descriptor } from './descriptor.js';
import type { Library } from './library.js';

/**
 * File calls Node does not offer, most of them relative to a directory's descriptor. All throw SyscallError. They run
 * on the calling thread; work on trees of unknown size belongs to a worker.
 */
export interface Files {
  openAt(dir: number, path: string, flags: number, mode?: number): Descriptor;
  /** openat2(2): `resolve` of RESOLVE. */
  openAt2(
    dir: number,
    path: string,
    how: { readonly flags: number; readonly mode?: number; readonly resolve: number },
  ): Descriptor;
  mkdirAt(dir: number, path: string, mode: number): void;
  /** `mode` with the type bits (S_IFCHR…). */
  mknodAt(dir: number, path: string, mode: number, major: number, minor: number): void;
  symlinkAt(target: string, dir: number, path: string): void;
  /** '' for `oldPath` means the file that `oldDir` is a descriptor of, one without a name too (O_TMPFILE). */
  linkAt(oldDir: number, oldPath: string, newDir: number, newPath: string): void;
  unlinkAt(dir: number, path: string, directory: boolean): void;
  readlinkAt(dir: number, path: string): Buffer;
  /** `exchange` swaps the two names atomically; `noReplace` fails with EEXIST. */
  renameAt(oldDir: number, oldPath: string, newDir: number, newPath: string, how?: 'exchange' | 'noReplace'): void;
  /** Never follows a symbolic link; '' means `dir` itself. */
  chownAt(dir: number, path: string, uid: number, gid: number): void;
  chmodAt(dir: number, path: string, mode: number): void;
  /** Nanoseconds since the epoch; never follows a symbolic link; '' means `dir` itself. */
  utimeAt(dir: number, path: string, accessed: bigint, modified: bigint): void;
  /** The bytes, or undefined when the attribute is missing. Never follows a symbolic link. */
  getXattr(path: string, name: string): Buffer | undefined;
  setXattr(path: string, name: string, value: Uint8Array): void;
  /** On a thread of the pool, for files that may be far away; the path need not be UTF-8. */
  getXattrLater(path: Uint8Array, name: string): Promise<Buffer | undefined>;
  setXattrLater(path: Uint8Array, name: string, value: Uint8Array): Promise<void>;
  removeXattr(path: string, name: string): void;
  listXattr(path: string): readonly string[];
  fgetXattr(fd: number, name: string): Buffer | undefined;
  fsetXattr(fd: number, name: string, value: Uint8Array): void;
  /** Whether the lock was taken. Never waits. */
  tryLock(fd: number, exclusive: boolean): boolean;
  syncFs(fd: number): Promise<void>;
  pipe(): { readonly read: Descriptor; readonly write: Descriptor };
  /** Bytes read, 0 at the end, undefined when nothing is there yet (EAGAIN). */
  read(fd: number, into: Uint8Array): number | undefined;
  write(fd: number, bytes: Uint8Array): number;
}

/** The kernel's encoding of a device number for user space (glibc makedev). */
export const makeDevice = (major: number, minor: number): bigint =>
  ((BigInt(major) & 0xfffff000n) << 32n) |
  ((BigInt(major) & 0xfffn) << 8n) |
  ((BigInt(minor) & 0xffffff00n) << 12n) |
  (BigInt(minor) & 0xffn);

const renameFlags = { noReplace: 1, exchange: 2 } as const;

function timespecs(accessed: bigint, modified: bigint): Buffer {
  const buffer = Buffer.alloc(32);
  [accessed, modified].forEach((time, index) => {
    const nanos = ((time % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
    buffer.writeBigInt64LE((time - nanos) / 1_000_000_000n, index * 16);
    buffer.writeBigInt64LE(nanos, index * 16 + 8);
  });
  return buffer;
}

export function fileCalls(library: Library): Files {
  const own = (fd: number): Descriptor => new Descriptor(library, fd);
  const linkFlags = (path: string): number => AT.SYMLINK_NOFOLLOW | (path === '' ? AT.EMPTY_PATH : 0);
  return {
    openAt: (dir, path, flags, mode = 0) => own(library.now('openat', path, dir, path, flags | O.CLOEXEC, mode)),
    openAt2(dir, path, { flags, mode = 0, resolve }) {
      const how = Buffer.alloc(SIZES.open_how);
      [flags | O.CLOEXEC, mode, resolve].forEach((word, index) => how.writeBigUInt64LE(BigInt(word), index * 8));
      return own(library.raw('openat2', SYS.openat2, path, dir, path, how, SIZES.open_how));
    },
    mkdirAt: (dir, path, mode) => void library.now('mkdirat', path, dir, path, mode),
    mknodAt: (dir, path, mode, major, minor) =>
      void library.now('mknodat', path, dir, path, mode, makeDevice(major, minor)),
    symlinkAt: (target, dir, path) => void library.now('symlinkat', path, target, dir, path),
    linkAt: (oldDir, oldPath, newDir, newPath) =>
      void library.now('linkat', newPath, oldDir, oldPath, newDir, newPath, oldPath === '' ? AT.EMPTY_PATH : 0),
    unlinkAt: (dir, path, directory) => void library.now('unlinkat', path, dir, path, directory ? AT.REMOVEDIR : 0),
    readlinkAt(dir, path) {
      const buffer = Buffer.alloc(4096);
      return buffer.subarray(0, library.now('readlinkat', path, dir, path, buffer, buffer.length));
    },
    renameAt: (oldDir, oldPath, newDir, newPath, how) =>
      void library.now(
        'renameat2',
        newPath,
        oldDir,
        oldPath,
        newDir,
        newPath,
        how === undefined ? 0 : renameFlags[how],
      ),
    chownAt: (dir, path, uid, gid) => void library.now('fchownat', path, dir, path, uid, gid, linkFlags(path)),
    chmodAt: (dir, path, mode) => void library.now('fchmodat', path, dir, path, mode, 0),
    utimeAt: (dir, path, accessed, modified) =>
      void library.now('utimensat', path, dir, path, timespecs(accessed, modified), linkFlags(path)),
    getXattr: (path, name) => xattr((buffer) => library.now('lgetxattr', path, path, name, buffer, buffer.length)),
    setXattr: (path, name, value) => void library.now('lsetxattr', path, path, name, value, value.length, 0),
    async getXattrLater(path, name) {
      const value = Buffer.alloc(65536);
      try {
        const size = await library.later('lgetxattr', nameOf(path), cString(path), name, value, value.length);
        return value.subarray(0, size);
      } catch (error) {
        if (isErrno(error, 'ENODATA')) return undefined;
        throw error;
      }
    },
    setXattrLater: async (path, name, value) =>
      void (await library.later('lsetxattr', nameOf(path), cString(path), name, value, value.length, 0)),
    removeXattr: (path, name) => void library.now('lremovexattr', path, path, name),
    listXattr(path) {
      const list = sized((buffer) => library.now('llistxattr', path, path, buffer, buffer.length));
      return list
        .toString()
        .split('\0')
        .filter((name) => name !== '');
    },
    fgetXattr: (fd, name) => xattr((buffer) => library.now('fgetxattr', name, fd, name, buffer, buffer.length)),
    fsetXattr: (fd, name, value) => void library.now('fsetxattr', name, fd, name, value, value.length, 0),
    tryLock(fd, exclusive) {
      try {
        library.now('flock', undefined, fd, (exclusive ? LOCK.EX : LOCK.SH) | LOCK.NB);
        return true;
      } catch (error) {
        if (isErrno(error, 'EAGAIN') || isErrno(error, 'EWOULDBLOCK')) return false;
        throw error;
      }
    },
    syncFs: async (fd) => void (await library.later('syncfs', undefined, fd)),
    pipe() {
      const fds = Buffer.alloc(8);
      library.now('pipe2', undefined, fds, O.CLOEXEC);
      return { read: own(fds.readInt32LE(0)), write: own(fds.readInt32LE(4)) };
    },
    read(fd, into) {
      try {
        return library.now('read', undefined, fd, into, into.length);
      } catch (error) {
        if (isErrno(error, 'EAGAIN') || isErrno(error, 'EWOULDBLOCK')) return undefined;
        throw error;
      }
    },
    write: (fd, bytes) => library.now('write', undefined, fd, bytes, bytes.length),
  };
}

const cString = (path: Uint8Array): Buffer => Buffer.concat([path, Buffer.alloc(1)]);
const nameOf = (path: Uint8Array): string => Buffer.from(path).toString();

/** Reads something whose size is found by asking; asks again when it grew meanwhile. */
function sized(read: (buffer: Buffer) => number): Buffer {
  for (let size = 256; ; size = Math.min(size * 8, 65536)) {
    const buffer = Buffer.alloc(size);
    try {
      return buffer.subarray(0, read(buffer));
    } catch (error) {
      if (!isErrno(error, 'ERANGE') || size >= 65536) throw error;
    }
  }
}

function xattr(read: (buffer: Buffer) => number): Buffer | undefined {
  try {
    return sized(read);
  } catch (error) {
    if (isErrno(error, 'ENODATA')) return undefined;
    throw error;
  }
}
