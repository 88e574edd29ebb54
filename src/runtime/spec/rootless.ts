import { posix } from 'node:path';
import { invalid } from '../../kit/errors.js';
import { toHost, type IdKind, type IdMappings } from '../idmap/mapping.js';
import type { IdMapping } from '../model.js';
import type { OciIdMapping, OciMount, OciNamespaceType, OciProcess, OciResources, OciRlimit, OciSpec } from './oci.js';

/** What an agent inside a user namespace may do; gathered once, at its start. */
export interface RootlessFacts {
  /** Of the agent's own user namespace. A container without one of its own has these ids. */
  readonly maps: IdMappings;
  /** Whether limits can be set: cgroup v2 with a subtree that is ours. */
  readonly cgroups: 'delegated' | 'none';
  /** Whether the host has its message queues mounted where others can bind them. */
  readonly hostQueues: boolean;
  /** The agent's own; no process of ours can have a lower one. */
  readonly oomScoreAdj: number;
  /** The agent's own by name (`RLIMIT_NOFILE`); no process of ours can have higher ones. Absent: not limited. */
  readonly hardLimits: ReadonlyMap<string, bigint>;
}

export interface RootlessSpec {
  readonly spec: OciSpec;
  /** What was left out or lowered, one sentence each. */
  readonly warnings: readonly string[];
}

type Warn = (text: string) => void;

/**
 * The spec of a container as an agent without root can make it: rights over the host's namespaces, devices and limits
 * are replaced by what its user namespace gives, and what has no replacement is left out with a warning. Throws
 * `invalid-argument` for id maps that reach beyond the agent's own.
 */
export function toRootless(spec: OciSpec, facts: RootlessFacts): RootlessSpec {
  const warnings: string[] = [];
  const warn: Warn = (text) => void warnings.push(text);
  const { linux } = spec;
  const own = new Set(linux.namespaces.map(({ type }) => type));
  const maps = containerMaps(spec, own, facts.maps);
  const ids = maps === undefined ? facts.maps : { uids: maps.uids.map(mappingOf), gids: maps.gids.map(mappingOf) };
  const { cgroupsPath, resources, uidMappings: _uids, gidMappings: _gids, ...rest } = linux;
  return {
    spec: {
      ...spec,
      ...(spec.process === undefined ? {} : { process: convertProcess(spec.process, facts, warn) }),
      ...(spec.mounts === undefined ? {} : { mounts: convertMounts(spec.mounts, { own, ids, facts, warn }) }),
      linux: {
        ...rest,
        ...(maps === undefined ? {} : { uidMappings: maps.uids, gidMappings: maps.gids }),
        ...convertCgroup(cgroupsPath, resources, facts, warn),
      },
    },
    warnings,
  };
}

// ------------------------------------------------------------------------------------------------------------- ids

interface ContainerMaps {
  readonly uids: readonly OciIdMapping[];
  readonly gids: readonly OciIdMapping[];
}

const mappingOf = ({ containerID, hostID, size }: OciIdMapping): IdMapping => ({
  containerId: containerID,
  hostId: hostID,
  size,
});

/** Of a container with a user namespace of its own. One that names no maps gets all ids the agent has, from 0 up. */
function containerMaps(
  { linux }: OciSpec,
  own: ReadonlySet<OciNamespaceType>,
  agent: IdMappings,
): ContainerMaps | undefined {
  const { uidMappings: uids = [], gidMappings: gids = [] } = linux;
  if (!own.has('user')) return undefined;
  if (uids.length === 0 && gids.length === 0) return { uids: fromZero(agent.uids), gids: fromZero(agent.gids) };
  checkWithin(uids, agent.uids, 'uid');
  checkWithin(gids, agent.gids, 'gid');
  return { uids, gids };
}

function fromZero(lines: readonly IdMapping[]): readonly OciIdMapping[] {
  let next = 0;
  return [...lines]
    .sort((a, b) => a.containerId - b.containerId)
    .map(({ containerId, size }) => {
      const line = { containerID: next, hostID: containerId, size };
      next += size;
      return line;
    });
}

