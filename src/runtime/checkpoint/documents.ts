import type { OciSpec } from '../spec/oci.js';
import type { ContainerRecord, SandboxRecord } from '../state/records.js';

/**
 * The JSON files of a checkpoint archive beside CRIU's images, in the form that containerd, CRI-O and Podman write and
 * checkpointctl reads (checkpoint-restore/checkpointctl, lib/metadata.go).
 */
export interface DocumentsInput {
  readonly container: ContainerRecord;
  readonly sandbox: Pick<SandboxRecord, 'id' | 'config' | 'runtimeHandler'>;
  readonly spec: OciSpec;
  /** Nanoseconds since the epoch. */
  readonly checkpointedAt: bigint;
  /** Host files and directories that are mounted into the container. */
  readonly bindMounts: readonly BindMount[];
}

export interface BindMount {
  readonly source: string;
  readonly destination: string;
  readonly isDirectory: boolean;
  readonly mode: number;
}

export function checkpointDocuments(input: DocumentsInput): Readonly<Record<string, unknown>> {
  const { container } = input;
  const { attempt, name } = container.config.metadata;
  return {
    'config.dump': {
      id: container.id,
      name,
      rootfsImage: container.config.image.userSpecifiedImage || container.config.image.image,
      rootfsImageRef: container.imageId,
      rootfsImageName: container.imageName,
      runtime: input.sandbox.runtimeHandler || 'berth',
      createdTime: isoTime(container.createdAt),
      checkpointedTime: isoTime(input.checkpointedAt),
      restoredTime: '0001-01-01T00:00:00Z',
      restored: false,
    },
    'status.dump': {
      id: container.id,
      metadata: { name, attempt },
      state: 1,
      created_at: Number(container.createdAt),
      started_at: Number(container.startedAt),
      image: { image: container.config.image.image },
      image_ref: container.imageId,
      labels: container.config.labels,
      annotations: container.config.annotations,
      log_path: container.logPath,
    },
    status: {
      CreatedAt: Number(container.createdAt),
      StartedAt: Number(container.startedAt),
      FinishedAt: 0,
      ExitCode: 0,
      Pid: container.pid,
      Reason: '',
      Message: '',
    },
    'bind.mounts': input.bindMounts.map(({ source, destination, isDirectory, mode }) => ({
      source,
      destination,
      file_type: isDirectory ? 'directory' : 'file',
      permissions: mode & 0o777,
    })),
  };
}

/** Tools tell people by these annotations whose checkpoint it is. */
export function dumpedSpec({ spec, container, sandbox }: DocumentsInput): OciSpec {
  const { metadata } = sandbox.config;
  return {
    ...spec,
    annotations: {
      ...spec.annotations,
      'io.kubernetes.cri.container-type': 'container',
      'io.kubernetes.cri.container-name': container.config.metadata.name,
      'io.kubernetes.cri.image-name': container.config.image.image,
      'io.kubernetes.cri.sandbox-id': sandbox.id,
      'io.kubernetes.cri.sandbox-name': metadata.name,
      'io.kubernetes.cri.sandbox-namespace': metadata.namespace,
      'io.kubernetes.cri.sandbox-uid': metadata.uid,
    },
  };
}

const isoTime = (nanoseconds: bigint): string => new Date(Number(nanoseconds / 1_000_000n)).toISOString();
