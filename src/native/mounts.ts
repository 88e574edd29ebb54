import { AT, FSCONFIG, FSMOUNT_CLOEXEC, FSOPEN_CLOEXEC, MOVE_MOUNT, O, OPEN_TREE, SIZES } from './constants.js';
import { Descriptor } from './descriptor.js';
import type { Library } from './library.js';

/** What statfs(2) says of a file system. Counts are in blocks of `blockSize` bytes. */
export interface FileSystemFacts {
  /** One of `FS_MAGIC` or another number of linux/magic.h. */
  readonly type: number;
  readonly blockSize: number;
  readonly blocks: bigint;
  readonly blocksFree: bigint;
  readonly blocksAvailable: bigint;
  readonly files: bigint;
  readonly filesFree: bigint;
}

/** Mount calls of the host's own mount namespace. Every one throws SyscallError. */
export interface Mounts {
  mount(source: string, target: string, fstype: string, flags: number, data: string): void;
  /** `flags` of MNT: FORCE, DETACH, UMOUNT_NOFOLLOW. Runs on a thread: an unmount may have to write data back. */
  unmount(target: string, flags: number): Promise<void>;
  unmountNow(target: string, flags: number): void;
  /** A descriptor of the mount at `path`; a detached clone of it with `clone`. */
  openTree(path: string, options: { readonly clone: boolean; readonly recursive: boolean }): Descriptor;
  attach(tree: number, target: string): void;
  /** mount_setattr(2) on an open tree; words of MOUNT_ATTR. `userns` is a user namespace's descriptor for IDMAP. */
  setAttributes(
    tree: number,
    change: { readonly set: number; readonly clear: number; readonly propagation?: number; readonly userns?: number },
    recursive: boolean,
  ): void;
  openFileSystem(fstype: string): Descriptor;
  configure(context: number, key: string, value: string | null): void;
  configureFd(context: number, key: string, fd: number): void;
  /** Makes the configured file system and returns its detached mount. */
  create(context: number, attributes: number): Descriptor;
  statFs(path: string): FileSystemFacts;
  fstatFs(fd: number, name?: string): FileSystemFacts;
}

/** struct statfs of the 64-bit architectures. */
function decodeStatFs(buffer: Buffer): FileSystemFacts {
  return {
    type: Number(buffer.readBigInt64LE(0) & 0xffffffffn),
    blockSize: Number(buffer.readBigInt64LE(8)),
    blocks: buffer.readBigUInt64LE(16),
    blocksFree: buffer.readBigUInt64LE(24),
    blocksAvailable: buffer.readBigUInt64LE(32),
    files: buffer.readBigUInt64LE(40),
    filesFree: buffer.readBigUInt64LE(48),
  };
}

function encodeAttributes(change: Parameters<Mounts['setAttributes']>[1]): Buffer {
  const buffer = Buffer.alloc(SIZES.mount_attr);
  buffer.writeBigUInt64LE(BigInt(change.set), 0);
  buffer.writeBigUInt64LE(BigInt(change.clear), 8);
  buffer.writeBigUInt64LE(BigInt(change.propagation ?? 0), 16);
  buffer.writeBigUInt64LE(BigInt(change.userns ?? 0), 24);
  return buffer;
}

export function mountCalls(library: Library): Mounts {
  const own = (fd: number): Descriptor => new Descriptor(library, fd);
  return {
    mount: (source, target, fstype, flags, data) =>
      void library.now('mount', target, source, target, fstype, flags, data),
    unmount: async (target, flags) => void (await library.later('umount2', target, target, flags)),
    unmountNow: (target, flags) => void library.now('umount2', target, target, flags),
    openTree(path, { clone, recursive }) {
      const flags = OPEN_TREE.CLOEXEC | (clone ? OPEN_TREE.CLONE : 0) | (recursive ? AT.RECURSIVE : 0);
      return own(library.now('open_tree', path, AT.FDCWD, path, flags));
    },
    attach: (tree, target) =>
      void library.now('move_mount', target, tree, '', AT.FDCWD, target, MOVE_MOUNT.F_EMPTY_PATH),
    setAttributes(tree, change, recursive) {
      const flags = AT.EMPTY_PATH | (recursive ? AT.RECURSIVE : 0);
      library.now('mount_setattr', undefined, tree, '', flags, encodeAttributes(change), SIZES.mount_attr);
    },
    openFileSystem: (fstype) => own(library.now('fsopen', fstype, fstype, FSOPEN_CLOEXEC)),
    configure(context, key, value) {
      const bytes = value === null ? null : Buffer.from(`${value}\0`);
      library.now('fsconfig', key, context, bytes === null ? FSCONFIG.SET_FLAG : FSCONFIG.SET_STRING, key, bytes, 0);
    },
    configureFd: (context, key, fd) => void library.now('fsconfig', key, context, FSCONFIG.SET_FD, key, null, fd),
    create(context, attributes) {
      library.now('fsconfig', 'create', context, FSCONFIG.CMD_CREATE, null, null, 0);
      return own(library.now('fsmount', undefined, context, FSMOUNT_CLOEXEC, attributes));
    },
    statFs(path) {
      const buffer = Buffer.alloc(SIZES.statfs);
      library.now('statfs', path, path, buffer);
      return decodeStatFs(buffer);
    },
    fstatFs(fd, name) {
      const buffer = Buffer.alloc(SIZES.statfs);
      library.now('fstatfs', name, fd, buffer);
      return decodeStatFs(buffer);
    },
  };
}

/** Flags of an O_PATH open of a directory. */
export const PATH_DIRECTORY = O.PATH | O.DIRECTORY | O.CLOEXEC;
