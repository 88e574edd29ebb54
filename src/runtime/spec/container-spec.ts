import { invalid } from '../../kit/errors.js';
import type { ContainerConfig, ContainerSecurity, ImageRunConfig } from '../model.js';
import { applyChanges, capabilitiesOf } from '../plan/capabilities.js';
import {
  containerMounts,
  ociMapping,
  podNamespaces,
  rootPropagation,
  type ContainerMountsInput,
} from './container-mounts.js';
import { Environment, defaultPath } from './environment.js';
import type { ContainerNamespaces } from './namespaces.js';
import type { OciCapabilities, OciDevice, OciDeviceRule, OciNamespace, OciRlimit, OciSpec } from './oci.js';
import type { ResolvedUser } from './user.js';

/** A device node of the host, looked up before: where it comes from and what it is. */
export interface HostDevice extends OciDevice {
  readonly access: string;
  /** Where it is on the host, if not at `path`. */
  readonly hostPath?: string;
}

/** Everything the specification of a container is computed from. Gathered before; nothing is looked up here. */
export interface ContainerSpecInput extends ContainerMountsInput {
  readonly image: ImageRunConfig;
  readonly user: ResolvedUser;
  readonly namespaces: ContainerNamespaces;
  readonly rootfs: string;
  readonly cgroupsPath: string;
  /** Devices of the request, or all of the host's for a privileged container. */
  readonly devices: readonly HostDevice[];
  /** Highest capability number of this kernel. */
  readonly lastCapability: number;
  readonly defaultCapabilities: readonly string[];
  readonly rlimits: readonly OciRlimit[];
  /** The OCI `linux.seccomp` object; undefined runs unconfined. */
  readonly seccomp: unknown;
  readonly apparmorProfile: string | undefined;
  readonly pidsLimit: number | undefined;
}

export function containerSpec(input: ContainerSpecInput): OciSpec {
  const { config, sandbox } = input;
  const { security } = config;
  const pod = podNamespaces(input);
  return {
    ociVersion: '1.2.0',
    process: {
      terminal: config.tty,
      user: { uid: input.user.uid, gid: input.user.gid, additionalGids: input.user.groups },
      args: processArgs(config, input.image),
      env: processEnv(input),
      cwd: processCwd(config, input.image),
      capabilities: processCapabilities(security, input.lastCapability, input.defaultCapabilities),
      rlimits: input.rlimits,
      noNewPrivileges: security.noNewPrivs,
      ...(input.apparmorProfile === undefined ? {} : { apparmorProfile: input.apparmorProfile }),
      ...(config.resources.oomScoreAdj === undefined ? {} : { oomScoreAdj: config.resources.oomScoreAdj }),
    },
    root: { path: input.rootfs, readonly: security.readonlyRootfs },
    ...(pod.names === 'pod' && sandbox.hostname !== '' ? { hostname: sandbox.hostname } : {}),
    mounts: containerMounts(input),
    annotations: { 'io.kubernetes.cri.container-name': config.metadata.name },
    linux: {
      namespaces: ociNamespaces(input.namespaces),
      ...(input.mappings === undefined
        ? {}
        : { uidMappings: input.mappings.uids.map(ociMapping), gidMappings: input.mappings.gids.map(ociMapping) }),
      cgroupsPath: input.cgroupsPath,
      devices: input.devices.map(({ access: _, hostPath: __, ...device }) => device),
      resources: ociResources(input),
      rootfsPropagation: rootPropagation(config.mounts),
      ...(input.seccomp === undefined ? {} : { seccomp: input.seccomp }),
      // CRI gives both lists whole; the kubelet leaves them empty for procMount: Unmasked.
      maskedPaths: security.privileged ? [] : security.maskedPaths,
      readonlyPaths: security.privileged ? [] : security.readonlyPaths,
    },
  };
}

/** Command and args as Kubernetes defines them: a command of the request drops the image's cmd too. */
function processArgs(config: ContainerConfig, image: ImageRunConfig): readonly string[] {
  const entrypoint = config.command.length > 0 ? config.command : image.entrypoint;
  const cmd = config.args.length > 0 || config.command.length > 0 ? config.args : image.cmd;
  const args = [...entrypoint, ...cmd];
  if (args.length === 0 || args[0] === '') {
    throw invalid('config.command', 'neither the request nor the image names a program to run');
  }
  return args;
}

