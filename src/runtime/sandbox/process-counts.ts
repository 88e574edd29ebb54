import { readFile, readdir, readlink } from 'node:fs/promises';
import type { ProcessCounts } from '../facade.js';

/** Descriptors that are looked at per process; a program with more open is counted, its sockets are not told apart. */
const mostLooked = 4096;

/** What /proc says of processes. Those that end meanwhile count as none. */
export async function countProcesses(pids: readonly number[]): Promise<ProcessCounts> {
  const counts = await Promise.all(pids.map(countOne));
  const sum = (pick: (count: OneProcess) => number): number => counts.reduce((total, one) => total + pick(one), 0);
  return {
    processes: counts.filter(({ threads }) => threads > 0).length,
    threads: sum(({ threads }) => threads),
    descriptors: sum(({ descriptors }) => descriptors),
    sockets: sum(({ sockets }) => sockets),
    limits: pids[0] === undefined ? new Map() : await softLimits(pids[0]),
  };
}

interface OneProcess {
  readonly threads: number;
  readonly descriptors: number;
  readonly sockets: number;
}

async function countOne(pid: number): Promise<OneProcess> {
  try {
    const [threads, descriptors] = await Promise.all([readdir(`/proc/${pid}/task`), readdir(`/proc/${pid}/fd`)]);
    const targets = await Promise.all(
      descriptors.slice(0, mostLooked).map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')),
    );
    const sockets = targets.filter((target) => target.startsWith('socket:')).length;
    return { threads: threads.length, descriptors: descriptors.length, sockets };
  } catch {
    return { threads: 0, descriptors: 0, sockets: 0 };
  }
}

/** Lines like `Max open files            1024                 524288               files`. */
async function softLimits(pid: number): Promise<ReadonlyMap<string, number>> {
  const text = await readFile(`/proc/${pid}/limits`, 'utf8').catch(() => '');
  const limits = new Map<string, number>();
  for (const line of text.split('\n').slice(1)) {
    const [, name, soft] = /^Max (.+?)\s{2,}(\S+)/.exec(line) ?? [];
    if (name === undefined || soft === undefined) continue;
    limits.set(name.toLowerCase(), soft === 'unlimited' ? Infinity : Number(soft));
  }
  return limits;
}
