/**
 * The launch plan: a flat list of primitive steps that the shim executes in order and knows nothing about.
 *
 * The *outer* part runs in the shim, on the host's side: it opens what the child will need into numbered slots
 * (descriptors) and ends by cloning the child. The *inner* part runs in the child, in its new namespaces, and ends in
 * `exec`, `pause` or `hold`. Every string is resolved, every flag is a number, every order is final: the shim makes no
 * decision. A failure is (step index, errno), turned into words by `describe()` of the step table in `explain.ts`.
 *
 * ```
 *   outer: overlay #0 · bind-source #1 /var/lib/kubelet/… · enter pod net,ipc,uts · clone newns,newpid
 *   inner: propagation rslave · attach-root #0 · mount proc /proc · attach #1 /etc/hosts · … · pivot · user · exec
 * ```
 */

/** Index into the shim's descriptor table for this launch, 0 to 255. */
export type Slot = number;

export type NamespaceKind = 'pid' | 'net' | 'ipc' | 'uts' | 'mnt' | 'user' | 'cgroup' | 'time';

/** Where a namespace to enter comes from. */
export type NamespaceSource =
  /** Held by the shim since it executed the pod's sandbox plan. */
  | { readonly from: 'pod' }
  /** The namespace of a container's first process, by the id the shim knows it under. */
  | { readonly from: 'container'; readonly id: string }
  /** A file checked with fstatfs (nsfs) and NS_GET_NSTYPE after opening. */
  | { readonly from: 'path'; readonly path: string };

export interface IdMapLine {
  readonly inside: number;
  readonly outside: number;
  readonly count: number;
}

/** MOUNT_ATTR_* words for mount_setattr(2); `clear` first, then `set`. `propagation` is an MS_* propagation word or 0. */
export interface MountAttributes {
  readonly set: number;
  readonly clear: number;
  readonly propagation: number;
  readonly recursive: boolean;
}

/** Options of fsconfig(2); a flag has no value. */
export interface FsOption {
  readonly key: string;
  readonly value?: string;
}

