import type { Duplex } from 'node:stream';
import type { Call } from '../kit/call.js';
import type { CgroupStats, PsiStats } from './usage.js';
import type {
  ContainerConfig,
  ContainerState,
  ExitRecord,
  Image,
  ImageSpec,
  LinuxResources,
  PodSandboxConfig,
  RegistryAuth,
  ReportedMount,
  SandboxState,
  StringMap,
} from './model.js';

/**
 * Everything that `cri`, `cli` and `kube` may ask of the runtime. Requests that change something take a `Call` and
 * return promises; reads answer at once from memory. A missing object is success for stop and remove, `not-found`
 * for everything else.
 */
export interface Runtime {
  readonly sandboxes: SandboxRequests;
  readonly containers: ContainerRequests;
  readonly images: ImageRequests;
  readonly maintenance: MaintenanceRequests;

  /**
   * Changes of pods and containers from now on, until the signal aborts: in order, each with its pod as it was right
   * after. Throws `exhausted` when the reader falls thousands behind; what it missed is in the lists.
   */
  events(signal: AbortSignal): AsyncIterable<RuntimeEvent>;
  /**
   * Starts the node's plugins and lets others connect, as configured; what fails is noted.
   *
   * @param version of the agent, as plugins are told it
   */
  openToPlugins(version: string): Promise<void>;
  status(): RuntimeStatus;
  /** What the node says of itself, for verbose status: configuration, kernel facts, network, residue. */
  info(): Readonly<Record<string, unknown>>;
  runtimeConfig(): { readonly cgroupDriver: 'cgroupfs' | 'systemd' };
  updateRuntimeConfig(podCidr: string): Promise<void>;
  /** Leaves pods running, closes stores and connections. */
  close(): Promise<void>;
}

export interface RuntimeEvent {
  readonly type: 'created' | 'started' | 'stopped' | 'deleted';
  /** Of the container, or of the pod sandbox itself. */
  readonly objectId: string;
  /** Nanoseconds since the epoch. */
  readonly timestamp: bigint;
  readonly sandbox: SandboxView | undefined;
  readonly containers: readonly ContainerView[];
}

/** For `berth doctor`: what lies on the host in Berth's name that no record accounts for, and residue. */
export interface MaintenanceRequests {
  orphans(): Promise<readonly Orphan[]>;
  /** Removes every orphan it can; returns those that are left. */
  clean(call: Call): Promise<readonly Orphan[]>;
  /**
   * Removes what outlives the last pod: the built-in network's bridge and rules, and Berth's own cgroups. `wrong-state`
   * while there are pods.
   */
  teardown(call: Call): Promise<void>;
}

export interface Orphan {
  /** `mount`, `netns`, `cgroup`, `shim`, `snapshot`, `directory`, `link`, `address`, … */
  readonly kind: string;
  /** A path, name or id, as a person would look for it. */
  readonly target: string;
  /** Why it is held to be left over, or why it could not be removed. */
  readonly reason: string;
}

export interface PodResources {
  readonly overhead?: LinuxResources;
  readonly resources?: LinuxResources;
}

export interface SandboxRequests {
  /** A retry with the same name, uid, namespace and attempt joins the first attempt or returns its result. */
  run(input: { readonly config: PodSandboxConfig; readonly runtimeHandler: string }, call: Call): Promise<string>;
  stop(idOrPrefix: string, call: Call): Promise<void>;
  remove(idOrPrefix: string, call: Call): Promise<void>;
  status(idOrPrefix: string): SandboxView;
  list(filter: SandboxFilter): readonly SandboxView[];
  /**
   * A connection to a TCP port of the pod: 127.0.0.1, else ::1, of the network it uses. Each side's end of sending is
   * passed on. `wrong-state` when the pod is not ready, `unavailable` when nobody listens.
   */
  dial(idOrPrefix: string, port: number, call: Call): Promise<Duplex>;
  /** Usage of a pod and its containers. Figures that cannot be had are absent. */
  stats(idOrPrefix: string): Promise<SandboxStatsView>;
  /** Of every ready pod the filter matches. */
  listStats(filter: SandboxFilter): Promise<readonly SandboxStatsView[]>;
  /** Everything the kernel counts for each ready pod: what metrics are made of. Costs several times what stats cost. */
  listUsage(): Promise<readonly SandboxUsageView[]>;
  /**
   * All or nothing. A pod's cgroup that the kubelet made has been resized by it already: of that, note is taken only.
   * `wrong-state` when the pod is not ready.
   */
  updateResources(idOrPrefix: string, change: PodResources, call: Call): Promise<void>;
  /** Facts for verbose status: pid, namespaces, network result, spec, waterfall of the start. */
  inspect(idOrPrefix: string): Readonly<Record<string, unknown>>;
  /** The launch plan in the wire format; undefined once it is gone from the host. */
  plan(idOrPrefix: string): Uint8Array | undefined;
}

