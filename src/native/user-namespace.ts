import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { AT, O } from './constants.js';
import type { Descriptor } from './descriptor.js';
import type { Native } from './native.js';

/**
 * A user namespace with one line, `0 hostId size`, for both kinds of ids, that lives as long as its descriptor. Made by
 * a short-lived process (`program --user-namespace`); takes about 2 ms, to be paid once. Throws what the kernel says.
 */
export function openUserNamespace(
  native: Pick<Native, 'files' | 'spawn' | 'processes'>,
  program: string,
  map: { readonly hostId: number; readonly size: number },
): Descriptor {
  const { files, spawn, processes } = native;
  const input = files.pipe();
  const output = files.pipe();
  using _write = input.write;
  using outputRead = output.read;
  const pid = startHelper();
  try {
    if (files.read(outputRead.fd, Buffer.alloc(1)) !== 1) throw new Error('user namespaces are refused here');
    for (const file of ['uid_map', 'gid_map']) writeFileSync(`/proc/${pid}/${file}`, `0 ${map.hostId} ${map.size}\n`);
    return files.openAt(AT.FDCWD, `/proc/${pid}/ns/user`, O.RDONLY);
  } finally {
    processes.kill(pid, SIGKILL);
    void buried(pid, native);
  }

  function startHelper(): number {
    using inputRead = input.read;
    using outputWrite = output.write;
    const descriptors = [inputRead.fd, outputWrite.fd, 'null' as const];
    return spawn({ path: program, args: ['berth-shim', '--user-namespace'], env: [], descriptors });
  }
}

const SIGKILL = 9;

/** Reaps a child that ends soon; libuv does not know it. */
export async function buried(pid: number, { processes }: Pick<Native, 'processes'>): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    try {
      if (processes.reap(pid) !== undefined) return;
    } catch {
      return;
    }
    await sleep(5);
  }
}
