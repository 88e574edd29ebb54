import { RuntimeError, invalid } from '../../kit/errors.js';
import { toHost, type IdMappings } from '../idmap/mapping.js';
import type { IdMapping } from '../model.js';
import type { OciCapabilities, OciIdMapping, OciProcess, OciRlimit, OciSpec } from '../spec/oci.js';
import { capabilityMask } from './capabilities.js';
import type { LaunchKernelFacts, SeccompFilter } from './facts.js';
import { RLIMIT } from './kernel.js';
import type { InnerStep } from './plan.js';

const maxId = 0xffff_fffe;

/** What a container's first process and one that joins it have in common, up to exec. */
export interface ProcessInput {
  readonly process: OciProcess;
  readonly kernel: LaunchKernelFacts;
  readonly seccomp: SeccompFilter | undefined;
  /** Steps that must come right before the credentials change. */
  readonly late: readonly InnerStep[];
  /** The session keyring's name; undefined keeps the one there is. */
  readonly keyring: string | undefined;
  /** Maps of the user namespace the process is in; absent: the host's. Without lines, as a joined one may be, unknown. */
  readonly ids?: IdMappings;
}

/** The spec's maps, under the names of the mapping algebra. */
export const idMapsOf = ({ linux }: OciSpec): IdMappings => ({
  uids: (linux.uidMappings ?? []).map(mappingOf),
  gids: (linux.gidMappings ?? []).map(mappingOf),
});

const mappingOf = ({ containerID, hostID, size }: OciIdMapping): IdMapping => ({
  containerId: containerID,
  hostId: hostID,
  size,
});

/** In the order that lets every step still do what it must, and leaves nothing behind it that the next could miss. */
export function compileProcess(input: ProcessInput): InnerStep[] {
  const { process, kernel } = input;
  checkProcess(process);
  if (input.ids !== undefined) checkMapped(process, input.ids);
  return [
    ...rlimits(process.rlimits ?? [], kernel),
    ...oomScore(process.oomScoreAdj, kernel),
    ...(process.user.umask === undefined ? [] : [{ op: 'umask', mask: process.user.umask & 0o777 } as const]),
    ...(input.keyring === undefined ? [] : [{ op: 'session-keyring', name: input.keyring } as const]),
    ...input.late,
    ...label('apparmor', process.apparmorProfile),
    ...label('selinux', process.selinuxLabel),
    { op: 'cwd', path: process.cwd, create: false },
    chownStdio(process, input.ids),
    { op: 'user', uid: process.user.uid, gid: process.user.gid, groups: groups(process) },
    ...privileges(input),
    { op: 'exec', args: process.args, env: process.env },
  ];
}

function chownStdio({ user }: OciProcess, ids: IdMappings | undefined): InnerStep {
  const outside = toHost(ids?.uids ?? [], user.uid);
  return { op: 'chown-stdio', uid: user.uid, gid: user.gid, ...(outside === undefined ? {} : { outside }) };
}

/** The kernel would say EINVAL in the middle of a start. */
function checkMapped({ user }: OciProcess, { uids, gids }: IdMappings): void {
  const check = (lines: readonly IdMapping[], id: number, field: string): void => {
    if (lines.length > 0 && toHost(lines, id) === undefined) {
      throw invalid(`process.user.${field}`, `${id} is not mapped in the user namespace`);
    }
  };
  check(uids, user.uid, 'uid');
  check(gids, user.gid, 'gid');
  (user.additionalGids ?? []).forEach((gid, index) => check(gids, gid, `additionalGids[${index}]`));
}

/**
 * A filter needs either no_new_privs or CAP_SYS_ADMIN. With the first it comes last, so that it need not allow anything
 * but execve; without, right before the capabilities go.
 */
function privileges(input: ProcessInput): InnerStep[] {
  const { process, kernel, seccomp } = input;
  const capabilities = capabilitySets(process.capabilities ?? {}, kernel);
  const filter: InnerStep[] =
    seccomp === undefined ? [] : [{ op: 'seccomp', program: seccomp.program, flags: seccomp.flags }];
  if (process.noNewPrivileges === true) return [capabilities, { op: 'no-new-privileges' }, ...filter];
  return [...filter, capabilities];
}

