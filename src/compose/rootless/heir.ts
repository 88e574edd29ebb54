import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Keeper } from '../../native/kept-namespaces.js';
import type { Processes } from '../../native/processes.js';

/**
 * A shim that still runs in namespaces whose keeper was killed: what has become of its pod can only be managed from
 * there. Undefined when no pod runs, or when we are in its user namespace already.
 */
export function findHeir(state: string, processes: Processes): Keeper | undefined {
  for (const name of readdirSync('/proc').filter((each) => /^\d+$/.test(each))) {
    const pid = Number(name);
    if (!servesPodOf(pid, state) || !isElsewhere(pid)) continue;
    const startTime = processes.startTime(pid);
    if (startTime !== undefined) return { pid, startTime };
  }
  return undefined;
}

/** By its command line, which names the pod's directory. */
function servesPodOf(pid: number, state: string): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return words[0] === 'berth-shim' && (words[words.indexOf('--dir') + 1] ?? '').startsWith(join(state, 'pods/'));
  } catch {
    return false;
  }
}

/** False also for a process that is not ours to look at. */
function isElsewhere(pid: number): boolean {
  const of = (which: string): bigint => statSync(`/proc/${which}/ns/user`, { bigint: true }).ino;
  try {
    return of(`${pid}`) !== of('self');
  } catch {
    return false;
  }
}
