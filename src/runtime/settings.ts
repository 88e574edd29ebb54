import { join } from 'node:path';

/** What of the configuration the runtime's requests obey. Made by the composition root from the Config. */
export interface RuntimeSettings {
  /** Parent of pods that name no cgroup parent of their own, cgroupfs syntax. */
  readonly cgroupParent: string;
  /** Processes a container may have; 0 is no limit. */
  readonly pidsLimit: number;
  /** Bytes of a log line before it is split (CRI: 16384). */
  readonly logLineBytes: number;
  /** Milliseconds output may still come after a process has ended. */
  readonly drainMs: number;
  /** Milliseconds a checkpoint may take whose request names no time. */
  readonly checkpointTimeoutMs: number;
  /** Lower oom_score_adj as far as allowed instead of failing. */
  readonly restrictOomScoreAdj: boolean;
  /** Sysctls every pod with a network namespace gets unless it says otherwise. */
  readonly defaultSysctls: Readonly<Record<string, string>>;
  /** Bytes per stream that ExecSync keeps (CRI: 16 MiB). */
  readonly execOutputBytes: number;
  /** Full names of the capabilities of a container that asks for no change. */
  readonly defaultCapabilities: readonly string[];
  /** Resource limits of containers by name without RLIMIT_, as `soft:hard`; others are inherited. */
  readonly rlimits: Readonly<Record<string, string>>;
  /** What becomes of the volumes an image declares: a directory each, a place in the root each, or nothing. */
  readonly imageVolumes: 'bind' | 'mkdir' | 'ignore';
  /** Devices that are root's on the host become those of the container's user. */
  readonly deviceOwnership: boolean;
  /** Names a RunPodSandbox may ask for; '' is the default and always allowed. */
  readonly handlers: readonly string[];
  /** Those of `handlers` whose pods get a user namespace without asking. */
  readonly usernsHandlers: readonly string[];
}

/**
 * All shims share one cgroup, outside every pod's: a pod's limits must never hit the process that watches it.
 */
export const shimCgroup = (cgroupParent: string): string => join(cgroupParent, 'shims');

/** Where things lie on the host. One place for every path below the state directory. */
export interface HostPaths {
  readonly pods: string;
  readonly netns: string;
  /** Holds a directory per container for the volumes its image declares. On disk, unlike the pods' directories. */
  readonly volumes: string;
  podDir(sandboxId: string): string;
  podFile(sandboxId: string, name: 'hosts' | 'hostname' | 'resolv.conf'): string;
  /** An empty directory the root of a container is attached on, in the container's own mount namespace. */
  rootMountpoint(sandboxId: string): string;
  bundle(sandboxId: string, containerId: string): string;
  netnsPin(sandboxId: string): string;
  volumeDir(containerId: string): string;
}

export function hostPaths(root: string, state: string, netns: string): HostPaths {
  const pods = join(state, 'pods');
  const volumes = join(root, 'volumes');
  const podDir = (sandboxId: string): string => join(pods, sandboxId);
  return {
    pods,
    netns,
    volumes,
    podDir,
    podFile: (sandboxId, name) => join(podDir(sandboxId), name),
    rootMountpoint: (sandboxId) => join(podDir(sandboxId), 'root'),
    bundle: (sandboxId, containerId) => join(podDir(sandboxId), 'c', containerId),
    netnsPin: (sandboxId) => join(netns, `berth-${sandboxId}`),
    volumeDir: (containerId) => join(volumes, containerId),
  };
}
