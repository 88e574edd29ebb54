import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../../kit/deadline.js';
import { isErrno, RuntimeError } from '../../kit/errors.js';
import type { Observer } from '../../kit/observer.js';
import { normalizePath } from './layout.js';
import type { CgroupResources, Cgroups } from './types.js';

export interface NoCgroupsOptions {
  /** First processes of the running containers whose cgroup would be this one or below it. */
  readonly firstProcesses: (path: string) => readonly { readonly path: string; readonly pid: number }[];
  readonly note: Observer['note'];
  /** Default /proc. */
  readonly procRoot?: string;
}

/**
 * Stands in for cgroups where none is delegated to us. Nothing is limited and nothing counted, which is said when
 * limits are asked for. A container's processes are found by their mount namespace: each container has its own, its
 * processes and whatever joins it are in it, and leaving it takes rights over it that only its own root can have.
 */
export interface NoCgroups extends Cgroups {
  /** Takes down the mount namespaces of running containers, so that what their first process leaves behind is found. */
  learn(): void;
}

const killTimeoutMs = 10_000;

export function openNoCgroups({ firstProcesses, note, procRoot = '/proc' }: NoCgroupsOptions): NoCgroups {
  const own = mountNamespace(procRoot, 'self');
  /** By path. The kernel gives a number again when nobody is in the namespace any more: then it is forgotten here. */
  const namespaces = new Map<string, bigint>();
  const isBelow = (path: string, parent: string): boolean => path === parent || path.startsWith(`${parent}/`);
  const learn = (below: string): void => {
    for (const { path, pid } of firstProcesses(below)) {
      const namespace = mountNamespace(procRoot, `${pid}`);
      if (namespace !== undefined && namespace !== own) namespaces.set(path, namespace);
    }
  };
  const known = (path: string): ReadonlySet<bigint> => {
    learn('/');
    const running = new Set(firstProcesses('/').map((each) => each.path));
    const others = new Set(
      [...namespaces].flatMap(([each, ns]) => (running.has(each) && !isBelow(each, path) ? [ns] : [])),
    );
    return new Set([...namespaces].flatMap(([each, ns]) => (isBelow(each, path) && !others.has(ns) ? [ns] : [])));
  };
  const forgetEnded = (path: string): void => {
    const running = new Set(firstProcesses(path).map((each) => each.path));
    for (const each of namespaces.keys()) if (isBelow(each, path) && !running.has(each)) namespaces.delete(each);
  };
  const pids = (path: string): number[] => {
    const wanted = known(normalizePath(path));
    return wanted.size === 0 ? [] : familyOf(procRoot, wanted);
  };
  const unlimited = (path: string, resources: CgroupResources): void => {
    const names = Object.entries(resources).flatMap(([name, value]) => (isLimit(name, value) ? [name] : []));
    if (names.length > 0) note('warn', `no cgroup is delegated to us: ${names.join(', ')} of ${path} are not applied`);
  };
  return {
    layout: { version: 'v1', v1Roots: new Map() },
    learn: () => learn('/'),
    handle: (path) => ({ path: normalizePath(path), join: { v1Procs: [] } }),
    create: (path, resources) => {
      unlimited(path, resources);
      return Promise.resolve({ path: normalizePath(path), join: { v1Procs: [] } });
    },
    update: (path, resources) => Promise.resolve(unlimited(path, resources)),
    remove(path) {
      forgetEnded(normalizePath(path));
      return Promise.resolve();
    },
    kill: async (path) => {
      await killAll(path, () => pids(path));
      forgetEnded(normalizePath(path));
    },
    freeze: (path) => Promise.resolve(signalAll(pids(path), 'SIGSTOP')),
    thaw: (path) => Promise.resolve(signalAll(pids(path), 'SIGCONT')),
    pids,
    isEmpty: (path) => pids(path).length === 0,
    expectEntry: () => undefined,
    exists: () => false,
    children: () => [],
    stats: () => undefined,
    oomKills: () => 0,
  };
}

/** Device rules come with every container, and need no limit here. */
const isLimit = (name: string, value: unknown): boolean =>
  value !== undefined && value !== 0 && name !== 'deviceRules' && !(Array.isArray(value) && value.length === 0);

/** What is stopped cannot fork away from under us: stop until nobody new is found, then kill, and look again. */
async function killAll(path: string, pids: () => number[]): Promise<void> {
  const end = performance.now() + killTimeoutMs;
  for (let pause = 0; ; pause = Math.min(pause + 1, 10)) {
    for (let seen = -1, found = pids(); found.length !== seen; found = pids()) {
      signalAll(found, 'SIGSTOP');
      seen = found.length;
    }
    const left = pids();
    if (left.length === 0) return;
    signalAll(left, 'SIGKILL');
    if (performance.now() > end) {
      const text = `${left.length} processes are left after ${killTimeoutMs} ms: ${left.slice(0, 10).join(', ')}`;
      throw new RuntimeError('deadline', `kill the processes of ${path}: ${text}`);
    }
    await sleep(pause);
  }
}

function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if (!isErrno(error, 'ESRCH')) throw new RuntimeError('denied', `kill process ${pid}: EPERM`, { cause: error });
    }
  }
}

interface Member {
  readonly pid: number;
  readonly parent: number;
  readonly namespace: bigint | undefined;
}

/** Everybody in one of the mount namespaces, with their descendants wherever those have gone. */
function familyOf(procRoot: string, namespaces: ReadonlySet<bigint>): number[] {
  const members = readMembers(procRoot);
  const family = new Set<number>();
  for (const { pid, namespace } of members) if (namespace !== undefined && namespaces.has(namespace)) family.add(pid);
  for (let before = 0; before !== family.size;) {
    before = family.size;
    for (const { pid, parent } of members) if (family.has(parent)) family.add(pid);
  }
  return [...family].sort((a, b) => a - b);
}

function readMembers(procRoot: string): Member[] {
  return readdirSync(procRoot).flatMap((name) => {
    if (!/^[1-9]\d*$/.test(name)) return [];
    const parent = parentOf(procRoot, name);
    return parent === undefined ? [] : [{ pid: Number(name), parent, namespace: mountNamespace(procRoot, name) }];
  });
}

/** Undefined for one that is gone or a zombie, which nobody needs to kill. */
function parentOf(procRoot: string, pid: string): number | undefined {
  try {
    const stat = readFileSync(join(procRoot, pid, 'stat'), 'latin1');
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return state === 'Z' || state === 'X' ? undefined : Number(parent);
  } catch {
    return undefined;
  }
}

/** Undefined for one that is gone, and for those of other users. */
function mountNamespace(procRoot: string, pid: string): bigint | undefined {
  try {
    return statSync(join(procRoot, pid, 'ns/mnt'), { bigint: true }).ino;
  } catch {
    return undefined;
  }
}