function processEnv(input: ContainerSpecInput): Uint8Array[] {
  const { config, sandbox } = input;
  const environment = new Environment().set('PATH', defaultPath);
  if (sandbox.hostname !== '') environment.set('HOSTNAME', sandbox.hostname);
  if (config.tty) environment.set('TERM', 'xterm');
  environment.addStrings(input.image.env).addVars(config.env).setDefault('HOME', input.user.home);
  return environment.entries();
}

function processCwd(config: ContainerConfig, image: ImageRunConfig): string {
  const cwd = config.workingDir !== '' ? config.workingDir : image.workingDir !== '' ? image.workingDir : '/';
  return cwd.startsWith('/') ? cwd : `/${cwd}`;
}

/** The sets by name. What the CRI leaves unsaid about their making is in `plan/capabilities.ts`. */
export function processCapabilities(
  security: ContainerSecurity,
  lastCapability: number,
  defaults: readonly string[],
): OciCapabilities {
  const field = 'config.linux.security_context.capabilities';
  const sets = applyChanges(defaults, security.capabilities, security.privileged, lastCapability, field);
  return {
    bounding: capabilitiesOf(sets.bounding),
    effective: capabilitiesOf(sets.effective),
    permitted: capabilitiesOf(sets.permitted),
    inheritable: capabilitiesOf(sets.inheritable),
    ambient: capabilitiesOf(sets.ambient),
  };
}

const kindToOci: readonly (readonly [keyof ContainerNamespaces, OciNamespace['type']])[] = [
  ['pid', 'pid'],
  ['net', 'network'],
  ['ipc', 'ipc'],
  ['uts', 'uts'],
  ['mnt', 'mount'],
  ['cgroup', 'cgroup'],
  ['user', 'user'],
];

/** Namespaces shared with the host have no entry; joined ones are told to the plan compiler beside the spec. */
const ociNamespaces = (namespaces: ContainerNamespaces): OciNamespace[] =>
  kindToOci.filter(([kind]) => namespaces[kind].from !== 'host').map(([, type]) => ({ type }));

function ociResources(input: ContainerSpecInput): NonNullable<OciSpec['linux']['resources']> {
  const { resources } = input.config;
  const { memoryLimit, memorySwapLimit } = resources;
  return {
    devices: deviceRules(input),
    memory: {
      ...(memoryLimit === undefined ? {} : { limit: memoryLimit }),
      ...(memorySwapLimit === undefined ? {} : { swap: memorySwapLimit }),
    },
    cpu: {
      ...(resources.cpuShares === undefined ? {} : { shares: resources.cpuShares }),
      ...(resources.cpuQuota === undefined ? {} : { quota: resources.cpuQuota }),
      ...(resources.cpuPeriod === undefined ? {} : { period: resources.cpuPeriod }),
      ...(resources.cpusetCpus === undefined ? {} : { cpus: resources.cpusetCpus }),
      ...(resources.cpusetMems === undefined ? {} : { mems: resources.cpusetMems }),
    },
    ...(input.pidsLimit === undefined ? {} : { pids: { limit: input.pidsLimit } }),
    hugepageLimits: (resources.hugepageLimits ?? []).map(({ pageSize, limitBytes }) => ({
      pageSize,
      limit: limitBytes,
    })),
    ...(resources.unified === undefined ? {} : { unified: resources.unified }),
  };
}

/** Deny all, then the nodes every container has, then what was asked for. Making nodes is harmless, opening is not. */
export function deviceRules(input: Pick<ContainerSpecInput, 'config' | 'devices' | 'mappings'>): OciDeviceRule[] {
  // In a user namespace no node can be made, but an image may bring one: it must not open the host's disk.
  if (input.config.security.privileged && input.mappings === undefined)
    return [{ allow: true, type: 'a', access: 'rwm' }];
  return [
    { allow: false, type: 'a', access: 'rwm' },
    { allow: true, type: 'c', access: 'm' },
    { allow: true, type: 'b', access: 'm' },
    ...standardDevices.map(([major, minor]): OciDeviceRule => ({
      allow: true,
      type: 'c',
      major,
      ...(minor === undefined ? {} : { minor }),
      access: 'rwm',
    })),
    ...input.devices.map((device): OciDeviceRule => ({
      allow: true,
      type: device.type === 'b' ? 'b' : 'c',
      major: device.major,
      minor: device.minor,
      access: device.access,
    })),
  ];
}

/** null, zero, full, random, urandom, tty, console, ptmx, and all pts (136). */
const standardDevices: readonly (readonly [number, number | undefined])[] = [
  [1, 3],
  [1, 5],
  [1, 7],
  [1, 8],
  [1, 9],
  [5, 0],
  [5, 1],
  [5, 2],
  [136, undefined],
];
