import { join } from 'node:path';
import { sleep } from '../../kit/deadline.js';
import { RuntimeError, isErrno } from '../../kit/errors.js';
import { cgroupError, isGone, rawWrite, tryReadCgroupFile } from './files.js';
import { pidsIn, trackingRoots } from './tree.js';
import type { CgroupLayout } from './types.js';

const killTimeoutMs = 10_000;
const freezeTimeoutMs = 2_000;

/**
 * Kills until the cgroup is empty. On v2 and hybrid hosts cgroup.kill takes everything at once (kernel 5.14). What is
 * left, or everything on v1, is frozen, killed by pid and thawed, round by round: frozen processes neither fork nor
 * die, so no pid can have been taken over by another process.
 */
export async function killCgroup(layout: CgroupLayout, path: string): Promise<void> {
  const deadline = performance.now() + killTimeoutMs;
  const pids = trackedPids(layout, path);
  refuseSuicide(path, pids);
  // An empty one must not be told: on Linux 6.18 a process cloned into a cgroup that was ever killed is killed too, since
  // clone3(2) takes its notion of the last kill from the cgroup of its parent.
  if (pids.length === 0) return;
  const atOnce = killAtOnce(layout, path);
  if (atOnce && (await emptyWithin(layout, path, deadline, 200))) return;
  while (trackedPids(layout, path).length > 0) {
    if (performance.now() > deadline) throw survivors(layout, path);
    await killRound(layout, path);
    await emptyWithin(layout, path, deadline, 200);
  }
}

function killAtOnce(layout: CgroupLayout, path: string): boolean {
  if (layout.v2Root === undefined) return false;
  const file = join(layout.v2Root, path, 'cgroup.kill');
  try {
    rawWrite(file, '1');
  } catch (error) {
    if (isGone(error)) return false;
    throw cgroupError('write', file, '1', error);
  }
  // A SIGKILL reaches tasks frozen by v2, but those frozen by v1 only once they are thawed.
  thawCgroup(layout, path);
  return true;
}

async function killRound(layout: CgroupLayout, path: string): Promise<void> {
  try {
    // Best effort: processes that cannot be frozen (in the middle of a vfork, say) must still get their signal.
    await freezeCgroup(layout, path).catch(() => undefined);
    for (const pid of trackedPids(layout, path)) signalKill(pid);
  } finally {
    thawCgroup(layout, path);
  }
}

function signalKill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw new RuntimeError('denied', `kill process ${pid}: EPERM`, { cause: error });
  }
}

function refuseSuicide(path: string, pids: readonly number[]): void {
  if (pids.includes(process.pid)) throw new RuntimeError('denied', `kill cgroup ${path}: this very process is in it`);
}

export const trackedPids = (layout: CgroupLayout, path: string, recursive = true): number[] => [
  ...new Set(trackingRoots(layout).flatMap((root) => pidsIn(join(root, path), recursive))),
];

/** Polls with growing pauses: death takes tens of microseconds as a rule and the exit of a large process longer. */
async function emptyWithin(layout: CgroupLayout, path: string, deadline: number, ms: number): Promise<boolean> {
  const end = Math.min(deadline, performance.now() + ms);
  for (let pause = 0; trackedPids(layout, path).length > 0; pause = Math.min(pause + 1, 10)) {
    if (performance.now() > end) return false;
    await (pause === 0 ? new Promise(setImmediate) : sleep(pause));
  }
  return true;
}

function survivors(layout: CgroupLayout, path: string): RuntimeError {
  const pids = trackedPids(layout, path);
  const message = `kill cgroup ${path}: ${pids.length} processes are left after ${killTimeoutMs} ms: ${pids.slice(0, 10).join(', ')}`;
  return new RuntimeError('deadline', message, { facts: { path, pids: pids.length } });
}

/** Resolves once every task is stopped. On failure the cgroup is thawed again: half frozen is the worst of states. */
export async function freezeCgroup(layout: CgroupLayout, path: string): Promise<void> {
  const v2 = layout.v2Root === undefined ? undefined : join(layout.v2Root, path);
  const v1 = layout.v1Roots.get('freezer');
  try {
    if (v2 !== undefined && tryWrite(join(v2, 'cgroup.freeze'), '1')) return await frozenV2(v2);
    if (v1 === undefined) throw new RuntimeError('unavailable', `freeze cgroup ${path}: no freezer on this host`);
    await freezeV1(join(v1, path));
  } catch (error) {
    thawCgroup(layout, path);
    throw error;
  }
}

/** Never throws: it runs while other errors are on their way. A cgroup that is gone needs no thawing. */
export function thawCgroup(layout: CgroupLayout, path: string): void {
  const v1 = layout.v1Roots.get('freezer');
  const files = [
    ...(layout.v2Root === undefined ? [] : [{ file: join(layout.v2Root, path, 'cgroup.freeze'), value: '0' }]),
    ...(v1 === undefined ? [] : [{ file: join(v1, path, 'freezer.state'), value: 'THAWED' }]),
  ];
  for (const { file, value } of files) {
    try {
      rawWrite(file, value);
    } catch {
      continue;
    }
  }
}

function tryWrite(file: string, value: string): boolean {
  try {
    rawWrite(file, value);
    return true;
  } catch (error) {
    if (isGone(error)) return false;
    throw cgroupError('write', file, value, error);
  }
}

async function frozenV2(dir: string): Promise<void> {
  const file = join(dir, 'cgroup.events');
  await poll(dir, () => /^frozen 1$/m.test(tryReadCgroupFile(file) ?? 'frozen 1'));
}

/** The v1 freezer may stay at FREEZING for ever when it met a fork; writing again gathers the newcomers. */
async function freezeV1(dir: string): Promise<void> {
  const file = join(dir, 'freezer.state');
  if (!tryWrite(file, 'FROZEN')) throw new RuntimeError('not-found', `freeze cgroup ${dir}: ENOENT`);
  await poll(
    dir,
    () => (tryReadCgroupFile(file) ?? 'FROZEN').startsWith('FROZEN') || (tryWrite(file, 'FROZEN'), false),
  );
}

async function poll(dir: string, done: () => boolean): Promise<void> {
  const end = performance.now() + freezeTimeoutMs;
  for (let pause = 0; !done(); pause = Math.min(pause + 1, 10)) {
    if (performance.now() > end) {
      throw new RuntimeError('unavailable', `freeze cgroup ${dir}: not frozen after ${freezeTimeoutMs} ms`);
    }
    await (pause === 0 ? new Promise(setImmediate) : sleep(pause));
  }
}
