import { posix } from 'node:path';
import type { CgroupLayout } from './types.js';
import { detectLayout } from './layout.js';

export interface Delegation {
  /** Mount point of the hierarchy with the path of the part that is ours. */
  readonly root: string;
  /** Our own process is in that very cgroup, which can have no controllers for children until it has left. */
  readonly holdsUs: boolean;
}

export interface DelegationFacts {
  /** Texts of /proc/self/mountinfo, /proc/cgroups and /proc/self/cgroup. */
  readonly mountinfo: string;
  readonly procCgroups: string;
  readonly ownCgroup: string;
  /** Whether we may write to a file. */
  readonly writable: (path: string) => boolean;
}

/**
 * The highest cgroup above our process that we may manage: whose processes we may move and whose children may get
 * controllers (kernel Documentation/admin-guide/cgroup-v2, "Delegation"). Undefined without one, and on cgroup v1,
 * where delegation to others than root is not safe.
 */
export function findDelegation(facts: DelegationFacts): Delegation | undefined {
  const layout = layoutOf(facts);
  const own = /^0::(\/.*)$/m.exec(facts.ownCgroup)?.[1];
  if (layout?.version !== 'v2' || layout.v2Root === undefined || own === undefined) return undefined;
  const mine = (path: string): boolean =>
    ['cgroup.procs', 'cgroup.subtree_control'].every((file) =>
      facts.writable(posix.join(layout.v2Root ?? '', path, file)),
    );
  let highest: string | undefined;
  for (let at = own; mine(at); at = posix.dirname(at)) {
    highest = at;
    if (at === '/') break;
  }
  if (highest === undefined) return undefined;
  return { root: highest === '/' ? layout.v2Root : posix.join(layout.v2Root, highest), holdsUs: highest === own };
}

function layoutOf({ mountinfo, procCgroups }: DelegationFacts): CgroupLayout | undefined {
  try {
    return detectLayout(mountinfo, procCgroups, '/sys/fs/cgroup');
  } catch {
    return undefined;
  }
}

/** The hierarchy as the agent sees it: all below the part that is its own. */
export const delegatedLayout = ({ root }: Delegation): CgroupLayout => ({
  version: 'v2',
  v2Root: root,
  v1Roots: new Map(),
});
