import type { LinuxResources } from '../model.js';
import type { CgroupStats } from '../usage.js';

export type {
  CgroupStats,
  CpuStats,
  HugetlbStats,
  IoDeviceStats,
  IoStats,
  MemoryStats,
  PidsStats,
  PsiLine,
  PsiStats,
} from '../usage.js';

/**
 * Cgroups as the rest of the runtime sees them, the same for v1, v2 and hybrid hosts.
 *
 * A path is always in cgroupfs syntax and relative to the root of the hierarchy: `/kubepods/burstable/podX/c1`. One
 * path stands for one cgroup in every hierarchy the host has. A container's life:
 *
 * ```ts
 * const cgroups = openCgroups({ bpf });
 * const { join } = await cgroups.create('/kubepods/podX/c1', { memoryLimit: 64 << 20, deviceRules });
 * // the shim writes its child's pid to every file of join.v1Procs, or clones into join.v2Dir
 * await cgroups.update('/kubepods/podX/c1', { memoryLimit: 128 << 20 });
 * cgroups.stats('/kubepods/podX/c1');
 * await cgroups.kill('/kubepods/podX/c1');     // returns when no process is left
 * await cgroups.remove('/kubepods/podX/c1');   // children first; already gone is success
 * ```
 *
 * Create, kill and remove may be repeated. Errors are RuntimeErrors whose message names the file, the value and errno.
 */
export interface Cgroups {
  readonly layout: CgroupLayout;
  /** Makes the cgroup and its parents, then applies `resources`. A cgroup it made is removed again on failure. */
  create(path: string, resources: CgroupResources): Promise<CgroupHandle>;
  /** How to put a process into an existing cgroup; pure computation, nothing is checked. */
  handle(path: string): CgroupHandle;
  /**
   * Says that a process will soon enter a cgroup. On v1 the first entry after a quiet while waits 8 to 15 ms for an RCU
   * grace period of the whole machine, the next ones within some 20 ms do not: writing `pid` to the cgroup `path` it is
   * in already moves nothing and has the wait over with. Returns at once; nothing on v2.
   */
  expectEntry(path: string, pid: number): void;
  /** All or nothing: values written before a failure are put back. Absent fields keep what is in force. */
  update(path: string, resources: CgroupResources): Promise<void>;
  /** Removes the cgroup and every cgroup below it. It must hold no process; `wrong-state` when it still does. */
  remove(path: string): Promise<void>;
  /** SIGKILLs every process of the cgroup and below, also ones forking meanwhile; returns when all are gone. */
  kill(path: string): Promise<void>;
  /** Stops all tasks; returns when the kernel reports the cgroup frozen. A freeze that fails is thawed again. */
  freeze(path: string): Promise<void>;
  thaw(path: string): Promise<void>;
  /** Process ids in the cgroup and, unless told otherwise, below it. Empty when the cgroup does not exist. */
  pids(path: string, options?: { readonly recursive?: boolean }): number[];
  /** True when neither the cgroup nor any below holds a process, or when it does not exist. */
  isEmpty(path: string): boolean;
  exists(path: string): boolean;
  /** Names of the cgroups directly below, of all hierarchies together. */
  children(path: string): string[];
  /**
   * Undefined when the cgroup does not exist. The files stay open until the cgroup is removed through here, or nobody
   * has asked for some minutes.
   */
  stats(path: string, options?: StatsOptions): CgroupStats | undefined;
  /** Processes the kernel's OOM killer took in this cgroup or below since it was made; 0 when it does not exist. */
  oomKills(path: string): number;
}

export interface StatsOptions {
  /** Everything; costs about three times as much. See CgroupStats. */
  readonly detail?: boolean;
  /** Nanoseconds since the epoch that the answer is to bear; default now. For what is read together. */
  readonly timestamp?: bigint;
}

/** Resources of one cgroup. `deviceRules` absent: devices are left as they are (v1: the parent's, v2: all). */
export interface CgroupResources extends LinuxResources {
  readonly deviceRules?: readonly DeviceRule[];
}

/**
 * One line of the OCI device list (runtime-spec, "Allowed Device list"). Rules apply in order, the last that matches
 * decides; what no rule matches is denied. Absent `major` or `minor` matches every number.
 */
export interface DeviceRule {
  readonly allow: boolean;
  /** `a` is every device: its numbers and access are ignored, as the kernel's v1 controller does. */
  readonly type: 'a' | 'b' | 'c';
  readonly major?: number;
  readonly minor?: number;
  /** Letters of `rwm`, at least one. */
  readonly access: string;
}

export interface CgroupHandle {
  readonly path: string;
  readonly join: {
    /** Directory for CLONE_INTO_CGROUP or its cgroup.procs; present on v2 and hybrid hosts. */
    readonly v2Dir?: string;
    /** cgroup.procs files of the v1 hierarchies; a process is in the cgroup when its pid went to all of them. */
    readonly v1Procs: readonly string[];
  };
}

export type CgroupVersion = 'v1' | 'v2' | 'hybrid';

/** Where each controller lives. On hybrid hosts the v2 hierarchy tracks, kills and freezes; v1 limits. */
export interface CgroupLayout {
  readonly version: CgroupVersion;
  /** Mount point of the v2 hierarchy; absent on v1. */
  readonly v2Root?: string;
  /** v1 controller (`memory`, `cpu`, `name=systemd`) to mount point. */
  readonly v1Roots: ReadonlyMap<string, string>;
}

/** The kernel calls of the v2 device policy; `src/native/bpf.ts` implements them. */
export interface DeviceBpf {
  /** Loads a BPF_PROG_TYPE_CGROUP_DEVICE program and makes it the only one attached to the cgroup, atomically. */
  attach(cgroupDir: string, program: Uint8Array): void;
}

export interface CgroupsOptions {
  /** Directory the hierarchies are mounted at or below. Default /sys/fs/cgroup. */
  readonly root?: string;
  /** Default /proc. */
  readonly procRoot?: string;
  readonly driver?: 'cgroupfs';
  /** Where the hierarchies are, when that was found out before; `root` is not looked at then. */
  readonly layout?: CgroupLayout;
  /** Needed for device rules on v2. */
  readonly bpf?: DeviceBpf;
  /** Ignore hugepage limits when the host has no hugetlb controller. Default true. */
  readonly tolerateMissingHugetlb?: boolean;
}
