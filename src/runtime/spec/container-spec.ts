import { invalid } from '../../kit/errors.js';
import { sameLines, type IdMappings } from '../idmap/mapping.js';
import type {
  ContainerConfig,
  ContainerSecurity,
  IdMapping,
  ImageRunConfig,
  Mount,
  PodSandboxConfig,
} from '../model.js';
import { applyChanges, capabilitiesOf } from '../plan/capabilities.js';
import { defaultMounts } from './defaults.js';
import { Environment, defaultPath } from './environment.js';
import { sandboxNamespaces, type ContainerNamespaces, type SandboxNamespaces } from './namespaces.js';
import type {
  OciCapabilities,
  OciDevice,
  OciDeviceRule,
  OciIdMapping,
  OciMount,
  OciNamespace,
  OciRlimit,
  OciSpec,
} from './oci.js';
import type { ResolvedUser } from './user.js';

/** Files the pod's run request made, bound into every container unless a mount of the request takes their place. */
export interface SandboxFiles {
  readonly hosts: string;
  readonly hostname: string;
  readonly resolvConf: string;
  /** The pod's /dev/shm: a mount the shim holds under this name, or the host's /dev/shm. */
  readonly shm: { readonly held: string } | { readonly host: true };
}

/** A device node of the host, looked up before: where it comes from and what it is. */
export interface HostDevice extends OciDevice {
  readonly access: string;
  /** Where it is on the host, if not at `path`. */
  readonly hostPath?: string;
}

/** Everything the specification of a container is computed from. Gathered before; nothing is looked up here. */
export interface ContainerSpecInput {
  readonly config: ContainerConfig;
  readonly sandbox: PodSandboxConfig;
  readonly image: ImageRunConfig;
  readonly user: ResolvedUser;
  readonly namespaces: ContainerNamespaces;
  readonly rootfs: string;
  readonly cgroupsPath: string;
  readonly files: SandboxFiles;
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
  /** Of the pod's user namespace; absent without one. */
  readonly mappings?: IdMappings;
  /** Volumes the image declares, each with its directory on the host. */
  readonly volumes?: readonly DeclaredVolume[];
}

/** A place in the root that the image wants to be a volume of the container's own. */
export interface DeclaredVolume {
  /** Absolute, normal, inside the container. */
  readonly path: string;
  /** An empty directory of the host; the launch plan copies into it what the image has at `path`. */
  readonly directory: string;
}

/** Source of a mount the shim holds for the pod, in the one form that `plan/compile` knows. */
export const heldMountSource = (name: string): string => `held:${name}`;

/** Source of a mount whose content is an image's, told to the plan compiler beside the spec. */
export const imageMountSource = (mount: Mount, index: number): string =>
  `image:${mount.image?.imageRef ?? ''}#${index}`;

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

const ociMapping = ({ containerId, hostId, size }: IdMapping): OciIdMapping => ({
  containerID: containerId,
  hostID: hostId,
  size,
});

/** Namespaces shared with the host have no entry; joined ones are told to the plan compiler beside the spec. */
const ociNamespaces = (namespaces: ContainerNamespaces): OciNamespace[] =>
  kindToOci.filter(([kind]) => namespaces[kind].from !== 'host').map(([, type]) => ({ type }));

const podNamespaces = ({ sandbox, mappings }: ContainerSpecInput): SandboxNamespaces =>
  sandboxNamespaces(sandbox.security.namespaces, mappings !== undefined);

