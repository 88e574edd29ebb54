/**
 * The nouns of the runtime: what a pod sandbox, a container and an image are to Berth, free of gRPC and protobuf.
 *
 * Configurations are what the caller asked for, checked and normalised by `src/cri/translate/` (absent means "not
 * given", never 0 or ''). Records are what Berth knows. States are derived from records, so that two fields cannot
 * disagree. Times are nanoseconds since the epoch as bigint, ids are u32 as number, byte counts are number.
 */

// ---------------------------------------------------------------------------------------------------- namespaces

/** Whose namespace a container uses. `target` is for PID only and names another container of the same pod. */
export type NamespaceMode = 'pod' | 'container' | 'node' | 'target';

/** One line of an id map: `size` ids from `containerId` inside are `hostId` and following outside. */
export interface IdMapping {
  readonly containerId: number;
  readonly hostId: number;
  readonly size: number;
}

export interface UserNamespaceOption {
  readonly mode: 'pod' | 'node';
  readonly uids: readonly IdMapping[];
  readonly gids: readonly IdMapping[];
}

export interface NamespaceOptions {
  readonly network: 'pod' | 'node';
  readonly pid: NamespaceMode;
  readonly ipc: 'pod' | 'node';
  /** The container id whose PID namespace is meant; given if and only if `pid` is `target`. */
  readonly targetId?: string;
  readonly userns?: UserNamespaceOption;
}

// ---------------------------------------------------------------------------------------------------- security

export interface SecurityProfile {
  readonly kind: 'runtime-default' | 'unconfined' | 'localhost';
  /** Absolute path (seccomp) or profile name (AppArmor); given if and only if `kind` is `localhost`. */
  readonly localhostRef?: string;
}

export interface SelinuxOption {
  readonly user: string;
  readonly role: string;
  readonly type: string;
  readonly level: string;
}

export type SupplementalGroupsPolicy = 'merge' | 'strict';

export interface SandboxSecurity {
  readonly namespaces: NamespaceOptions;
  readonly runAsUser?: number;
  readonly runAsGroup?: number;
  readonly readonlyRootfs: boolean;
  readonly supplementalGroups: readonly number[];
  readonly supplementalGroupsPolicy: SupplementalGroupsPolicy;
  readonly privileged: boolean;
  readonly seccomp?: SecurityProfile;
  readonly apparmor?: SecurityProfile;
  readonly selinux?: SelinuxOption;
}

/** Capability names are in the form `CAP_NET_ADMIN`, upper case; `ALL` stands for every one. */
export interface CapabilityChanges {
  readonly add: readonly string[];
  readonly drop: readonly string[];
  readonly addAmbient: readonly string[];
}

export interface ContainerSecurity extends SandboxSecurity {
  readonly runAsUsername?: string;
  readonly capabilities: CapabilityChanges;
  readonly noNewPrivs: boolean;
  readonly maskedPaths: readonly string[];
  readonly readonlyPaths: readonly string[];
}

// ---------------------------------------------------------------------------------------------------- resources

export interface HugepageLimit {
  /** Page size as the kernel writes it in file names: `2MB`, `1GB`. */
  readonly pageSize: string;
  readonly limitBytes: number;
}

/** Absent fields keep what is in force (update) or the kernel's default (create). */
export interface LinuxResources {
  /** Microseconds. */
  readonly cpuPeriod?: number;
  /** Microseconds per period; -1 is no limit. */
  readonly cpuQuota?: number;
  /** cgroup v1 shares, 2 to 262144; converted to a weight on v2. */
  readonly cpuShares?: number;
  /** Bytes; -1 is no limit. */
  readonly memoryLimit?: number;
  /** Memory plus swap, bytes, cgroup v1 semantics; -1 is no limit. */
  readonly memorySwapLimit?: number;
  /** -1000 to 1000. */
  readonly oomScoreAdj?: number;
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
  readonly hugepageLimits?: readonly HugepageLimit[];
  /** cgroup v2 files written verbatim; an error on v1. */
  readonly unified?: Readonly<Record<string, string>>;
  /** Upper bound of processes; from configuration, CRI does not carry it. */
  readonly pidsLimit?: number;
}

// ---------------------------------------------------------------------------------------------------- pods

export interface PodMetadata {
  readonly name: string;
  readonly uid: string;
  readonly namespace: string;
  readonly attempt: number;
}

export interface DnsConfig {
  readonly servers: readonly string[];
  readonly searches: readonly string[];
  readonly options: readonly string[];
}

export interface PortMapping {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly containerPort: number;
  /** 0 means the port is not published. */
  readonly hostPort: number;
  readonly hostIp?: string;
}

export type StringMap = Readonly<Record<string, string>>;

