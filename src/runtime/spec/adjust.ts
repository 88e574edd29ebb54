import { Buffer } from 'node:buffer';
import { invalid } from '../../kit/errors.js';
import type { LinuxResources, StringMap } from '../model.js';
import type { OciDevice, OciDeviceRule, OciMount, OciNamespace, OciProcess, OciRlimit, OciSpec } from './oci.js';

/** By key: a value sets what is there under it, undefined takes it away. */
export type Changes<T> = ReadonlyMap<string, T | undefined>;

/** A device a container gets, and what may be done with it: of the letters r, w, m. Default: all. */
export interface AdjustedDevice extends OciDevice {
  readonly access?: string;
  /** Where it is on the host, if not at `path`. */
  readonly hostPath?: string;
}

/** A CDI device by its qualified name, and the field of the request that names it. */
export interface AskedDevice {
  readonly name: string;
  readonly field: string;
}

/** What others want different in a container that is being made (`lifecycle.ts`). Absent means "as it is". */
export interface SpecAdjustment {
  readonly annotations?: Changes<string>;
  /** By destination. */
  readonly mounts?: Changes<OciMount>;
  /** By name. */
  readonly env?: Changes<string>;
  readonly args?: readonly string[];
  /** By path in the container. A device that is added may be opened. */
  readonly devices?: Changes<AdjustedDevice>;
  /** CDI devices: what their specs say is another adjustment, for who knows the specs. */
  readonly cdiDevices?: readonly AskedDevice[];
  /** Further groups of the process. */
  readonly additionalGids?: readonly number[];
  /** Come after the container's own, so they have the last word. */
  readonly deviceRules?: readonly OciDeviceRule[];
  /** Each takes the place of the one of its type. */
  readonly rlimits?: readonly OciRlimit[];
  readonly sysctls?: Changes<string>;
  /** Taking one away means sharing the host's. */
  readonly namespaces?: ReadonlyMap<AdjustableNamespace, OciNamespace | undefined>;
  /** An OCI `linux.seccomp` object. */
  readonly seccomp?: unknown;
  readonly cgroupsPath?: string;
  readonly resources?: LinuxResources;
}

/** The container's root is in its mount namespace, and the pod's maps are of its user namespace: those two stay. */
export type AdjustableNamespace = Exclude<OciNamespace['type'], 'user' | 'mount' | 'time'>;

/** The specification with an adjustment made. Pure; what a plan cannot do with it shows when it is compiled. */
export function adjustSpec(spec: OciSpec, adjustment: SpecAdjustment): OciSpec {
  const annotations = changedRecord(spec.annotations ?? {}, adjustment.annotations);
  const { hostname: _, domainname: __, ...unnamed } = spec;
  const hostNames = adjustment.namespaces?.has('uts') === true && adjustment.namespaces.get('uts') === undefined;
  return {
    // A container that has the host's names must not change them.
    ...(hostNames ? unnamed : spec),
    ...(spec.process === undefined ? {} : { process: adjustProcess(spec.process, adjustment) }),
    annotations,
    mounts: adjustMounts(spec.mounts ?? [], adjustment.mounts),
    linux: adjustLinux(spec.linux, adjustment),
  };
}

function adjustProcess(process: OciProcess, adjustment: SpecAdjustment): OciProcess {
  const { args, env, rlimits = [], resources, additionalGids = [] } = adjustment;
  const { user } = process;
  const replaced = new Set(rlimits.map(({ type }) => limitName(type)));
  return {
    ...process,
    ...(args === undefined ? {} : { args }),
    ...(additionalGids.length === 0
      ? {}
      : { user: { ...user, additionalGids: [...new Set([...(user.additionalGids ?? []), ...additionalGids])] } }),
    env: adjustEnv(process.env, env),
    rlimits: [...(process.rlimits ?? []).filter(({ type }) => !replaced.has(limitName(type))), ...rlimits],
    ...(resources?.oomScoreAdj === undefined ? {} : { oomScoreAdj: resources.oomScoreAdj }),
  };
}

const limitName = (type: string): string => type.toUpperCase().replace(/^RLIMIT_/, '');

/** A variable that is there keeps its place. */
function adjustEnv(entries: readonly Uint8Array[], changes: Changes<string> = new Map()): Uint8Array[] {
  const left = new Map(changes);
  const kept = entries.flatMap((entry) => {
    const name = nameOf(entry);
    if (!changes.has(name)) return [entry];
    left.delete(name);
    return assignment(name, changes.get(name));
  });
  return [...kept, ...[...left].flatMap(([name, value]) => assignment(name, value))];
}

const assignment = (name: string, value: string | undefined): Uint8Array[] =>
  value === undefined ? [] : [Buffer.from(`${name}=${value}`)];

function nameOf(entry: Uint8Array): string {
  const end = entry.indexOf(0x3d);
  return Buffer.from(end < 0 ? entry : entry.subarray(0, end)).toString('utf8');
}

/** Shorter destinations first, so that none hides another; those the container has keep their order. */
function adjustMounts(mounts: readonly OciMount[], changes: Changes<OciMount> = new Map()): readonly OciMount[] {
  if (changes.size === 0) return mounts;
  const byPath = new Map([...changes].map(([destination, mount]) => [cleaned(destination), mount]));
  const kept = mounts.filter(({ destination }) => !byPath.has(cleaned(destination)));
  const added = [...byPath.values()].filter((mount) => mount !== undefined);
  return [...kept, ...added].sort((a, b) => depth(a.destination) - depth(b.destination));
}

const cleaned = (path: string): string => path.replace(/\/+/g, '/').replace(/(.)\/$/, '$1');
const depth = (path: string): number => path.split('/').filter((part) => part !== '').length;