function containerMounts(input: ContainerSpecInput): OciMount[] {
  const { config, files } = input;
  const base = defaultMounts({
    privileged: config.security.privileged,
    sys: podNamespaces(input).sys,
    ...(input.mappings === undefined ? {} : { mappings: input.mappings }),
  });
  const shm: OciMount =
    'held' in files.shm
      ? {
          destination: '/dev/shm',
          type: 'bind',
          source: heldMountSource(files.shm.held),
          options: ['nosuid', 'nodev', 'noexec'],
        }
      : {
          destination: '/dev/shm',
          type: 'bind',
          source: '/dev/shm',
          options: ['rbind', 'rprivate', 'nosuid', 'nodev', 'noexec'],
        };
  const fileMounts = [
    fileMount('/etc/hosts', files.hosts, config),
    fileMount('/etc/hostname', files.hostname, config),
    fileMount('/etc/resolv.conf', files.resolvConf, config),
  ];
  // Shorter destinations first, so that a mount on /data never hides one on /data/cache.
  const wanted = config.mounts
    .map((mount, index) => (mount.image === undefined ? bindMount(mount, input) : imageMount(mount, index)))
    .sort((a, b) => depth(a.destination) - depth(b.destination));
  return lastWriterWins([...declaredVolumes(input), ...base, shm, ...fileMounts, ...wanted]);
}

/**
 * Before everything else: where an image says its volumes are, and what links lead there, it finds nothing but its own
 * files. What it declares at /proc or /dev is covered by the mounts that follow.
 */
const declaredVolumes = ({ volumes = [] }: ContainerSpecInput): OciMount[] =>
  [...volumes]
    .sort((a, b) => depth(a.path) - depth(b.path))
    .map(({ path, directory }) => ({
      destination: path,
      type: 'bind',
      source: directory,
      options: ['bind', 'private', 'rw'],
    }));

const fileMount = (destination: string, source: string, config: ContainerConfig): OciMount => ({
  destination,
  type: 'bind',
  source,
  options: ['bind', 'rprivate', config.security.readonlyRootfs ? 'ro' : 'rw'],
});

const depth = (path: string): number => path.split('/').filter((part) => part !== '').length;

/** One mount per destination: the last keeps its own place in the order. */
function lastWriterWins(mounts: readonly OciMount[]): OciMount[] {
  const last = new Map(mounts.map((mount, index) => [trimSlash(mount.destination), index]));
  return mounts.filter((mount, index) => last.get(trimSlash(mount.destination)) === index);
}

const trimSlash = (path: string): string => (path.length > 1 ? path.replace(/\/+$/, '') : path);

const propagationOption = {
  private: 'rprivate',
  'host-to-container': 'rslave',
  bidirectional: 'rshared',
} as const;

const imageMount = (mount: Mount, index: number): OciMount => ({
  destination: mount.containerPath,
  type: 'bind',
  source: imageMountSource(mount, index),
  options: ['bind', 'private', 'ro', ...mount.options],
});

/** What is mounted below a volume is idmapped with it: half a tree that shows other owners would be a trap. */
function bindMount(mount: Mount, { mappings }: ContainerSpecInput): OciMount {
  const access = mount.recursiveReadOnly ? 'rro' : mount.readonly ? 'ro' : 'rw';
  const bind: OciMount = {
    destination: mount.containerPath,
    type: 'bind',
    source: mount.hostPath,
    options: ['rbind', propagationOption[mount.propagation], access, ...mount.options],
  };
  if (mount.uidMappings.length === 0 && mount.gidMappings.length === 0) return bind;
  const idmapped = { ...bind, options: [...(bind.options ?? []), 'ridmap'] };
  const ofPod =
    mappings !== undefined &&
    sameLines(mount.uidMappings, mappings.uids) &&
    sameLines(mount.gidMappings, mappings.gids);
  // Without maps of its own a mount has those of the container (runtime-spec), which the shim holds already.
  if (ofPod) return idmapped;
  return {
    ...idmapped,
    uidMappings: mount.uidMappings.map(ociMapping),
    gidMappings: mount.gidMappings.map(ociMapping),
  };
}

/** A bidirectional or slave mount needs a root that lets events through. */
function rootPropagation(mounts: readonly Mount[]): string {
  if (mounts.some((mount) => mount.propagation === 'bidirectional')) return 'rshared';
  if (mounts.some((mount) => mount.propagation === 'host-to-container')) return 'rslave';
  return 'rprivate';
}

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
