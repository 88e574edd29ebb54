/**
 * The one importer of koffi: the C library's functions as JavaScript calls. Everything above this file sees typed
 * wrappers and SyscallError; nothing above it sees a pointer.
 *
 * errno belongs to the thread that made the call, so it is read in the very callback or statement that follows the
 * call. A synchronous call costs about 0.3 µs and blocks the event loop for as long as the kernel takes; calls on
 * paths the host does not control (network file systems) go through `later`, at about 50 µs.
 */
import { constants } from 'node:os';
import koffi from 'koffi';
import { SyscallError } from '../kit/errors.js';

/** What a C function may be given. Numbers and bigints are integers, bytes and `null` are pointers. */
export type Argument = number | bigint | string | Uint8Array | null;

const prototypes = {
  accept4: 'int accept4(int fd, void *address, void *length, int flags)',
  bind: 'int bind(int fd, const void *address, uint32_t length)',
  close: 'int close(int fd)',
  connect: 'int connect(int fd, const void *address, uint32_t length)',
  execve: 'int execve(const char *path, const char **argv, const char **envp)',
  fchmodat: 'int fchmodat(int dir, const char *path, uint32_t mode, int flags)',
  fchownat: 'int fchownat(int dir, const char *path, uint32_t uid, uint32_t gid, int flags)',
  fcntl: 'int fcntl(int fd, int command, long argument)',
  fgetxattr: 'long fgetxattr(int fd, const char *name, void *value, size_t size)',
  fsconfig: 'int fsconfig(int fd, uint32_t command, const char *key, const void *value, int aux)',
  fsetxattr: 'int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)',
  fsmount: 'int fsmount(int fd, uint32_t flags, uint32_t attributes)',
  fsopen: 'int fsopen(const char *type, uint32_t flags)',
  fstatfs: 'int fstatfs(int fd, void *buffer)',
  flock: 'int flock(int fd, int operation)',
  getsockopt: 'int getsockopt(int fd, int level, int option, void *value, void *length)',
  ioctl: 'int ioctl(int fd, unsigned long request, void *argument)',
  kill: 'int kill(int pid, int signal)',
  lgetxattr: 'long lgetxattr(const char *path, const char *name, void *value, size_t size)',
  linkat: 'int linkat(int olddir, const char *old, int newdir, const char *path, int flags)',
  listen: 'int listen(int fd, int backlog)',
  llistxattr: 'long llistxattr(const char *path, void *list, size_t size)',
  lremovexattr: 'int lremovexattr(const char *path, const char *name)',
  lsetxattr: 'int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)',
  memfd_create: 'int memfd_create(const char *name, uint32_t flags)',
  mkdirat: 'int mkdirat(int dir, const char *path, uint32_t mode)',
  mknodat: 'int mknodat(int dir, const char *path, uint32_t mode, uint64_t device)',
  mount: 'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
  mount_setattr: 'int mount_setattr(int dir, const char *path, uint32_t flags, const void *attributes, size_t size)',
  move_mount: 'int move_mount(int fromdir, const char *from, int todir, const char *to, uint32_t flags)',
  open_tree: 'int open_tree(int dir, const char *path, uint32_t flags)',
  openat: 'int openat(int dir, const char *path, int flags, uint32_t mode)',
  pidfd_open: 'int pidfd_open(int pid, uint32_t flags)',
  pidfd_send_signal: 'int pidfd_send_signal(int fd, int signal, const void *info, uint32_t flags)',
  pipe2: 'int pipe2(void *fds, int flags)',
  read: 'long read(int fd, void *buffer, size_t size)',
  readlinkat: 'long readlinkat(int dir, const char *path, void *buffer, size_t size)',
  recv: 'long recv(int fd, void *buffer, size_t size, int flags)',
  renameat2: 'int renameat2(int olddir, const char *old, int newdir, const char *path, uint32_t flags)',
  sendto: 'long sendto(int fd, const void *buffer, size_t size, int flags, const void *address, uint32_t length)',
  setsockopt: 'int setsockopt(int fd, int level, int option, const void *value, uint32_t length)',
  socket: 'int socket(int domain, int type, int protocol)',
  socketpair: 'int socketpair(int domain, int type, int protocol, void *fds)',
  statfs: 'int statfs(const char *path, void *buffer)',
  symlinkat: 'int symlinkat(const char *target, int dir, const char *path)',
  syncfs: 'int syncfs(int fd)',
  umount2: 'int umount2(const char *target, int flags)',
  unlinkat: 'int unlinkat(int dir, const char *path, int flags)',
  utimensat: 'int utimensat(int dir, const char *path, const void *times, int flags)',
  waitpid: 'int waitpid(int pid, void *status, int options)',
  write: 'long write(int fd, const void *buffer, size_t size)',
} as const;

