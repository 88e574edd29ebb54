import {
  Container,
  ContainerState,
  LinuxResources,
  PodSandbox,
  SecurityProfile_ProfileType,
  type LinuxContainer,
  type LinuxNamespace,
  type Mount,
} from '../../api/nri/v1alpha1/generated/api.js';
import type * as model from '../runtime/model.js';
import type { OciMount, OciNamespace, OciSpec } from '../runtime/spec/oci.js';
import type { ContainerRecord, SandboxRecord } from '../runtime/state/records.js';

/**
 * A pod as plugins are told of it.
 *
 * @param netns path of its network namespace; undefined for the host's
 */
export function podMessage(record: SandboxRecord, netns: string | undefined): PodSandbox {
  const { config } = record;
  return PodSandbox.fromPartial({
    id: record.id,
    name: config.metadata.name,
    uid: config.metadata.uid,
    namespace: config.metadata.namespace,
    labels: config.labels,
    annotations: config.annotations,
    runtimeHandler: record.runtimeHandler,
    pid: record.pausePid === 0 ? record.shimPid : record.pausePid,
    ips: [...record.ips],
    linux: {
      cgroupParent: config.cgroupParent === '' ? record.cgroupPath : config.cgroupParent,
      cgroupsPath: record.cgroupPath,
      namespaces: netns === undefined ? [] : [{ type: 'network', path: netns }],
      ...(config.overhead === undefined ? {} : { podOverhead: resourcesMessage(config.overhead) }),
      ...(config.resources === undefined ? {} : { podResources: resourcesMessage(config.resources) }),
      resources: {},
    },
  });
}

/**
 * A container as plugins are told of it.
 *
 * @param spec its specification; undefined leaves out what only that knows
 */
export function containerMessage(record: ContainerRecord, spec: OciSpec | undefined): Container {
  const { config, exit, user } = record;
  return Container.fromPartial({
    id: record.id,
    podSandboxId: record.sandboxId,
    name: config.metadata.name,
    state: stateOf(record),
    labels: config.labels,
    annotations: config.annotations,
    args: [...(spec?.process?.args ?? [])],
    // Protobuf has no strings that are not UTF-8; what such a variable holds is shown as far as it can be read.
    env: (spec?.process?.env ?? []).map((entry) => Buffer.from(entry).toString('utf8')),
    mounts: (spec?.mounts ?? []).map(mountMessage),
    hooks: {},
    pid: record.pid,
    rlimits: (spec?.process?.rlimits ?? []).map(({ type, hard, soft }) => ({
      type: `RLIMIT_${type.toUpperCase().replace(/^RLIMIT_/, '')}`,
      hard,
      soft,
    })),
    createdAt: record.createdAt,
    startedAt: record.startedAt,
    finishedAt: exit?.finishedAt ?? 0n,
    exitCode: exit?.code ?? 0,
    statusReason: exit?.reason ?? '',
    statusMessage: exit?.message ?? '',
    cdiDevices: config.cdiDevices.map((name) => ({ name })),
    user: { uid: user.uid, gid: user.gid, additionalGids: [...user.groups] },
    image: imageMessage(record),
    linux: linuxMessage(record, spec),
  });
}

function stateOf({ stage, exit }: ContainerRecord): ContainerState {
  if (exit !== undefined) return ContainerState.CONTAINER_STOPPED;
  return stage === 'started' ? ContainerState.CONTAINER_RUNNING : ContainerState.CONTAINER_CREATED;
}

function imageMessage({ config, imageId, imageName }: ContainerRecord): {
  name: string;
  digest: string;
  configDigest: string;
} {
  const digest = /@(\w+:[0-9a-f]+)$/.exec(imageName)?.[1] ?? '';
  const { userSpecifiedImage, image } = config.image;
  return { name: userSpecifiedImage === '' ? image : userSpecifiedImage, digest, configDigest: imageId };
}

const mountMessage = ({ destination, type, source, options }: OciMount): Mount => ({
  destination,
  type: type ?? '',
  source: source ?? '',
  options: [...(options ?? [])],
});

const namespaceMessage = ({ type, path }: OciNamespace): LinuxNamespace => ({ type, path: path ?? '' });

function linuxMessage(record: ContainerRecord, spec: OciSpec | undefined): Partial<LinuxContainer> {
  const { resources } = record;
  const pids = spec?.linux.resources?.pids;
  const rules = spec?.linux.resources?.devices ?? [];
  return {
    namespaces: (spec?.linux.namespaces ?? []).map(namespaceMessage),
    devices: (spec?.linux.devices ?? []).map(({ path, type, major, minor, fileMode, uid, gid }) => ({
      path,
      type,
      major: BigInt(major),
      minor: BigInt(minor),
      fileMode: optional(fileMode),
      uid: optional(uid),
      gid: optional(gid),
    })),
    resources: LinuxResources.fromPartial({
      ...resourcesMessage(resources),
      ...(pids === undefined ? {} : { pids: { limit: BigInt(pids.limit) } }),
      devices: rules.map(({ allow, type, major, minor, access }) => ({
        allow,
        type: type ?? 'a',
        major: optional(big(major)),
        minor: optional(big(minor)),
        access: access ?? '',
      })),
    }),
    oomScoreAdj: optional(big(spec?.process?.oomScoreAdj ?? resources.oomScoreAdj)),
    cgroupsPath: record.cgroupPath,
    seccompProfile: seccompMessage(record.config.security.seccomp),
    sysctl: { ...spec?.linux.sysctl },
  };
}

const seccompKinds = {
  'runtime-default': SecurityProfile_ProfileType.RUNTIME_DEFAULT,
  unconfined: SecurityProfile_ProfileType.UNCONFINED,
  localhost: SecurityProfile_ProfileType.LOCALHOST,
} as const;

const seccompMessage = (profile: model.SecurityProfile | undefined): LinuxContainer['seccompProfile'] =>
  profile === undefined
    ? undefined
    : { profileType: seccompKinds[profile.kind], localhostRef: profile.localhostRef ?? '' };

export function resourcesMessage(resources: model.LinuxResources): LinuxResources {
  return LinuxResources.fromPartial({
    memory: { limit: optional(big(resources.memoryLimit)), swap: optional(big(resources.memorySwapLimit)) },
    cpu: {
      shares: optional(big(resources.cpuShares)),
      quota: optional(big(resources.cpuQuota)),
      period: optional(big(resources.cpuPeriod)),
      cpus: resources.cpusetCpus ?? '',
      mems: resources.cpusetMems ?? '',
    },
    hugepageLimits: (resources.hugepageLimits ?? []).map(({ pageSize, limitBytes }) => ({
      pageSize,
      limit: BigInt(limitBytes),
    })),
    unified: resources.unified ?? {},
    ...(resources.pidsLimit === undefined ? {} : { pids: { limit: BigInt(resources.pidsLimit) } }),
  });
}

const big = (value: number | undefined): bigint | undefined => (value === undefined ? undefined : BigInt(value));

const optional = <T>(value: T | undefined): { value: T } | undefined => (value === undefined ? undefined : { value });
