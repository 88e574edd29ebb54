import type { MountEntry } from '../../kit/mount-table.js';

/** What `criu dump` must be told of a container. */
export interface DumpFacts {
  /** Of the container's first process, in the agent's PID namespace. */
  readonly pid: number;
  /** Directory of the cgroup whose freezer holds the container. */
  readonly freezerDir: string;
  /** Inode numbers of the namespaces that are the pod's and not the container's own. */
  readonly sharedNamespaces: { readonly net?: number; readonly pid?: number };
  /** The container's mount table. */
  readonly mounts: readonly MountEntry[];
  /** `major:minor` of every file system mounted outside the container. */
  readonly outsideDevices: ReadonlySet<string>;
  /** Files that were opened before the container had its own mounts: mount and inode numbers. */
  readonly outsideFiles: readonly { readonly mountId: number; readonly inode: number }[];
  /** Of the terminal the container's first process has, if any: numbers of the device and of its file system. */
  readonly terminal?: { readonly rdev: number; readonly dev: number };
}

/**
 * Options as the other runtimes use them, so that their tools can read the images. What belongs to the pod or the host
 * is named to CRIU as external: a restore puts something else in its place, under the same name.
 */
export function dumpArguments(facts: DumpFacts): string[] {
  const { net, pid } = facts.sharedNamespaces;
  const external = [
    ...(net === undefined ? [] : [`net[${net}]:extRootNetNS`]),
    ...(pid === undefined ? [] : [`pid[${pid}]:extRootPidNS`]),
    ...externalMounts(facts).map((point) => `mnt[${point}]:${point}`),
    ...facts.outsideFiles.map(({ mountId, inode }) => `file[${mountId.toString(16)}:${inode.toString(16)}]`),
    ...(facts.terminal === undefined
      ? []
      : [`tty[${facts.terminal.rdev.toString(16)}:${facts.terminal.dev.toString(16)}]`]),
  ];
  return [
    '--tree',
    String(facts.pid),
    '--leave-running',
    '--manage-cgroups=ignore',
    '--freeze-cgroup',
    facts.freezerDir,
    '--tcp-established',
    '--ext-unix-sk',
    '--file-locks',
    '--link-remap',
    ...external.flatMap((what) => ['--external', what]),
  ];
}

/** Those a restore finds in place again: cgroups, and what is also mounted outside or is a part of something. */
function externalMounts({ mounts, outsideDevices }: DumpFacts): string[] {
  const points = mounts.filter((mount) => mount.point !== '/' && isExternal(mount, outsideDevices));
  return [...new Set(points.map(({ point }) => point))];
}

function isExternal({ fstype, root, device }: MountEntry, outsideDevices: ReadonlySet<string>): boolean {
  switch (fstype) {
    // The kernel makes them for the container's namespaces, even where the host has the same one.
    case 'proc':
    case 'sysfs':
    case 'mqueue':
      return false;
    case 'cgroup':
    case 'cgroup2':
    case 'overlay': // an image as a volume: the only overlay CRIU knows is the root
      return true;
    // /dev/console is a terminal bound over a file: its other end is held outside.
    case 'devpts':
      return root !== '/' && root !== '/ptmx';
    default:
      return outsideDevices.has(device);
  }
}