export interface ContainerRequests {
  create(input: CreateContainerInput, call: Call): Promise<string>;
  start(idOrPrefix: string, call: Call): Promise<void>;
  /** `timeoutSeconds` 0 or less kills at once. */
  stop(idOrPrefix: string, timeoutSeconds: number, call: Call): Promise<void>;
  remove(idOrPrefix: string, call: Call): Promise<void>;
  status(idOrPrefix: string): ContainerView;
  list(filter: ContainerFilter): readonly ContainerView[];
  inspect(idOrPrefix: string): Readonly<Record<string, unknown>>;
  /** The launch plan in the wire format; undefined once it is gone from the host. */
  plan(idOrPrefix: string): Uint8Array | undefined;
  updateResources(idOrPrefix: string, resources: LinuxResources, annotations: StringMap, call: Call): Promise<void>;
  reopenLog(idOrPrefix: string, call: Call): Promise<void>;
  /** Output from now on, and input when the container was created with stdin. The container must run. */
  attach(idOrPrefix: string, call: Call): Promise<ContainerStreams>;
  /** Sets the size of a running container's terminal. */
  resize(idOrPrefix: string, rows: number, columns: number): Promise<void>;
  execSync(idOrPrefix: string, command: readonly string[], timeoutSeconds: number, call: Call): Promise<ExecOutcome>;
  /** Runs a command in a running container; resolves when it runs. Ends with its tree when the streams are closed. */
  exec(idOrPrefix: string, command: ExecCommand, call: Call): Promise<CommandStreams>;
  /** Writes a running container's state to an archive; it goes on running. */
  checkpoint(idOrPrefix: string, request: CheckpointRequest, call: Call): Promise<void>;
  stats(idOrPrefix: string): Promise<ContainerStatsView>;
  listStats(filter: ContainerFilter): Promise<readonly ContainerStatsView[]>;
}

export interface CreateContainerInput {
  readonly sandboxId: string;
  readonly config: ContainerConfig;
  readonly sandboxConfig?: PodSandboxConfig;
  /**
   * An absolute path of a directory that is used as the root instead of an image's snapshot (`berth run --rootfs`).
   * The directory belongs to the caller and is never removed; `config.image` then only names it.
   */
  readonly rootfs?: string;
}

export interface CheckpointRequest {
  /** Absolute path of the archive; a file that is there is replaced. */
  readonly location: string;
  /** 0 takes the configured time. */
  readonly timeoutSeconds: number;
}

export interface ContainerStreams {
  onOutput(listener: (stream: 'stdout' | 'stderr', data: Uint8Array) => void): void;
  /** Resolves when the bytes were handed over. */
  write(data: Uint8Array): Promise<void>;
  /** Closes the container's stdin when it was created with stdinOnce. */
  end(): void;
  /** Takes no more output for now; beyond a bound, what the container says meanwhile is only in its log. */
  pause(): void;
  resume(): void;
  /** Resolves when the container has closed its output or the connection ended. */
  readonly ended: Promise<void>;
  close(): void;
}

export interface ExecCommand {
  readonly args: readonly string[];
  readonly stdin: boolean;
  readonly terminal: boolean;
}

/** A running command's streams. While they are paused the command waits. */
export interface CommandStreams extends Omit<ContainerStreams, 'ended'> {
  resize(rows: number, columns: number): Promise<void>;
  /** 0 to 255, 128 + signal when killed by one; after all output was told. */
  readonly exited: Promise<number>;
}

export interface ImageRequests {
  pull(image: ImageSpec, auth: RegistryAuth | undefined, call: Call, onProgress?: OnPullProgress): Promise<Image>;
  import(path: string, name: string | undefined, call: Call, onProgress?: OnPullProgress): Promise<readonly Image[]>;
  /** Removes every name of the image. A missing image is success. */
  remove(reference: string, call: Call): Promise<void>;
  get(reference: string): Image | undefined;
  list(filter?: { readonly image: string }): readonly Image[];
  fsInfo(): Promise<readonly FilesystemUsage[]>;
  inspect(reference: string): Readonly<Record<string, unknown>>;
}

/** Progress of one layer, for progress bars and traces. Bytes are of the compressed layer. */
export interface PullProgress {
  readonly digest: string;
  readonly phase: 'waiting' | 'downloading' | 'unpacking' | 'done' | 'exists';
  readonly bytes: number;
  readonly total: number;
}
export type OnPullProgress = (progress: PullProgress) => void;

export interface FilesystemUsage {
  readonly timestamp: bigint;
  readonly mountpoint: string;
  readonly usedBytes: number;
  readonly inodesUsed: number;
}