export interface PodSandboxConfig {
  readonly metadata: PodMetadata;
  readonly hostname: string;
  /** Directory of the pod's container logs; log paths of containers are relative to it. */
  readonly logDirectory: string;
  /** Absent: the node's resolv.conf is used. */
  readonly dns?: DnsConfig;
  readonly portMappings: readonly PortMapping[];
  readonly labels: StringMap;
  readonly annotations: StringMap;
  /** In cgroupfs syntax (`/kubepods/burstable/podUID`), whatever the driver; '' puts it below Berth's own root. */
  readonly cgroupParent: string;
  readonly sysctls: StringMap;
  readonly security: SandboxSecurity;
  readonly overhead?: LinuxResources;
  readonly resources?: LinuxResources;
}

export type SandboxState = 'ready' | 'not-ready';

// ---------------------------------------------------------------------------------------------------- containers

export interface ImageSpec {
  readonly image: string;
  readonly userSpecifiedImage: string;
  readonly annotations: StringMap;
  readonly runtimeHandler: string;
  /** The image's id, where it is known. */
  readonly imageRef?: string;
}

export type MountPropagation = 'private' | 'host-to-container' | 'bidirectional';

export interface Mount {
  readonly containerPath: string;
  /** '' if and only if `image` is given. */
  readonly hostPath: string;
  readonly readonly: boolean;
  readonly selinuxRelabel: boolean;
  readonly propagation: MountPropagation;
  readonly uidMappings: readonly IdMapping[];
  readonly gidMappings: readonly IdMapping[];
  readonly recursiveReadOnly: boolean;
  readonly image?: ImageSpec;
  readonly imageSubPath: string;
  /** Of `noexec`, `nodev`, `nosuid`. */
  readonly options: readonly string[];
}

export interface Device {
  readonly containerPath: string;
  readonly hostPath: string;
  /** Of the letters r, w, m. */
  readonly permissions: string;
}

/** Values are bytes: CRI 1.37 allows what is not UTF-8. */
export interface EnvVar {
  readonly key: string;
  readonly value: Uint8Array;
}

export interface ContainerConfig {
  readonly metadata: { readonly name: string; readonly attempt: number };
  readonly image: ImageSpec;
  /** Replaces the image's entrypoint when not empty. */
  readonly command: readonly string[];
  /** Replaces the image's cmd when not empty. */
  readonly args: readonly string[];
  readonly workingDir: string;
  readonly env: readonly EnvVar[];
  readonly mounts: readonly Mount[];
  readonly devices: readonly Device[];
  readonly cdiDevices: readonly string[];
  readonly labels: StringMap;
  readonly annotations: StringMap;
  /** Relative to the sandbox's log directory; '' writes no log. */
  readonly logPath: string;
  readonly stdin: boolean;
  readonly stdinOnce: boolean;
  readonly tty: boolean;
  /** Name like `SIGTERM` or `SIGRTMIN+3`; absent: the image's, else SIGTERM. */
  readonly stopSignal?: string;
  readonly resources: LinuxResources;
  readonly security: ContainerSecurity;
}

export type ContainerState = 'created' | 'running' | 'exited' | 'unknown';

/** How a container ended. `reason` is what CRI reports: Completed, Error, OOMKilled, StartError, Unknown. */
export interface ExitRecord {
  readonly code: number;
  readonly finishedAt: bigint;
  readonly reason: 'Completed' | 'Error' | 'OOMKilled' | 'StartError' | 'Unknown';
  readonly message: string;
}

/** A mount as ContainerStatus reports it. */
export type ReportedMount = Mount;

// ---------------------------------------------------------------------------------------------------- images

/** The part of an OCI or Docker image configuration that running needs. */
export interface ImageRunConfig {
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly user: string;
  readonly workingDir: string;
  readonly stopSignal: string;
  readonly volumes: readonly string[];
  readonly labels: StringMap;
}

export interface Image {
  /** Digest of the image configuration, `sha256:…`. The same string in every CRI answer. */
  readonly id: string;
  readonly repoTags: readonly string[];
  readonly repoDigests: readonly string[];
  /** Bytes of content (compressed layers, manifest, config). */
  readonly size: number;
  readonly pinned: boolean;
  /** Annotations of the request that pulled it. */
  readonly annotations: StringMap;
  readonly run: ImageRunConfig;
  /** Digests of the uncompressed layers, base first. */
  readonly diffIds: readonly string[];
  /** The chain id of all layers (OCI image-spec, "Layer ChainID"). */
  readonly chainId: string;
  /** `linux/amd64`. */
  readonly platform: string;
}

/** Never logged. */
export interface RegistryAuth {
  readonly username: string;
  readonly password: string;
  /** base64 of `user:password`. */
  readonly auth: string;
  readonly serverAddress: string;
  readonly identityToken: string;
  readonly registryToken: string;
}