/** Ids outside a nested namespace are the agent's inside. */
function checkWithin(lines: readonly OciIdMapping[], agent: readonly IdMapping[], kind: IdKind): void {
  lines.forEach(({ hostID, size }, index) => {
    const missing = firstMissing(hostID, hostID + size, agent);
    if (missing === undefined) return;
    const reason = `maps to ids ${hostID} to ${hostID + size - 1}, but the agent's user namespace has no ${kind} ${missing}`;
    throw invalid(`linux.${kind}Mappings[${index}]`, reason);
  });
}

/** The first id of [start, end) that none of the lines has. */
function firstMissing(start: number, end: number, lines: readonly IdMapping[]): number | undefined {
  let at = start;
  for (const { containerId, size } of [...lines].sort((a, b) => a.containerId - b.containerId)) {
    if (containerId <= at && at < containerId + size) at = containerId + size;
  }
  return at < end ? at : undefined;
}

// ---------------------------------------------------------------------------------------------------------- mounts

interface MountFacts {
  readonly own: ReadonlySet<OciNamespaceType>;
  /** Of the user namespace that mounts are made in. */
  readonly ids: IdMappings;
  readonly facts: RootlessFacts;
  readonly warn: Warn;
}

const convertMounts = (mounts: readonly OciMount[], given: MountFacts): readonly OciMount[] =>
  mounts.flatMap((mount) => convertMount(mount, given) ?? []);

const bindTypes: ReadonlySet<string | undefined> = new Set(['bind', 'rbind']);

/** A file system that shows a namespace can be mounted by who owns the namespace, and only bound by others. */
const shown: ReadonlyMap<string | undefined, { readonly of: OciNamespaceType; readonly host: string }> = new Map([
  ['sysfs', { of: 'network', host: '/sys' }],
  ['proc', { of: 'pid', host: '/proc' }],
  ['mqueue', { of: 'ipc', host: '/dev/mqueue' }],
]);

function convertMount(mount: OciMount, given: MountFacts): OciMount | undefined {
  const { type, options = [] } = mount;
  if (bindTypes.has(type) || options.includes('bind') || options.includes('rbind')) {
    return { ...mount, options: options.filter((option) => keepsLocks(option, mount, given.warn)) };
  }
  const obstacle = obstacleTo(mount, given);
  if (obstacle !== undefined) {
    given.warn(`mount ${mount.destination} is left out: ${obstacle}`);
    return undefined;
  }
  const namespace = shown.get(type);
  if (namespace !== undefined && !given.own.has(namespace.of)) return boundFromHost(mount, namespace.host);
  return { ...mount, options: options.filter((option) => hasMappedId(option, mount, given)) };
}

/** Why a file system can be neither mounted nor bound; undefined when one of them is possible. */
function obstacleTo({ destination, type = 'none' }: OciMount, { own, facts }: MountFacts): string | undefined {
  if (type === 'cgroup' || type === 'cgroup2') {
    return facts.cgroups === 'delegated' && own.has('cgroup') ? undefined : 'the container has no cgroup of its own';
  }
  if (type === 'mqueue' && !own.has('ipc') && !facts.hostQueues) return 'the host has no message queues mounted';
  const ours = shown.has(type) || type === 'tmpfs' || !isWithin(destination, '/sys');
  return ours ? undefined : `${type} is for the host's root alone`;
}

/** The host's mount has its flags locked for a user namespace (mount_namespaces(7)): nothing it forbids comes back. */
const unlocking = /^(r?(suid|dev|exec|symfollow|diratime|(no|strict|nostrict|rel|norel)?atime)|rrw)$/;

function keepsLocks(option: string, { destination }: OciMount, warn: Warn): boolean {
  const keeps = !unlocking.test(option);
  if (!keeps) warn(`mount ${destination}: "${option}" is left out, since the host's mount decides that`);
  return keeps;
}

