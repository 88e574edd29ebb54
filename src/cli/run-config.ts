import { UsageError, type Arguments } from './command.js';
import type {
  ContainerConfig,
  Mount,
  NamespaceOptions,
  PodSandboxConfig,
  PortMapping,
  SandboxSecurity,
  UserNamespaceOption,
} from '../runtime/model.js';
import { parseLines } from '../runtime/idmap/mapping.js';
import { defaultMaskedPaths, defaultReadonlyPaths } from '../runtime/spec/defaults.js';
import { readBytes } from '../config/key.js';

/** What `berth run` makes of its command line: a pod with one container. */
export interface RunRequest {
  readonly name: string;
  /** Unique to this run. */
  readonly uid: string;
  readonly image: string;
  readonly rootfs: string | undefined;
  readonly command: readonly string[];
  readonly terminal: boolean;
  readonly interactive: boolean;
  /** Directory of the log. */
  readonly logDirectory: string;
  readonly args: Arguments;
}

const namespace = 'berth';
const runLabel = 'berth.run';

/** True for the pods that `berth run` makes, which go with their only container. */
export const isRunPod = (config: PodSandboxConfig): boolean => config.labels[runLabel] !== undefined;

export function runPodConfig({ name, uid, logDirectory, args }: RunRequest): PodSandboxConfig {
  return {
    metadata: { name, uid, namespace, attempt: 0 },
    hostname: args.value('hostname') ?? (args.value('net') === 'host' ? '' : name.slice(0, 63)),
    logDirectory,
    portMappings: args.values('publish').map(portMapping),
    labels: { [runLabel]: name },
    annotations: {},
    cgroupParent: '',
    sysctls: {},
    security: sandboxSecurity(args),
  };
}

/** Shows the volumes by the ids that the pod got. */
export function withVolumesMapped(config: ContainerConfig, ids: UserNamespaceOption | undefined): ContainerConfig {
  if (ids?.mode !== 'pod') return config;
  const maps = { uidMappings: ids.uids, gidMappings: ids.gids };
  return { ...config, mounts: config.mounts.map((mount) => ({ ...mount, ...maps })) };
}

export function runContainerConfig(request: RunRequest): ContainerConfig {
  const { name, image, command, terminal, interactive, args } = request;
  const [program, ...rest] = command;
  return {
    metadata: { name, attempt: 0 },
    image: { image, userSpecifiedImage: image, annotations: {}, runtimeHandler: '' },
    // With an image the words replace its CMD, as everywhere; a bare directory has no entrypoint to put in front.
    command: request.rootfs === undefined || program === undefined ? [] : [program],
    args: request.rootfs === undefined ? command : rest,
    workingDir: args.value('workdir') ?? '',
    env: args.values('env').map(envVar),
    mounts: args.values('volume').map(volume),
    devices: [],
    cdiDevices: [],
    labels: { [runLabel]: name },
    annotations: {},
    logPath: `${name}.log`,
    stdin: interactive,
    stdinOnce: interactive,
    tty: terminal,
    resources: {
      ...(args.has('memory') && { memoryLimit: readBytes(args.value('memory'), '--memory') }),
      ...cpuLimit(args.value('cpus')),
    },
    security: {
      ...sandboxSecurity(args),
      ...userOf(args.value('user')),
      capabilities: {
        add: args.values('cap-add').map(capability),
        drop: args.values('cap-drop').map(capability),
        addAmbient: [],
      },
      noNewPrivs: false,
      maskedPaths: args.has('privileged') ? [] : defaultMaskedPaths,
      readonlyPaths: args.has('privileged') ? [] : defaultReadonlyPaths,
    },
  };
}

function sandboxSecurity(args: Arguments): SandboxSecurity {
  return {
    namespaces: namespaces(args),
    readonlyRootfs: args.has('read-only'),
    supplementalGroups: [],
    supplementalGroupsPolicy: 'merge',
    privileged: args.has('privileged'),
    seccomp: { kind: args.has('privileged') ? 'unconfined' : 'runtime-default' },
  };
}

function namespaces(args: Arguments): NamespaceOptions {
  const share = (flag: string): 'pod' | 'node' => {
    const value = args.value(flag) ?? 'pod';
    if (value !== 'pod' && value !== 'host') throw new UsageError(`--${flag} must be pod or host, not "${value}"`);
    return value === 'host' ? 'node' : 'pod';
  };
  return {
    network: share('net'),
    ipc: share('ipc'),
    pid: share('pid') === 'node' ? 'node' : 'container',
    ...userNamespace(args.value('userns')),
  };
}

/** `auto` leaves the choice of ids to the runtime; one map stands for uids and gids. */
function userNamespace(given: string | undefined): { userns?: UserNamespaceOption } {
  if (given === undefined || given === 'host') return {};
  const lines = given === 'auto' ? [] : parseLines(given, '--userns');
  return { userns: { mode: 'pod', uids: lines, gids: lines } };
}

function userOf(user: string | undefined): { runAsUser?: number; runAsGroup?: number; runAsUsername?: string } {
  if (user === undefined) return {};
  const numeric = /^(\d+)(?::(\d+))?$/.exec(user);
  if (numeric === null) return { runAsUsername: user };
  return { runAsUser: Number(numeric[1]), ...(numeric[2] !== undefined && { runAsGroup: Number(numeric[2]) }) };
}

function envVar(given: string): { key: string; value: Uint8Array } {
  const at = given.indexOf('=');
  if (at < 1) throw new UsageError(`--env must be NAME=VALUE, not "${given}"`);
  return { key: given.slice(0, at), value: Buffer.from(given.slice(at + 1)) };
}

function volume(given: string): Mount {
  const [hostPath = '', containerPath = '', mode = 'rw'] = given.split(':');
  if (!hostPath.startsWith('/') || !containerPath.startsWith('/') || !['ro', 'rw'].includes(mode))
    throw new UsageError(`--volume must be /HOST:/CONTAINER[:ro], not "${given}"`);
  return {
    hostPath,
    containerPath,
    readonly: mode === 'ro',
    selinuxRelabel: false,
    propagation: 'private',
    uidMappings: [],
    gidMappings: [],
    recursiveReadOnly: false,
    imageSubPath: '',
    options: [],
  };
}

function portMapping(given: string): PortMapping {
  const match = /^(?:(.+):)?(\d{1,5}):(\d{1,5})(?:\/(tcp|udp|sctp))?$/.exec(given);
  if (match === null) throw new UsageError(`--publish must be [ADDRESS:]HOSTPORT:PORT[/PROTOCOL], not "${given}"`);
  const [, hostIp, hostPort, containerPort, protocol = 'tcp'] = match;
  return {
    protocol: protocol as PortMapping['protocol'],
    hostPort: Number(hostPort),
    containerPort: Number(containerPort),
    ...(hostIp !== undefined && { hostIp }),
  };
}

const capability = (name: string): string =>
  name.toUpperCase() === 'ALL' ? 'ALL' : `CAP_${name.toUpperCase().replace(/^CAP_/, '')}`;

/** A share of CPUs as a quota in a period of 100 ms. */
function cpuLimit(cpus: string | undefined): { cpuPeriod?: number; cpuQuota?: number } {
  if (cpus === undefined) return {};
  const count = Number(cpus);
  if (!(count >= 0.01 && count <= 4096)) throw new UsageError(`--cpus must be a number like 0.5, not "${cpus}"`);
  return { cpuPeriod: 100_000, cpuQuota: Math.round(count * 100_000) };
}
