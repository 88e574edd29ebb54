import type { IdMapLine, NamespaceKind, NamespaceSource } from './plan.js';

/** What the compilers must know beyond the OCI spec. Gathered before; nothing is looked up while compiling. */
export interface LaunchFacts {
  readonly rootfs: RootfsFacts;
  /** An existing host directory to attach the root on; seen by nobody but the container's first process. */
  readonly rootOn: string;
  /** Where each namespace comes from; a kind without an entry is `new` when the spec lists it, else the host's. */
  readonly namespaces: Readonly<Partial<Record<NamespaceKind, LaunchNamespace>>>;
  readonly cgroup: CgroupFacts;
  readonly kernel: LaunchKernelFacts;
  /** The compiled program of the spec's `linux.seccomp`; absent: no filter. */
  readonly seccomp?: SeccompFilter;
  /** What binds of these sources are, when they are not what lies at that path of the host. */
  readonly volumes?: ReadonlyMap<string, VolumeFacts>;
  /** Directories that must be in the root before anything is mounted; made when missing. */
  readonly directories?: readonly string[];
  /** How device nodes come to be. `bind` where mknod(2) is refused (user namespaces). Default `mknod`. */
  readonly devices?: 'mknod' | 'bind';
  /** Where on the host a device to be bound is, if not at the path it gets. */
  readonly deviceSources?: ReadonlyMap<string, string>;
}

export type RootfsFacts =
  | {
      readonly kind: 'overlay';
      /** Topmost first. */
      readonly lower: readonly string[];
      readonly upper: string;
      readonly work: string;
      /** No sync on the upper layer: faster, and its content is lost with the host. Default true. */
      readonly volatile?: boolean;
      /** The overlay's own marks are user.overlay.*, as they must be inside a user namespace. Default false. */
      readonly userXattr?: boolean;
      /** The lower layers hold container ids. Default `none`. */
      readonly idmap?: 'none' | 'pod';
      /** The topmost layer has files without data, which is in the layers below. Default false. */
      readonly metacopy?: boolean;
    }
  | {
      readonly kind: 'directory';
      readonly path: string;
      /** The directory holds container ids. Default `none`. */
      readonly idmap?: 'none' | 'pod';
    };

export type VolumeFacts =
  /** An image's layers, topmost first and at least two, read-only; of them what lies at `subPath`, or all for ''. */
  | {
      readonly kind: 'image';
      readonly lower: readonly string[];
      readonly subPath: string;
      /** As of a root. */
      readonly metacopy?: boolean;
      /** As with a root. */
      readonly userXattr?: boolean;
      /** The layers hold container ids. */
      readonly idmap: 'none' | 'pod';
    }
  /** The source is an empty directory of the host that gets what the root has at the destination. */
  | { readonly kind: 'copy-up' };

export type LaunchNamespace = { readonly from: 'new' } | { readonly from: 'host' } | NamespaceSource;

export interface SeccompFilter {
  readonly program: Uint8Array;
  /** SECCOMP_FILTER_FLAG_*. */
  readonly flags: number;
}

/** How to put a process into a cgroup (`CgroupHandle.join`). */
export interface CgroupJoin {
  readonly v2Dir?: string;
  readonly v1Procs: readonly string[];
}

export interface CgroupFacts {
  /** In cgroupfs syntax, relative to the root of each hierarchy. */
  readonly path: string;
  readonly join: CgroupJoin;
  readonly layout: {
    readonly version: 'v1' | 'v2' | 'hybrid';
    readonly v2Root?: string;
    /** Controller to mount point; controllers mounted together share one. */
    readonly v1Roots: ReadonlyMap<string, string>;
  };
}

export interface LaunchKernelFacts {
  readonly lastCapability: number;
  /** Capabilities the shim may hand on, as a bit set. */
  readonly capabilities: bigint;
  /** Without CAP_SYS_RESOURCE hard limits and OOM scores are clamped, with a warning, instead of failing. */
  readonly canRaiseLimits: boolean;
}

/** What a process that joins a running container needs beyond the container's spec. */
export interface ExecFacts {
  /** The id the shim knows the container under. */
  readonly containerId: string;
  readonly args: readonly string[];
  readonly terminal: boolean;
  readonly cgroup: { readonly join: CgroupJoin };
  readonly kernel: LaunchKernelFacts;
  readonly seccomp?: SeccompFilter;
  /** Default: the container's own. */
  readonly env?: readonly Uint8Array[];
  readonly cwd?: string;
}

export interface SandboxPlanOptions {
  /** Namespaces the pod owns and its shim holds. */
  readonly namespaces: readonly NamespaceKind[];
  /** File to bind the network namespace on, where CNI plugins look for it. Used when `net` is owned. */
  readonly netnsPin: string;
  /** '' leaves the name a new UTS namespace starts with. Used when `uts` is owned. */
  readonly hostname: string;
  /** Paths below /proc/sys and values. */
  readonly sysctls: readonly (readonly [string, string])[];
  /** The pod's /dev/shm, held as a detached tmpfs under `name`; with the SELinux label of its files, if any. */
  readonly shm: { readonly name: string; readonly bytes: number; readonly label?: string } | undefined;
  /** Maps of the pod's user namespace, needed when `user` is owned; all its other namespaces belong to that. */
  readonly idMaps?: { readonly uids: readonly IdMapLine[]; readonly gids: readonly IdMapLine[] };
  /** Cgroup of the pause process; needed when `pid` is owned. */
  readonly cgroup: CgroupJoin | undefined;
}
