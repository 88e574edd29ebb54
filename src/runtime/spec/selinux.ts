import { invalid } from '../../kit/errors.js';
import type { SelinuxOption } from '../model.js';
import type { OciSpec } from './oci.js';

/** Labels of a container: of its processes, and of what is mounted for it and its volumes. */
export interface SelinuxLabels {
  readonly process: string;
  readonly mount: string;
}

interface Context {
  readonly user: string;
  readonly role: string;
  readonly type: string;
  /** MLS level or range; '' with a policy that has none. */
  readonly level: string;
}

/** What containers get where the policy does not say (contexts/lxc_contexts of SELinux' own policies). */
const usual: SelinuxLabels = {
  process: 'system_u:system_r:container_t:s0',
  mount: 'system_u:object_r:container_file_t:s0',
};

/** The node's labels for containers, from its policy's `lxc_contexts`: lines of `process = "…"` and `file = "…"`. */
export function policyLabels(lxcContexts: string): SelinuxLabels {
  const value = (name: string): string | undefined =>
    new RegExp(`^\\s*${name}\\s*=\\s*"?([^"\\s]+)"?\\s*$`, 'm').exec(lxcContexts)?.[1];
  return { process: value('process') ?? usual.process, mount: value('file') ?? usual.mount };
}

/** The type of policy an /etc/selinux/config chooses: a directory beside it. */
export const policyType = (config: string): string | undefined =>
  /^\s*SELINUXTYPE\s*=\s*([\w.-]+)\s*$/m.exec(config)?.[1];

/**
 * The node's labels with what a security context asks for over them; files keep the node's role and type.
 *
 * @param level of the pod, where the context names none; '' is the policy's. Policies without levels get none
 * @param field of the context, for errors: invalid-argument where a part could not stand in a label
 */
export function selinuxLabels(
  { process, mount }: SelinuxLabels,
  options: SelinuxOption | undefined,
  level: string,
  field: string,
): SelinuxLabels {
  const asked = options === undefined ? {} : checkedParts(options, field);
  const files = Object.fromEntries(Object.entries(asked).filter(([part]) => part === 'user' || part === 'level'));
  return {
    process: contextText({ ...atLevel(contextOf(process), level), ...asked }),
    mount: contextText({ ...atLevel(contextOf(mount), level), ...files }),
  };
}

const atLevel = (context: Context, level: string): Context =>
  context.level === '' || level === '' ? context : { ...context, level };

/** The parts that are given. */
function checkedParts(options: SelinuxOption, field: string): Partial<Context> {
  const given = (['user', 'role', 'type', 'level'] as const).filter((part) => options[part] !== '');
  for (const part of given) {
    const grammar = part === 'level' ? levelGrammar : /^[\w.-]+$/;
    if (!grammar.test(options[part])) throw invalid(`${field}.${part}`, `"${options[part]}" is no SELinux ${part}`);
  }
  return Object.fromEntries(given.map((part) => [part, options[part]]));
}

/** `s0`, `s0:c1,c2`, `s0:c0.c1023`, and ranges of two such. */
const levelGrammar = /^s\d+(:c\d+([.,]c\d+)*)?(-s\d+(:c\d+([.,]c\d+)*)?)?$/;

function contextOf(text: string): Context {
  const [user = '', role = '', type = '', ...level] = text.split(':');
  return { user, role, type, level: level.join(':') };
}

const contextText = ({ user, role, type, level }: Context): string =>
  [user, role, type, ...(level === '' ? [] : [level])].join(':');

/** A privileged container's processes are the runtime's own to the policy; its files are labelled as anybody's. */
export function labelledSpec(spec: OciSpec, { process, mount }: SelinuxLabels, privileged: boolean): OciSpec {
  return {
    ...spec,
    ...(spec.process === undefined || privileged ? {} : { process: { ...spec.process, selinuxLabel: process } }),
    linux: { ...spec.linux, mountLabel: mount },
  };
}

// ----------------------------------------------------------------------------------------------------------- levels

/** Categories of multi-category policies; two different ones make a pod's level. */
const categories = 1024;
const pairs = (categories * (categories - 1)) / 2;

/**
 * A level that no pod has, so that none may touch another's files. Errors: exhausted is impossible below half a million.
 *
 * @param start where the search begins: random, or pods after a restart would get the levels of those before
 */
export function freeLevel(taken: Iterable<string>, start: number): string {
  const known = new Set([...taken].map(sortedLevel));
  for (let offset = 0; offset < pairs; offset++) {
    const level = pairLevel((start + offset) % pairs);
    if (!known.has(level)) return level;
  }
  throw invalid('selinux_options.level', 'every pair of categories is in use; name one');
}

function pairLevel(index: number): string {
  let low = 0;
  let left = index;
  for (; left >= categories - 1 - low; low++) left -= categories - 1 - low;
  return `s0:c${low},c${low + 1 + left}`;
}

/** `s0:c5,c3` is `s0:c3,c5`. */
function sortedLevel(level: string): string {
  const found = /^(s\d+:)c(\d+),c(\d+)$/.exec(level);
  if (found === null) return level;
  const [, sensitivity = '', ...both] = found;
  const [low = 0, high = 0] = both.map(Number).sort((a, b) => a - b);
  return `${sensitivity}c${low},c${high}`;
}

// ---------------------------------------------------------------------------------------------------------- volumes

/** Directories many share: labelled for one pod they would be lost to the host. What lies in them may be labelled. */
const shared: ReadonlySet<string> = new Set(
  ['', 'etc', 'home', 'media', 'mnt', 'opt', 'root', 'run', 'srv', 'tmp', 'var']
    .concat(['cache', 'lib', 'lock', 'log', 'opt', 'run', 'spool', 'tmp'].map((name) => `var/${name}`))
    .map((name) => `/${name}`),
);

/** The system's own, all the way down. */
const system = /^\/(bin|boot|dev|lib|lib32|lib64|libx32|proc|sbin|sys|usr)(\/|$)/;

/** Why a path of the host, without links, must keep its label; undefined when it may get another. */
export function relabelRefusal(path: string): string | undefined {
  const normal = path.length > 1 ? path.replace(/\/+$/, '') : path;
  if (shared.has(normal)) return `${path} belongs to the whole host and is never relabelled`;
  return system.test(normal) ? `${path} belongs to the system and is never relabelled` : undefined;
}
