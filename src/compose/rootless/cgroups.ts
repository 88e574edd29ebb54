import { accessSync, constants, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, RuntimeError } from '../../kit/errors.js';
import { delegatedLayout, findDelegation, type Delegation } from '../../runtime/cgroups/delegation.js';
import type { CgroupLayout } from '../../runtime/cgroups/types.js';

function delegation(): Delegation | undefined {
  const text = (path: string): string => readFileSync(path, 'utf8');
  return findDelegation({
    mountinfo: text('/proc/self/mountinfo'),
    procCgroups: text('/proc/cgroups'),
    ownCgroup: text('/proc/self/cgroup'),
    writable,
  });
}

function writable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** The part of cgroup v2 that is ours; undefined without one. */
export function ownCgroupLayout(): CgroupLayout | undefined {
  const found = delegation();
  return found === undefined ? undefined : delegatedLayout(found);
}

/**
 * Makes room: a cgroup with processes of its own can give its children no controllers. Everything started from here
 * on is out of the way, too.
 */
export function leaveDelegatedRoot(): void {
  const found = delegation();
  if (found?.holdsUs !== true) return;
  const leaf = join(found.root, 'berth-agent');
  try {
    mkdirSync(leaf, { recursive: true });
    writeFileSync(join(leaf, 'cgroup.procs'), `${process.pid}`);
  } catch (error) {
    throw new RuntimeError('denied', `move to cgroup ${leaf}: ${messageOf(error)}`, { cause: error });
  }
}