/** Filters are ANDed; an id matches by prefix, labels match exactly. */
export interface SandboxFilter {
  readonly id?: string;
  readonly state?: SandboxState;
  readonly labels?: StringMap;
}

export interface ContainerFilter {
  readonly id?: string;
  readonly state?: ContainerState;
  readonly sandboxId?: string;
  readonly labels?: StringMap;
}

/** Immutable: a change makes a new view, so that encoded answers can be cached per view. */
export interface SandboxView {
  readonly id: string;
  readonly config: PodSandboxConfig;
  readonly runtimeHandler: string;
  readonly state: SandboxState;
  readonly createdAt: bigint;
  /** Primary first; empty for host network. */
  readonly ips: readonly string[];
}

export interface ContainerView {
  readonly id: string;
  readonly sandboxId: string;
  readonly config: ContainerConfig;
  readonly imageId: string;
  /** Reference under which the image is known: a repo digest, else the id. Shown to people, not the CRI image_ref. */
  readonly imageName: string;
  readonly state: ContainerState;
  readonly createdAt: bigint;
  /** 0n before the start. */
  readonly startedAt: bigint;
  readonly exit?: ExitRecord;
  /** Absolute, '' without a log. */
  readonly logPath: string;
  readonly mounts: readonly ReportedMount[];
  /** What is in force, for in-place resize. */
  readonly resources: LinuxResources;
  readonly user: { readonly uid: number; readonly gid: number; readonly groups: readonly number[] };
  readonly stopSignal: string;
}

export interface ExecOutcome {
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  readonly exitCode: number;
}

/** What a container and a pod are alike in. Figures that cannot be had are absent. */
export interface UsageView {
  /** Nanoseconds since the epoch. */
  readonly timestamp: bigint;
  readonly cpu?: {
    readonly usageCoreNanoSeconds: bigint;
    readonly usageNanoCores?: bigint;
    readonly psi?: PsiStats;
  };
  readonly memory?: {
    readonly workingSetBytes: number;
    readonly availableBytes?: number;
    readonly usageBytes: number;
    readonly rssBytes: number;
    readonly pageFaults: number;
    readonly majorPageFaults: number;
    readonly psi?: PsiStats;
  };
  readonly swap?: { readonly availableBytes: number; readonly usageBytes: number };
  readonly io?: { readonly psi: PsiStats };
  /** Processes and threads, as the pids controller counts them. */
  readonly tasks?: number;
}

export interface ContainerStatsView extends UsageView {
  readonly container: ContainerView;
  readonly writableLayer?: FilesystemUsage;
}

export interface SandboxStatsView extends UsageView {
  readonly sandbox: SandboxView;
  readonly containers: readonly ContainerStatsView[];
  /** Interfaces of the pod's own network, without its loopback; empty in the host's. */
  readonly interfaces: readonly InterfaceUsage[];
}

/** Counters since the interface was made. */
export interface InterfaceUsage {
  readonly name: string;
  readonly rxBytes: bigint;
  readonly rxPackets: bigint;
  readonly rxErrors: bigint;
  readonly rxDropped: bigint;
  readonly txBytes: bigint;
  readonly txPackets: bigint;
  readonly txErrors: bigint;
  readonly txDropped: bigint;
}

export interface SandboxUsageView {
  readonly sandbox: SandboxView;
  readonly cgroupPath: string;
  readonly interfaces: readonly InterfaceUsage[];
  readonly group?: CgroupStats;
  readonly containers: readonly ContainerUsageView[];
}

export interface ContainerUsageView {
  readonly container: ContainerView;
  readonly cgroupPath: string;
  readonly group: CgroupStats;
  readonly oomKills: number;
  readonly processes: ProcessCounts;
  readonly filesystem?: FilesystemUsage & {
    readonly limitBytes: number;
    readonly inodes: number;
    readonly inodesFree: number;
    /** `major:minor` and a name when there is one. */
    readonly device: string;
  };
}

export interface ProcessCounts {
  readonly processes: number;
  readonly threads: number;
  readonly descriptors: number;
  readonly sockets: number;
  /** Soft limit of the first process; Infinity for none, absent when it is not known. */
  readonly openFilesLimit?: number;
}

export interface RuntimeStatus {
  readonly conditions: readonly {
    readonly type: 'RuntimeReady' | 'NetworkReady';
    readonly status: boolean;
    readonly reason: string;
    readonly message: string;
  }[];
  readonly handlers: readonly {
    readonly name: string;
    readonly recursiveReadOnlyMounts: boolean;
    readonly userNamespaces: boolean;
  }[];
  readonly features: {
    readonly supplementalGroupsPolicy: boolean;
    readonly userNamespacesHostNetwork: boolean;
    readonly mountOptions: boolean;
  };
}