/** These answer with an errno instead of setting it. */
const answeringErrno = {
  posix_spawn:
    'int posix_spawn(void *pid, const char *path, const void *actions, const void *attributes, ' +
    'const char **argv, const char **envp)',
  posix_spawn_file_actions_addclose: 'int posix_spawn_file_actions_addclose(void *actions, int fd)',
  posix_spawn_file_actions_adddup2: 'int posix_spawn_file_actions_adddup2(void *actions, int fd, int target)',
  posix_spawn_file_actions_addopen:
    'int posix_spawn_file_actions_addopen(void *actions, int fd, const char *path, int flags, uint32_t mode)',
  posix_spawn_file_actions_destroy: 'int posix_spawn_file_actions_destroy(void *actions)',
  posix_spawn_file_actions_init: 'int posix_spawn_file_actions_init(void *actions)',
  posix_spawnattr_destroy: 'int posix_spawnattr_destroy(void *attributes)',
  posix_spawnattr_init: 'int posix_spawnattr_init(void *attributes)',
  posix_spawnattr_setflags: 'int posix_spawnattr_setflags(void *attributes, short flags)',
  posix_spawnattr_setsigdefault: 'int posix_spawnattr_setsigdefault(void *attributes, const void *set)',
  posix_spawnattr_setsigmask: 'int posix_spawnattr_setsigmask(void *attributes, const void *set)',
} as const;

export type FunctionName = keyof typeof prototypes;
export type SpawnFunctionName = keyof typeof answeringErrno;

/** A vector of strings ends with null, as execve(2) wants it. */
export type SpawnArgument = Argument | readonly (string | null)[];

/** The C library. `object` is what an error names: a path, a device, a descriptor's owner. */
export interface Library {
  /** Calls now. Throws SyscallError when the function answers -1. */
  now(name: FunctionName, object: string | undefined, ...args: readonly SpawnArgument[]): number;
  /** Calls on a thread of the pool. Buffers must stay untouched until the promise settles. */
  later(name: FunctionName, object: string | undefined, ...args: readonly Argument[]): Promise<number>;
  /** Calls a function of the posix_spawn family. Throws SyscallError when it answers an errno. */
  spawning(name: SpawnFunctionName, object: string | undefined, ...args: readonly SpawnArgument[]): void;
  /** syscall(2) by number, for calls the C library does not wrap. */
  raw(name: string, number: number, object: string | undefined, ...args: readonly Argument[]): number;
  /**
   * The address of a buffer, for structures that hold pointers (bpf(2)). Valid while the caller keeps the buffer
   * referenced; the memory of Node's buffers does not move.
   */
  address(bytes: Uint8Array): bigint;
}

interface Bound {
  (...args: unknown[]): number | bigint;
  async(...args: unknown[]): void;
}

const errnoNames = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

/** Symbol of an errno (`ENOENT`), or `errno 123` for one Node does not know. */
export const errnoName = (errno: number): string => errnoNames.get(errno) ?? `errno ${errno}`;

const failure = (name: string, errno: number, object: string | undefined): SyscallError =>
  new SyscallError(name, errno, errnoName(errno), object);

/** C strings end at the first NUL: a name that holds one would silently mean another file. */
function checkStrings(name: string, args: readonly unknown[], object: string | undefined): void {
  for (const arg of args) {
    if (typeof arg === 'string' && arg.includes('\0')) throw failure(name, constants.errno.EINVAL, object);
  }
}

/** Binds the C library of this process. Functions are looked up at their first use. */
export function loadLibrary(): Library {
  const handle = koffi.load(null);
  const bound = new Map<string, Bound>();
  const bind = (key: string, make: () => unknown): Bound => {
    const known = bound.get(key);
    if (known !== undefined) return known;
    const made = make() as Bound;
    bound.set(key, made);
    return made;
  };
  const named = (name: FunctionName): Bound => bind(name, () => handle.func(prototypes[name]));

  const library: Library = {
    now(name, object, ...args) {
      checkStrings(name, args.flat(), object);
      const result = Number(named(name)(...args));
      if (result === -1) throw failure(name, koffi.errno(), object);
      return result;
    },
    later(name, object, ...args) {
      return new Promise((resolve, reject) => {
        checkStrings(name, args, object);
        named(name).async(...args, (error: unknown, result: number | bigint) => {
          const errno = koffi.errno();
          if (error !== null && error !== undefined) reject(error);
          else if (Number(result) === -1) reject(failure(name, errno, object));
          else resolve(Number(result));
        });
      });
    },
    spawning(name, object, ...args) {
      checkStrings(name, args.flat(), object);
      const errno = Number(bind(name, () => handle.func(answeringErrno[name]))(...args));
      if (errno !== 0) throw failure(name, errno, object);
    },
    raw(name, number, object, ...args) {
      checkStrings(name, args, object);
      const kinds = args.map((arg) =>
        typeof arg === 'number' || typeof arg === 'bigint' ? 'int64_t' : 'const void *',
      );
      const call = bind(`syscall ${kinds.join()}`, () => handle.func('syscall', 'long', ['long', ...kinds]));
      const given = args.map((arg) => (typeof arg === 'string' ? Buffer.from(`${arg}\0`) : arg));
      const result = Number(call(number, ...given));
      if (result === -1) throw failure(name, koffi.errno(), object);
      return result;
    },
    address: (bytes) => koffi.address(bytes),
  };
  return library;
}
