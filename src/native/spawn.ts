import { O, POSIX_SPAWN, SIZES } from './constants.js';
import type { Library } from './library.js';

export interface SpawnRequest {
  /** Absolute path of the program; `/proc/self/fd/N` for an open descriptor. */
  readonly path: string;
  /** With argv[0]. */
  readonly args: readonly string[];
  /** `NAME=value`, nothing is inherited. */
  readonly env: readonly string[];
  /** Index is the child's descriptor; the value ours, or 'null' for /dev/null. Everything else must be close-on-exec. */
  readonly descriptors: readonly (number | 'null')[];
  readonly newSession?: boolean;
}

/**
 * Starts a program with posix_spawn(3): 0.1 to 0.5 ms whatever our size, where Node's child_process forks (1 to 18 ms
 * on the main thread). The child starts with every signal at its default and none blocked. libuv does not know the
 * child: the caller reaps it (`Processes.reap`). Throws SyscallError when the program cannot be executed.
 */
export type Spawn = (request: SpawnRequest) => number;

export const spawnCall = (library: Library): Spawn => {
  return (request) => {
    const actions = Buffer.alloc(SIZES.posix_spawn_file_actions_t);
    const attributes = Buffer.alloc(SIZES.posix_spawnattr_t);
    library.spawning('posix_spawn_file_actions_init', undefined, actions);
    library.spawning('posix_spawnattr_init', undefined, attributes);
    try {
      addDescriptors(library, actions, request.descriptors);
      setAttributes(library, attributes, request.newSession === true);
      const pid = Buffer.alloc(4);
      const { path, args, env } = request;
      library.spawning('posix_spawn', path, pid, path, actions, attributes, terminated(args), terminated(env));
      return pid.readInt32LE(0);
    } finally {
      library.spawning('posix_spawnattr_destroy', undefined, attributes);
      library.spawning('posix_spawn_file_actions_destroy', undefined, actions);
    }
  };
};

/** argv and envp end with a null pointer. */
const terminated = (strings: readonly string[]): readonly (string | null)[] => [...strings, null];

/**
 * Node marks 0 to 2 close-on-exec, so each is given explicitly. Sources are first moved above every target: a dup2 may
 * otherwise overwrite a source that is still needed.
 */
function addDescriptors(library: Library, actions: Buffer, descriptors: SpawnRequest['descriptors']): void {
  const aside = 100 + Math.max(descriptors.length, ...descriptors.map((fd) => (fd === 'null' ? 0 : fd)));
  descriptors.forEach((fd, target) => {
    if (fd !== 'null') library.spawning('posix_spawn_file_actions_adddup2', undefined, actions, fd, aside + target);
  });
  descriptors.forEach((fd, target) => {
    if (fd === 'null') {
      library.spawning('posix_spawn_file_actions_addopen', undefined, actions, target, '/dev/null', O.RDWR, 0);
    } else {
      library.spawning('posix_spawn_file_actions_adddup2', undefined, actions, aside + target, target);
      library.spawning('posix_spawn_file_actions_addclose', undefined, actions, aside + target);
    }
  });
}

function setAttributes(library: Library, attributes: Buffer, newSession: boolean): void {
  const none = Buffer.alloc(SIZES.sigset_t);
  const all = Buffer.alloc(SIZES.sigset_t, 0xff);
  library.spawning('posix_spawnattr_setsigmask', undefined, attributes, none);
  library.spawning('posix_spawnattr_setsigdefault', undefined, attributes, all);
  const flags = POSIX_SPAWN.SETSIGMASK | POSIX_SPAWN.SETSIGDEF | (newSession ? POSIX_SPAWN.SETSID : 0);
  library.spawning('posix_spawnattr_setflags', undefined, attributes, flags);
}