function adjustLinux(linux: OciSpec['linux'], adjustment: SpecAdjustment): OciSpec['linux'] {
  const { devices, mounts, sysctls, seccomp, cgroupsPath } = adjustment;
  const namespaces: ReadonlyMap<string, OciNamespace | undefined> = adjustment.namespaces ?? new Map();
  const sysctl = changedRecord(linux.sysctl ?? {}, sysctls);
  return {
    ...linux,
    namespaces: [
      ...linux.namespaces.filter(({ type }) => !namespaces.has(type)),
      ...[...namespaces.values()].filter((namespace) => namespace !== undefined),
    ],
    devices: [
      ...(linux.devices ?? []).filter(({ path }) => devices?.has(path) !== true),
      ...added(devices).map(({ access: _, hostPath: __, ...device }) => device),
    ],
    ...(Object.keys(sysctl).length === 0 ? {} : { sysctl }),
    ...(seccomp === undefined ? {} : { seccomp }),
    ...(cgroupsPath === undefined ? {} : { cgroupsPath }),
    rootfsPropagation: rootPropagation(linux.rootfsPropagation ?? '', mounts),
    resources: adjustResources(linux.resources ?? {}, adjustment),
  };
}

const added = (devices: SpecAdjustment['devices']): AdjustedDevice[] =>
  [...(devices?.values() ?? [])].filter((device) => device !== undefined);

type Resources = NonNullable<OciSpec['linux']['resources']>;

function adjustResources(now: Resources, { devices, deviceRules = [], resources = {} }: SpecAdjustment): Resources {
  const opened = added(devices).flatMap(ruleFor);
  const { pidsLimit, hugepageLimits, unified } = resources;
  return {
    ...now,
    devices: [...(now.devices ?? []), ...opened, ...deviceRules],
    memory: { ...now.memory, ...given({ limit: resources.memoryLimit, swap: resources.memorySwapLimit }) },
    cpu: {
      ...now.cpu,
      ...given({ shares: resources.cpuShares, quota: resources.cpuQuota, period: resources.cpuPeriod }),
      ...given({ cpus: resources.cpusetCpus, mems: resources.cpusetMems }),
    },
    ...(pidsLimit === undefined ? {} : { pids: { limit: pidsLimit } }),
    ...(hugepageLimits === undefined
      ? {}
      : { hugepageLimits: hugepageLimits.map(({ pageSize, limitBytes }) => ({ pageSize, limit: limitBytes })) }),
    ...(unified === undefined ? {} : { unified }),
  };
}

/** A pipe is no device to the cgroup, and a rule that allows nothing is none. */
function ruleFor({ type, major, minor, access = 'rwm' }: AdjustedDevice): OciDeviceRule[] {
  if (type === 'p' || access === '') return [];
  return [{ allow: true, type: type === 'b' ? 'b' : 'c', major, minor, access }];
}

/** A mount that passes events on needs a root that lets them through. */
function rootPropagation(now: string, changes: Changes<OciMount> = new Map()): string {
  const options = [...changes.values()].flatMap((mount) => mount?.options ?? []);
  if (options.includes('rshared') || options.includes('shared')) return 'rshared';
  const slave = options.includes('rslave') || options.includes('slave');
  return slave && now !== 'rshared' && now !== 'shared' ? 'rslave' : now;
}

/** Resources with others over them. What is not given stays, single hugepage sizes and unified files too. */
export function adjustedResources(now: LinuxResources, change: LinuxResources): LinuxResources {
  const pages = new Map((now.hugepageLimits ?? []).map((limit) => [limit.pageSize, limit]));
  for (const limit of change.hugepageLimits ?? []) pages.set(limit.pageSize, limit);
  const unified = { ...now.unified, ...change.unified };
  return {
    ...now,
    ...change,
    ...swapOf(now, change),
    ...(pages.size === 0 ? {} : { hugepageLimits: [...pages.values()] }),
    ...(Object.keys(unified).length === 0 ? {} : { unified }),
  };
}

/** The limit of memory and swap together may not be below that of memory: the room for swap stays as it was. */
function swapOf(now: LinuxResources, change: LinuxResources): Pick<LinuxResources, 'memorySwapLimit'> {
  const { memoryLimit, memorySwapLimit } = now;
  if (change.memoryLimit === undefined || change.memorySwapLimit !== undefined) return {};
  if (memorySwapLimit === undefined || memorySwapLimit < 0) return {};
  if (change.memoryLimit < 0) return { memorySwapLimit: -1 };
  const room = memoryLimit === undefined || memoryLimit < 0 ? 0 : memorySwapLimit - memoryLimit;
  return { memorySwapLimit: change.memoryLimit + room };
}

/**
 * A container's cgroup elsewhere: beside where it is, since a pod's cgroups are limited, counted and removed together.
 *
 * @param now where it is, in cgroupfs syntax
 */
export function adjustedCgroup(now: string, wanted: string): string {
  const parent = now.slice(0, now.lastIndexOf('/'));
  const name = wanted.startsWith(`${parent}/`) ? wanted.slice(parent.length + 1) : '';
  if (/^[^/]+$/.test(name) && name !== '.' && name !== '..') return wanted;
  throw invalid('linux.cgroupsPath', `"${wanted}" is not directly in ${parent}, the pod's cgroup`);
}

function changedRecord(now: StringMap, changes: Changes<string> = new Map()): StringMap {
  const kept = Object.entries(now).filter(([key]) => !changes.has(key));
  const set = [...changes].flatMap(([key, value]) => (value === undefined ? [] : [[key, value] as const]));
  return Object.fromEntries([...kept, ...set]);
}

/** Without the members that are undefined. */
export function given<T extends object>(values: T): { [K in keyof T]?: NonNullable<T[K]> } {
  const entries = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]?: NonNullable<T[K]> };
}