export type OuterStep =
  /**
   * A detached overlay. `lower` is topmost first. Uses lowerdir+ by descriptor where the kernel has it (6.13), by
   * string (6.5), and before that mount(2) in a private mount namespace followed by open_tree(OPEN_TREE_CLONE).
   * With `idmapUserns` the lower layers are idmapped to that namespace first.
   */
  | {
      readonly op: 'overlay';
      readonly slot: Slot;
      readonly lower: readonly string[];
      readonly upper: string;
      readonly work: string;
      readonly options: readonly FsOption[];
      readonly idmap: 'none' | 'pod';
    }
  /**
   * open_tree(OPEN_TREE_CLONE) of a host path, then mount_setattr. `recursive` takes the mounts below too,
   * `attributes.recursive` changes them too. `create` makes a missing source directory (0755).
   */
  | {
      readonly op: 'bind-source';
      readonly slot: Slot;
      readonly path: string;
      readonly recursive: boolean;
      readonly attributes: MountAttributes;
      readonly idmap: 'none' | 'pod' | { readonly uids: readonly IdMapLine[]; readonly gids: readonly IdMapLine[] };
      /** The mounts below are idmapped too; else they show the host's ids. */
      readonly idmapRecursive?: boolean;
      /** What the user calls this mount, for messages. */
      readonly name: string;
      readonly create?: boolean;
    }
  /**
   * A detached overlay of an image's layers without an upper one, so that nobody can ever write to it; `lower` is topmost
   * first and at least two. With a `subPath` only the directory or file there, resolved as in a root of its own.
   */
  | {
      readonly op: 'image-source';
      readonly slot: Slot;
      readonly lower: readonly string[];
      /** Absolute inside the image; '' for all of it. */
      readonly subPath: string;
      readonly options: readonly FsOption[];
      readonly attributes: MountAttributes;
      readonly idmap: 'none' | 'pod';
      /** What the user calls this mount, for messages. */
      readonly name: string;
    }
  /**
   * Sets attributes of the slot's topmost mount, then locks all of it for the pod's user namespace, whose root can then
   * neither make writable what is read-only nor uncover what mounts below hide (mount_namespaces(7), "Restrictions").
   */
  | {
      readonly op: 'lock-source';
      readonly slot: Slot;
      readonly attributes: MountAttributes;
      /** What the user calls this mount, for messages. */
      readonly name: string;
    }
  /** A detached tmpfs, proc, sysfs… that the host's root must make (fsopen, fsconfig, fsmount). */
  | {
      readonly op: 'fs-source';
      readonly slot: Slot;
      readonly fstype: string;
      readonly source: string;
      readonly options: readonly FsOption[];
      readonly attributes: number;
    }
  /**
   * Sandbox plans only: the slot's detached mount is kept by the shim for the pod's life under `name` (the pod's
   * /dev/shm), without growing the host's mount table.
   */
  | { readonly op: 'hold-mount'; readonly slot: Slot; readonly name: string }
  /**
   * A clone of a mount the shim holds. Cloned from the descriptor where the kernel allows it (6.15), before that by way
   * of a mount namespace of the pod's in which the mount is attached.
   */
  | { readonly op: 'held-source'; readonly slot: Slot; readonly name: string; readonly attributes: MountAttributes }
  /** Opens a host file or directory (O_PATH or with `flags`) into a slot. */
  | { readonly op: 'open'; readonly slot: Slot; readonly path: string; readonly flags: number }
  /** Which existing namespaces the child joins. PID is entered before the clone; user is joined last. */
  | { readonly op: 'enter'; readonly kind: NamespaceKind; readonly source: NamespaceSource }
  /**
   * Creates the child in the given new namespaces. With id maps, the maps are written before the child proceeds.
   * Namespaces that must belong to the user namespace are made by a second clone inside it; the shim stays the parent.
   */
  | {
      readonly op: 'clone';
      readonly create: readonly NamespaceKind[];
      readonly uidMap: readonly IdMapLine[];
      readonly gidMap: readonly IdMapLine[];
      /** v2 directory for CLONE_INTO_CGROUP, '' without. */
      readonly cgroupDir: string;
      /** cgroup.procs files (v1, hybrid) the child is written to before its last step. */
      readonly cgroupProcs: readonly string[];
    }
  /** Sandbox plans only: the shim keeps these namespaces of the child open for the pod's life. */
  | { readonly op: 'hold-namespaces'; readonly kinds: readonly NamespaceKind[] }
  /** Sandbox plans only: binds a held namespace to a file, made 0444 when missing. */
  | { readonly op: 'pin-namespace'; readonly kind: NamespaceKind; readonly path: string };

