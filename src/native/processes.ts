import { readFileSync } from 'node:fs';
import { isErrno } from '../kit/errors.js';
import { Descriptor } from './descriptor.js';
import type { Library } from './library.js';

/** Processes by number and by descriptor. */
export interface Processes {
  /** A pidfd, or undefined when no such process exists. */
  open(pid: number): Descriptor | undefined;
  /** False when the process has ended. */
  signalFd(pidfd: number, signal: number): boolean;
  /** kill(2), negative pids for groups; false when nothing of that number exists. */
  kill(pid: number, signal: number): boolean;
  /** Field 22 of /proc/PID/stat, clock ticks since boot; undefined when no such process exists. */
  startTime(pid: number): bigint | undefined;
  /** Whether the process with this start time still runs. A zombie, however long its parent leaves it, does not. */
  isRunning(pid: number, startTime: bigint): boolean;
  /** Reaps a child of this process that was made by `spawn`; undefined while it runs, its wait status otherwise. */
  reap(pid: number): number | undefined;
}

const WNOHANG = 1;

/** Field 22 of the text of /proc/PID/stat. The name in field 2 may hold spaces and parentheses. */
export function parseStartTime(stat: string): bigint {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return BigInt(fields[19] ?? '0');
}

/** Field 3: Z and X are processes that have ended. */
const hasEnded = (stat: string): boolean => /^[ZX]$/.test(stat.charAt(stat.lastIndexOf(')') + 2));

function gone<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (isErrno(error, 'ESRCH') || isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

export function processCalls(library: Library): Processes {
  return {
    open: (pid) => gone(() => new Descriptor(library, library.now('pidfd_open', `pid ${pid}`, pid, 0))),
    signalFd: (pidfd, signal) =>
      gone(() => library.now('pidfd_send_signal', undefined, pidfd, signal, null, 0)) !== undefined,
    kill: (pid, signal) => gone(() => library.now('kill', `pid ${pid}`, pid, signal)) !== undefined,
    startTime: (pid) => gone(() => parseStartTime(readFileSync(`/proc/${pid}/stat`, 'latin1'))),
    isRunning(pid, startTime) {
      const stat = gone(() => readFileSync(`/proc/${pid}/stat`, 'latin1'));
      return stat !== undefined && parseStartTime(stat) === startTime && !hasEnded(stat);
    },
    reap(pid) {
      const status = Buffer.alloc(4);
      return library.now('waitpid', `pid ${pid}`, pid, status, WNOHANG) === 0 ? undefined : status.readInt32LE(0);
    },
  };
}