/** What the shim does not have it cannot hand on. Ambient needs permitted and inheritable (capabilities(7)). */
function capabilitySets(capabilities: OciCapabilities, kernel: LaunchKernelFacts): InnerStep {
  const mask = (names: readonly string[] | undefined, set: string): bigint =>
    capabilityMask(names ?? [], kernel.lastCapability, `process.capabilities.${set}`) & kernel.capabilities;
  const bounding = mask(capabilities.bounding, 'bounding');
  const permitted = mask(capabilities.permitted, 'permitted');
  const effective = mask(capabilities.effective, 'effective') & permitted;
  const inheritable = mask(capabilities.inheritable, 'inheritable') & bounding;
  const ambient = mask(capabilities.ambient, 'ambient') & permitted & inheritable;
  return { op: 'capabilities', bounding, permitted, effective, inheritable, ambient };
}

function rlimits(limits: readonly OciRlimit[], kernel: LaunchKernelFacts): InnerStep[] {
  const seen = new Set<number>();
  return limits.map(({ type, soft, hard }, index) => {
    const field = `process.rlimits[${index}]`;
    const resource = RLIMIT.get(type.toUpperCase());
    if (resource === undefined) throw invalid(`${field}.type`, `"${type}" is no resource limit`);
    if (seen.has(resource)) throw invalid(`${field}.type`, `${type} is given twice`);
    if (soft > hard) throw invalid(`${field}.soft`, `${soft} is above the hard limit ${hard}`);
    seen.add(resource);
    return { op: 'rlimit', resource, soft, hard, ...(kernel.canRaiseLimits ? {} : { clamp: true }) };
  });
}

function oomScore(value: number | undefined, kernel: LaunchKernelFacts): InnerStep[] {
  if (value === undefined) return [];
  if (!Number.isInteger(value) || value < -1000 || value > 1000) {
    throw invalid('process.oomScoreAdj', `${value} is not between -1000 and 1000`);
  }
  return [{ op: 'oom-score', value, clamp: !kernel.canRaiseLimits }];
}

function label(op: 'apparmor' | 'selinux', text: string | undefined): InnerStep[] {
  if (text === undefined || text === '') return [];
  return op === 'apparmor' ? [{ op, profile: text }] : [{ op, label: text }];
}

/** Sorted and without repetition, the primary group always among them (CVE-2023-25173). */
const groups = ({ user }: OciProcess): number[] =>
  [...new Set([user.gid, ...(user.additionalGids ?? [])])].sort((a, b) => a - b);

function checkProcess(process: OciProcess): void {
  if (process.args.length === 0) throw invalid('process.args', 'names no program');
  if (!process.cwd.startsWith('/')) throw invalid('process.cwd', `"${process.cwd}" is not an absolute path`);
  checkId(process.user.uid, 'process.user.uid');
  checkId(process.user.gid, 'process.user.gid');
  (process.user.additionalGids ?? []).forEach((gid, index) => checkId(gid, `process.user.additionalGids[${index}]`));
  process.args.forEach((arg, index) => checkText(arg.includes('\0'), `process.args[${index}]`));
  process.env.forEach((entry, index) => checkText(entry.includes(0), `process.env[${index}]`));
}

function checkText(hasZero: boolean, field: string): void {
  if (hasZero) throw invalid(field, 'holds a zero byte');
}

function checkId(id: number, field: string): void {
  if (!Number.isInteger(id) || id < 0 || id > maxId) throw invalid(field, `${id} is not an id`);
}

/** The spec's process; a spec without one starts nothing. */
export function processOf(process: OciProcess | undefined): OciProcess {
  if (process === undefined)
    throw new RuntimeError('invalid-argument', 'process: the spec has none, so there is nothing to run');
  return process;
}