export type InnerStep =
  /** mount(NULL, "/", flags): MS_REC with MS_PRIVATE, MS_SLAVE or MS_SHARED. */
  | { readonly op: 'propagation'; readonly flags: number }
  /**
   * Attaches the slot as the future root on an existing host directory; later targets resolve beneath it. A shared
   * propagation cannot be set before the pivot: a `propagation` step after it does that.
   */
  | { readonly op: 'attach-root'; readonly slot: Slot; readonly on: string; readonly propagation: number }
  /**
   * move_mount of a slot to a target beneath the root; a missing target is made, as directory or empty file. `copyUp`
   * first copies what the target holds into the slot's mount, with the target's own owner and mode.
   */
  | {
      readonly op: 'attach';
      readonly slot: Slot;
      readonly target: string;
      readonly kind: 'dir' | 'file' | 'auto';
      readonly copyUp?: boolean;
    }
  /** fsopen, fsconfig, fsmount, move_mount inside the new namespaces. `copyUp` first copies what the target holds. */
  | {
      readonly op: 'mount';
      readonly fstype: string;
      readonly source: string;
      readonly target: string;
      readonly options: readonly FsOption[];
      readonly attributes: number;
      readonly propagation: number;
      readonly copyUp: boolean;
    }
  /** Recursive bind of a path that lies inside the new root onto another (cgroup v1 views, /dev/console). */
  | {
      readonly op: 'bind-inside';
      readonly source: string;
      readonly target: string;
      readonly attributes: MountAttributes;
    }
  /** mount_setattr on what is mounted at a target. */
  | { readonly op: 'set-attributes'; readonly target: string; readonly attributes: MountAttributes }
  | { readonly op: 'mkdir'; readonly target: string; readonly mode: number }
  | { readonly op: 'symlink'; readonly link: string; readonly target: string }
  /** mknod, or a bind of the host's node from `slot` where mknod is not allowed (slot -1: mknod only). */
  | {
      readonly op: 'device';
      readonly target: string;
      readonly type: 'c' | 'b' | 'p';
      readonly major: number;
      readonly minor: number;
      readonly mode: number;
      readonly uid: number;
      readonly gid: number;
      readonly slot: Slot | -1;
    }
  /** Hides a file behind a verified null device, a directory behind an empty read-only tmpfs. Missing is fine. */
  | { readonly op: 'mask'; readonly target: string }
  /** Recursive read-only over what is there. Missing is fine. */
  | { readonly op: 'readonly-path'; readonly target: string }
  | { readonly op: 'pivot' }
  | { readonly op: 'root-readonly' }
  | { readonly op: 'hostname'; readonly name: string }
  | { readonly op: 'domainname'; readonly name: string }
  /** Written through a procfs of its own (fsopen), never through a path of the container. `name` uses slashes. */
  | { readonly op: 'sysctl'; readonly name: string; readonly value: string }
  /** Brings up lo in the current network namespace. */
  | { readonly op: 'loopback' }
  /** `clamp`: where raising the hard limit is not allowed, keeps it and reports a warning instead of failing. */
  | {
      readonly op: 'rlimit';
      readonly resource: number;
      readonly soft: bigint;
      readonly hard: bigint;
      readonly clamp?: boolean;
    }
  /** `clamp`: lowering without CAP_SYS_RESOURCE keeps what is in force and reports a warning instead of failing. */
  | { readonly op: 'oom-score'; readonly value: number; readonly clamp: boolean }
  | { readonly op: 'umask'; readonly mask: number }
  | { readonly op: 'session-keyring'; readonly name: string }
  /** setsid; with a terminal: the pty slave from the shim becomes the controlling terminal and /dev/console. */
  | { readonly op: 'session'; readonly terminal: boolean; readonly console: boolean }
  /**
   * Gives pipes and sockets to the user. `outside` is the host's id for `uid`: what the shim made belongs to an id that a
   * user namespace does not know, so it is given away before that is joined.
   */
  | { readonly op: 'chown-stdio'; readonly uid: number; readonly gid: number; readonly outside?: number }
  | { readonly op: 'user'; readonly uid: number; readonly gid: number; readonly groups: readonly number[] }
  | {
      readonly op: 'capabilities';
      readonly bounding: bigint;
      readonly permitted: bigint;
      readonly effective: bigint;
      readonly inheritable: bigint;
      readonly ambient: bigint;
    }
  | { readonly op: 'no-new-privileges' }
  /** Refused when the directory found is not beneath the root (CVE-2024-21626). `create`: makes it when missing. */
  | { readonly op: 'cwd'; readonly path: string; readonly create: boolean }
  | { readonly op: 'apparmor'; readonly profile: string }
  | { readonly op: 'selinux'; readonly label: string }
  /** A classic BPF program, sock_filter records of 8 bytes. `flags` are SECCOMP_FILTER_FLAG_*. */
  | { readonly op: 'seccomp'; readonly program: Uint8Array; readonly flags: number }
  /** Joins the cgroup namespace after the cgroup has been entered. */
  | { readonly op: 'unshare-cgroup' }
  /** Enters the mount (and root) of a container for exec: setns(mnt), chdir("/"). Join plans only. */
  | { readonly op: 'enter-mount'; readonly source: NamespaceSource }
  /** Closes every descriptor above stderr, waits for the cgroup gate, then execve; PATH is searched in `env`. */
  | { readonly op: 'exec'; readonly args: readonly string[]; readonly env: readonly Uint8Array[] }
  /** PID 1 of a pod: reaps until told to end. */
  | { readonly op: 'pause' }
  /** Waits until the shim has taken the namespaces, then exits 0. */
  | { readonly op: 'hold' };

export interface LaunchPlan {
  readonly kind: 'sandbox' | 'container' | 'join';
  readonly outer: readonly OuterStep[];
  readonly inner: readonly InnerStep[];
}