/** What hangs below /sys must not be writable either: it would give the user's other programs away (CVE-2023-25809). */
function boundFromHost({ destination, type }: OciMount, source: string): OciMount {
  const access = type === 'sysfs' ? ['rnosuid', 'rnoexec', 'rnodev', 'rro'] : ['nosuid', 'noexec', 'nodev'];
  return { destination, type: 'bind', source, options: ['rbind', 'rprivate', ...access] };
}

/** By component: /sysroot is not within /sys. */
export function isWithin(path: string, parent: string): boolean {
  const clean = posix.normalize(`/${path}`).replace(/(?<=.)\/$/, '');
  return clean === parent || clean.startsWith(`${parent}/`);
}

/** Owners of a mount are ids of the namespace it is made in; the kernel refuses those that it lacks. */
function hasMappedId(option: string, { destination }: OciMount, { ids, warn }: MountFacts): boolean {
  const [, kind, digits] = /^(uid|gid)=(\d+)$/.exec(option) ?? [];
  if (kind === undefined) return true;
  const mapped = toHost(kind === 'uid' ? ids.uids : ids.gids, Number(digits)) !== undefined;
  if (!mapped) warn(`mount ${destination}: "${option}" is left out, since the user namespace has no such ${kind}`);
  return mapped;
}

// --------------------------------------------------------------------------------------------------------- process

function convertProcess(process: OciProcess, facts: RootlessFacts, warn: Warn): OciProcess {
  const { oomScoreAdj, rlimits } = process;
  return {
    ...process,
    ...(oomScoreAdj === undefined ? {} : { oomScoreAdj: clampedScore(oomScoreAdj, facts, warn) }),
    ...(rlimits === undefined ? {} : { rlimits: rlimits.map((limit) => clampedLimit(limit, facts, warn)) }),
  };
}

function clampedScore(wanted: number, { oomScoreAdj: least }: RootlessFacts, warn: Warn): number {
  if (wanted >= least) return wanted;
  warn(`oom_score_adj ${wanted} is raised to ${least}, the agent's own`);
  return least;
}

function clampedLimit(limit: OciRlimit, { hardLimits }: RootlessFacts, warn: Warn): OciRlimit {
  const most = hardLimits.get(limit.type);
  if (most === undefined || limit.hard <= most) return limit;
  warn(`${limit.type} ${limit.hard} is lowered to ${most}, the agent's own`);
  return { ...limit, hard: most, soft: limit.soft < most ? limit.soft : most };
}

// --------------------------------------------------------------------------------------------------------- cgroups

type CgroupPart = Pick<OciSpec['linux'], 'cgroupsPath' | 'resources'>;

/** Device rules need the host's rights on every cgroup: who may open a node decides instead, and none can be made. */
function convertCgroup(
  cgroupsPath: string | undefined,
  resources: OciResources | undefined,
  { cgroups }: RootlessFacts,
  warn: Warn,
): CgroupPart {
  const { devices: _, ...limits } = resources ?? {};
  if (cgroups === 'delegated') {
    return {
      ...(cgroupsPath === undefined ? {} : { cgroupsPath }),
      ...(resources === undefined ? {} : { resources: limits }),
    };
  }
  const dropped = namesOf(limits);
  if (dropped.length > 0) warn(`no cgroup is delegated to us, so there is no limit of ${dropped.join(', ')}`);
  return {};
}

/** `memory.limit`, `cpu.quota`: what is really said. */
function namesOf({ unified = {}, hugepageLimits = [], ...rest }: Omit<OciResources, 'devices'>): string[] {
  const plain = Object.entries(rest).flatMap(([part, values]) =>
    Object.entries(values ?? {}).flatMap(([name, value]) => (value === undefined ? [] : [`${part}.${name}`])),
  );
  return [...plain, ...hugepageLimits.map(({ pageSize }) => `hugepages ${pageSize}`), ...Object.keys(unified)];
}
