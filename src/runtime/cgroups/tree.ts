import { mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { sleep } from '../../kit/deadline.js';
import { RuntimeError, isErrno } from '../../kit/errors.js';
import { cgroupError, isGone, readCgroupFile, tryReadCgroupFile, writeCgroupFile } from './files.js';
import { lineage, v1Hierarchies } from './layout.js';
import type { CgroupLayout } from './types.js';

/** Every hierarchy's root directory. */
export const hierarchyRoots = (layout: CgroupLayout): string[] => [
  ...new Set([...v1Hierarchies(layout), ...(layout.v2Root === undefined ? [] : [layout.v2Root])]),
];

/** Hierarchies by which processes are found: the v2 one, and on v1 the one that can freeze. */
export function trackingRoots(layout: CgroupLayout): string[] {
  const v1 = layout.v1Roots.get('freezer') ?? layout.v1Roots.get('pids') ?? v1Hierarchies(layout)[0];
  const all = layout.version === 'v2' ? [layout.v2Root] : [layout.v2Root, v1];
  return all.filter((root) => root !== undefined);
}

/** Makes the cgroup everywhere; `made` receives the directories that were not there, parents first. */
export function makeTree(layout: CgroupLayout, path: string, needed: ReadonlySet<string>, made: string[]): void {
  for (const root of hierarchyRoots(layout)) {
    makePath(root, path, made);
  }
  const cpuset = layout.v1Roots.get('cpuset');
  if (cpuset !== undefined) seedCpuset(cpuset, join(cpuset, path));
  if (layout.version === 'v2' && layout.v2Root !== undefined) {
    enableControllers(layout.v2Root, dirname(path), new Set([...wantedControllers, ...needed]), needed);
  }
}

/** The usual case is that only the last directory is missing, so it is tried before walking from the top. */
function makePath(root: string, path: string, made: string[]): void {
  try {
    makeDir(join(root, path), made);
  } catch (error) {
    if (!isErrno((error as Error).cause, 'ENOENT')) throw error;
    for (const step of lineage(path)) makeDir(join(root, step), made);
  }
}

function makeDir(dir: string, made: string[]): void {
  try {
    mkdirSync(dir, 0o755);
    made.push(dir);
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw cgroupError('create cgroup', dir, undefined, error);
  }
}

/** A v1 cpuset starts empty and takes no process (ENOSPC) before it has cpus and mems. */
function seedCpuset(root: string, dir: string): void {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) seedFile(root, dir, file);
}

function seedFile(root: string, dir: string, file: string): string {
  const own = readCgroupFile(join(dir, file)).trim();
  if (own !== '' || dir === root) return own;
  const inherited = seedFile(root, dirname(dir), file);
  writeCgroupFile(join(dir, file), inherited);
  return inherited;
}

/** Limits and statistics of every container use these; a host that lacks one only lacks that. */
const wantedControllers = ['cpu', 'memory', 'pids', 'io', 'cpuset', 'hugetlb'] as const;

/**
 * Switches controllers on for the children of `parent`. An ancestor is only touched when the controllers do not reach
 * `parent` yet. A needed controller that cannot be had is an error, a merely wanted one is left out.
 */
export function enableControllers(
  root: string,
  parent: string,
  wanted: ReadonlySet<string>,
  needed: ReadonlySet<string>,
): void {
  const dir = join(root, parent);
  const enabled = words(join(dir, 'cgroup.subtree_control'));
  const missing = [...wanted].filter((name) => !enabled.has(name));
  if (missing.length === 0) return;
  let available = words(join(dir, 'cgroup.controllers'));
  if (parent !== '/' && missing.some((name) => !available.has(name))) {
    enableControllers(root, dirname(parent), new Set(missing), needed);
    available = words(join(dir, 'cgroup.controllers'));
  }
  const offered = missing.filter((name) => available.has(name));
  if (offered.length > 0) switchOn(join(dir, 'cgroup.subtree_control'), offered, needed);
}

const words = (file: string): Set<string> => new Set(readCgroupFile(file).split(/\s+/).filter(Boolean));

/** All in one write, which is all or nothing in the kernel; else one by one, so that one refusal costs one. */
function switchOn(file: string, names: readonly string[], needed: ReadonlySet<string>): void {
  try {
    return writeCgroupFile(file, names.map((name) => `+${name}`).join(' '));
  } catch (error) {
    if (names.length === 1 && needed.has(names[0] ?? '')) throw error;
  }
  if (names.length === 1) return;
  for (const name of names) switchOn(file, [name], needed);
}

/** Removes the cgroup and what is below it in one hierarchy. Already gone is success. */
export async function removeDir(dir: string, tries = 40): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return rmdirSync(dir);
    } catch (error) {
      if (isGone(error)) return;
      if (!isErrno(error, 'EBUSY')) throw cgroupError('remove cgroup', dir, undefined, error);
    }
    for (const child of childNames(dir)) await removeDir(join(dir, child), tries);
    // EBUSY without children: a process is still there, or the kernel has not yet finished with one that died.
    if (attempt > 0) await sleep(Math.min(attempt, 50));
    if (attempt >= tries) throw busy(dir);
  }
}

function busy(dir: string): RuntimeError {
  const pids = (tryReadCgroupFile(join(dir, 'cgroup.procs')) ?? '').trim().split('\n').filter(Boolean);
  const holding = pids.length === 0 ? 'EBUSY' : `it holds the processes ${pids.slice(0, 10).join(', ')}`;
  return new RuntimeError('wrong-state', `remove cgroup ${dir}: ${holding}`, { facts: { dir, pids: pids.length } });
}

export function childNames(dir: string): string[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (error) {
    if (isGone(error)) return [];
    throw cgroupError('list cgroup', dir, undefined, error);
  }
}

/** Process ids of one hierarchy's cgroup; 0, a process of a foreign PID namespace, is left out. */
export function pidsIn(dir: string, recursive: boolean): number[] {
  const own = (tryReadCgroupFile(join(dir, 'cgroup.procs')) ?? '')
    .split('\n')
    .map(Number)
    .filter((pid) => pid > 0);
  if (!recursive) return own;
  return [...own, ...childNames(dir).flatMap((child) => pidsIn(join(dir, child), true))];
}
