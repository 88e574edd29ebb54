import { fileCalls, type Files } from './files.js';
import { loadLibrary, type Library } from './library.js';
import { memfdCalls, type Memfds } from './memfd.js';
import { mountCalls, type Mounts } from './mounts.js';
import { processCalls, type Processes } from './processes.js';
import { socketCalls, type Sockets } from './sockets.js';
import { spawnCall, type Spawn } from './spawn.js';

/**
 * The kernel as the agent calls it. Calls whose effect stays with a thread or hits the whole process (setns, unshare,
 * chroot, credentials, seccomp) are missing on purpose: they are steps of a launch plan, run by the shim.
 */
export interface Native {
  readonly mounts: Mounts;
  readonly files: Files;
  readonly sockets: Sockets;
  readonly memfds: Memfds;
  readonly processes: Processes;
  readonly spawn: Spawn;
  /** For the few calls without a wrapper here: bpf(2). */
  readonly library: Library;
}

/** Made once, by the composition root, and passed to whoever needs a part of it. */
export function openNative(): Native {
  const library = loadLibrary();
  return {
    library,
    mounts: mountCalls(library),
    files: fileCalls(library),
    sockets: socketCalls(library),
    memfds: memfdCalls(library),
    processes: processCalls(library),
    spawn: spawnCall(library),
  };
}
