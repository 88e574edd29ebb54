import type { RecordedStep } from '../../kit/step-recorder.js';
import type { IdMappings } from '../idmap/mapping.js';
import type { Snapshot } from '../snapshots/snapshotter.js';
import type { ContainerConfig, ExitRecord, LinuxResources, PodSandboxConfig, ReportedMount } from '../model.js';

/**
 * What is known of a pod sandbox, as it is on disk. The stage says how far its own requests came; whether it is READY
 * is derived (`sandboxState`).
 */
export interface SandboxRecord {
  readonly id: string;
  readonly config: PodSandboxConfig;
  readonly runtimeHandler: string;
  readonly createdAt: bigint;
  /** `creating` only ever survives in a record when the agent died in the middle of the request. */
  readonly stage: 'creating' | 'ready' | 'stopped';
  /** Kernel boot in which it was made (`/proc/sys/kernel/random/boot_id`): nothing lives over a reboot. */
  readonly bootId: string;
  /** The pod's cgroup; container cgroups lie below it. */
  readonly cgroupPath: string;
  /** True when Berth made `cgroupPath` and so removes it; the kubelet's pod cgroups are the kubelet's. */
  readonly ownsCgroup: boolean;
  readonly shimPid: number;
  readonly pausePid: number;
  readonly ips: readonly string[];
  /** Of its user namespace; absent without one. */
  readonly mappings?: IdMappings;
  /** MCS level of its containers that ask for none; absent without SELinux. */
  readonly selinuxLevel?: string;
  /** How its start went, for the waterfall. */
  readonly steps: readonly RecordedStep[];
}

/** What is known of a container, as it is on disk. Its state is derived (`containerState`). */
export interface ContainerRecord {
  readonly id: string;
  readonly sandboxId: string;
  readonly config: ContainerConfig;
  readonly imageId: string;
  readonly imageName: string;
  readonly createdAt: bigint;
  /** `creating` and `starting` only survive when the agent died in the middle of a request. */
  readonly stage: 'creating' | 'created' | 'starting' | 'started';
  readonly startedAt: bigint;
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: tells a reused pid apart. */
  readonly startTime: bigint;
  readonly exit?: ExitRecord;
  readonly cgroupPath: string;
  /** Absolute; '' writes no log. */
  readonly logPath: string;
  readonly user: { readonly uid: number; readonly gid: number; readonly groups: readonly number[] };
  readonly stopSignal: string;
  readonly mounts: readonly ReportedMount[];
  readonly resources: LinuxResources;
  /** An unmanaged directory that is the root; '' when the root is a snapshot. */
  readonly rootfs: string;
  /** How its files get their ids; absent without an image. */
  readonly snapshot?: Pick<Snapshot, 'way' | 'remap'>;
  /** How its start went, for the waterfall. */
  readonly steps: readonly RecordedStep[];
}

export const recordVersions = { sandboxes: 1, containers: 1, residue: 1, images: 1 } as const;
