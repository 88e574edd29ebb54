import { RuntimeError } from '../../kit/errors.js';
import type { CgroupLayout, CgroupVersion } from './types.js';

interface CgroupMount {
  readonly mountPoint: string;
  readonly fsType: 'cgroup' | 'cgroup2';
  readonly superOptions: readonly string[];
}

/**
 * Finds the hierarchies below `root` from the text of /proc/self/mountinfo and /proc/cgroups (see proc(5)). Of several
 * mounts of one hierarchy the first counts. Throws `unavailable` when there is none.
 */
export function detectLayout(mountinfo: string, procCgroups: string, root: string): CgroupLayout {
  const mounts = parseMounts(mountinfo).filter((mount) => isBelow(mount.mountPoint, root));
  const v2Root = mounts.find((mount) => mount.fsType === 'cgroup2')?.mountPoint;
  const known = new Set(controllerNames(procCgroups));
  const v1Roots = new Map<string, string>();
  for (const mount of mounts) {
    if (mount.fsType !== 'cgroup') continue;
    for (const option of mount.superOptions) {
      if ((known.has(option) || option.startsWith('name=')) && !v1Roots.has(option)) {
        v1Roots.set(option, mount.mountPoint);
      }
    }
  }
  if (v2Root === undefined && v1Roots.size === 0) {
    throw new RuntimeError('unavailable', `no cgroup hierarchy is mounted at or below ${root}`);
  }
  const version = versionOf(v2Root, v1Roots);
  return { version, v1Roots, ...(v2Root === undefined ? {} : { v2Root }) };
}

/** A v2 mount next to nothing but named v1 hierarchies is still plain v2: those limit nothing. */
function versionOf(v2Root: string | undefined, v1Roots: ReadonlyMap<string, string>): CgroupVersion {
  if (v2Root === undefined) return 'v1';
  return [...v1Roots.keys()].some((name) => !name.startsWith('name=')) ? 'hybrid' : 'v2';
}

function parseMounts(mountinfo: string): CgroupMount[] {
  const mounts: CgroupMount[] = [];
  for (const line of mountinfo.split('\n')) {
    const fields = line.split(' ');
    const dash = fields.indexOf('-', 6);
    const mountPoint = fields[4];
    const fsType = fields[dash + 1];
    if (dash < 0 || mountPoint === undefined || (fsType !== 'cgroup' && fsType !== 'cgroup2')) continue;
    mounts.push({ mountPoint: unescape(mountPoint), fsType, superOptions: (fields[dash + 3] ?? '').split(',') });
  }
  return mounts;
}

/** mountinfo writes space, tab, newline and backslash as three octal digits. */
const unescape = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));

const controllerNames = (procCgroups: string): string[] =>
  procCgroups
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split('\t')[0] ?? '');

const isBelow = (path: string, root: string): boolean =>
  path === root || path.startsWith(root.endsWith('/') ? root : `${root}/`);

/** Distinct v1 mount points (`cpu,cpuacct` is one), in a stable order. */
export const v1Hierarchies = (layout: CgroupLayout): string[] => [...new Set(layout.v1Roots.values())];

/**
 * Checks a cgroupfs-style path and returns it in its one normal form. A path that could leave its hierarchy, or name
 * the hierarchy's root, is refused.
 */
export function normalizePath(path: string): string {
  const parts = path.split('/').filter((part) => part !== '');
  if (!path.startsWith('/') || parts.length === 0) throw badPath(path, 'must be absolute and below the root');
  if (parts.some((part) => part === '.' || part === '..')) throw badPath(path, 'must not contain . or ..');
  // The kernel takes no newline in a cgroup name; NUL would cut the path short.
  if (/[\0\n]/.test(path)) throw badPath(path, 'must not contain NUL or newline');
  return `/${parts.join('/')}`;
}

const badPath = (path: string, why: string): RuntimeError =>
  new RuntimeError('invalid-argument', `cgroup path ${JSON.stringify(path)}: ${why}`);

/** Every ancestor below the root and the path itself, shortest first. */
export function lineage(path: string): string[] {
  const parts = path.split('/').slice(1);
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join('/')}`);
}
