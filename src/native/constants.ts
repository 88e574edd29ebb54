/**
 * Numbers of the kernel's interface, as the C headers have them. `test/integration/native-constants.test.ts` compiles
 * a C program that prints each of them and compares, so a wrong one cannot stay.
 *
 * x86-64 and arm64 agree on everything here except what `openFlags` chooses by architecture.
 */
import { arch } from 'node:process';

/** arm64 numbers these two differently from x86-64 (asm/fcntl.h). */
const byArchitecture =
  arch === 'arm64' ? { O_DIRECTORY: 0o40000, O_NOFOLLOW: 0o100000 } : { O_DIRECTORY: 0o200000, O_NOFOLLOW: 0o400000 };

export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DIRECTORY: byArchitecture.O_DIRECTORY,
  NOFOLLOW: byArchitecture.O_NOFOLLOW,
  CLOEXEC: 0o2000000,
  PATH: 0o10000000,
} as const;

export const AT = {
  FDCWD: -100,
  SYMLINK_NOFOLLOW: 0x100,
  REMOVEDIR: 0x200,
  EMPTY_PATH: 0x1000,
  RECURSIVE: 0x8000,
} as const;

export const MS = {
  RDONLY: 1,
  NOSUID: 2,
  NODEV: 4,
  NOEXEC: 8,
  SYNCHRONOUS: 16,
  REMOUNT: 32,
  MANDLOCK: 64,
  DIRSYNC: 128,
  NOATIME: 1024,
  NODIRATIME: 2048,
  BIND: 4096,
  MOVE: 8192,
  REC: 16384,
  SILENT: 32768,
  UNBINDABLE: 131072,
  PRIVATE: 262144,
  SLAVE: 524288,
  SHARED: 1048576,
  RELATIME: 2097152,
  STRICTATIME: 16777216,
  LAZYTIME: 33554432,
} as const;

export const MNT = { FORCE: 1, DETACH: 2, UMOUNT_NOFOLLOW: 8 } as const;

export const MOUNT_ATTR = {
  RDONLY: 1,
  NOSUID: 2,
  NODEV: 4,
  NOEXEC: 8,
  NOATIME: 0x10,
  STRICTATIME: 0x20,
  NODIRATIME: 0x80,
  IDMAP: 0x100000,
  NOSYMFOLLOW: 0x200000,
} as const;

export const OPEN_TREE = { CLONE: 1, CLOEXEC: O.CLOEXEC } as const;
export const MOVE_MOUNT = { F_EMPTY_PATH: 4, T_EMPTY_PATH: 0x40 } as const;
export const FSOPEN_CLOEXEC = 1;
export const FSMOUNT_CLOEXEC = 1;
export const FSCONFIG = {
  SET_FLAG: 0,
  SET_STRING: 1,
  SET_BINARY: 2,
  SET_PATH: 3,
  SET_PATH_EMPTY: 4,
  SET_FD: 5,
  CMD_CREATE: 6,
} as const;

export const RESOLVE = { NO_XDEV: 1, NO_MAGICLINKS: 2, NO_SYMLINKS: 4, BENEATH: 8, IN_ROOT: 16 } as const;

export const F = { GETFD: 1, SETFD: 2, GETFL: 3, SETFL: 4, ADD_SEALS: 1033, GET_SEALS: 1034 } as const;
export const SEAL = { SEAL: 1, SHRINK: 2, GROW: 4, WRITE: 8 } as const;
export const MFD = { CLOEXEC: 1, ALLOW_SEALING: 2, NOEXEC_SEAL: 8, EXEC: 16 } as const;

export const LOCK = { SH: 1, EX: 2, NB: 4, UN: 8 } as const;

export const SOCKETS = {
  AF_UNIX: 1,
  AF_NETLINK: 16,
  SOCK_STREAM: 1,
  SOCK_DGRAM: 2,
  SOCK_RAW: 3,
  SOCK_CLOEXEC: 0o2000000,
  SOCK_NONBLOCK: 0o4000,
  SOL_SOCKET: 1,
  SOL_NETLINK: 270,
  SO_SNDBUF: 7,
  SO_RCVBUF: 8,
  SO_PEERCRED: 17,
  SO_RCVTIMEO: 20,
  MSG_DONTWAIT: 0x40,
  MSG_TRUNC: 0x20,
  MSG_PEEK: 2,
  NETLINK_ROUTE: 0,
  NETLINK_NETFILTER: 12,
} as const;

export const POSIX_SPAWN = { SETSIGDEF: 4, SETSIGMASK: 8, SETSID: 0x80 } as const;

/** System call numbers; all of these are above 423, where every architecture numbers alike. */
export const SYS = { openat2: 437, pidfd_getfd: 438, faccessat2: 439, mount_setattr: 442, fchmodat2: 452 } as const;

/** Types of fs magic in `statfs` (linux/magic.h). */
export const FS_MAGIC = {
  NSFS: 0x6e736673,
  PROC: 0x9fa0,
  CGROUP: 0x27e0eb,
  CGROUP2: 0x63677270,
  TMPFS: 0x01021994,
  OVERLAYFS: 0x794c7630,
  SYSFS: 0x62656572,
} as const;

/** Sizes in bytes of the C library's and the kernel's structures that are passed as raw memory. */
export const SIZES = {
  posix_spawnattr_t: 336,
  posix_spawn_file_actions_t: 80,
  sigset_t: 128,
  statfs: 120,
  ucred: 12,
  sockaddr_nl: 12,
  mount_attr: 32,
  open_how: 24,
} as const;
