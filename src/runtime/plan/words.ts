import { MOUNT_ATTR, MS, RLIMIT, unlimited } from './kernel.js';
import type { FsOption, IdMapLine, MountAttributes, NamespaceSource } from './plan.js';

/** Words for the parts of steps, as mount(8), findmnt(8) and ulimit would say them. */

const attributeNames: readonly (readonly [number, string, string])[] = [
  [MOUNT_ATTR.RDONLY, 'ro', 'rw'],
  [MOUNT_ATTR.NOSUID, 'nosuid', 'suid'],
  [MOUNT_ATTR.NODEV, 'nodev', 'dev'],
  [MOUNT_ATTR.NOEXEC, 'noexec', 'exec'],
  [MOUNT_ATTR.NODIRATIME, 'nodiratime', 'diratime'],
  [MOUNT_ATTR.NOSYMFOLLOW, 'nosymfollow', 'symfollow'],
];

export function attributeWords(set: number, clear = 0): string[] {
  const words = attributeNames.flatMap(([bit, on, off]) => (set & bit ? [on] : clear & bit ? [off] : []));
  const time = set & MOUNT_ATTR.ATIME_MASK;
  if (time === MOUNT_ATTR.NOATIME) words.push('noatime');
  else if (time === MOUNT_ATTR.STRICTATIME) words.push('strictatime');
  else if ((clear & MOUNT_ATTR.ATIME_MASK) === MOUNT_ATTR.ATIME_MASK) words.push('relatime');
  return words;
}

const propagationNames: readonly (readonly [number, string])[] = [
  [MS.SHARED, 'shared'],
  [MS.SLAVE, 'slave'],
  [MS.PRIVATE, 'private'],
  [MS.UNBINDABLE, 'unbindable'],
];

/** `rslave`; '' for 0. */
export const propagationWord = (flags: number): string =>
  propagationNames.flatMap(([bit, name]) => (flags & bit ? [flags & MS.REC ? `r${name}` : name] : [])).join(',');

/** `ro,nosuid,private`, with `all below: ` in front when it holds for the tree; '' when nothing changes. */
export function attributesWords(attributes: MountAttributes): string {
  const words = [...attributeWords(attributes.set, attributes.clear), propagationWord(attributes.propagation)];
  const text = words.filter(Boolean).join(',');
  return text !== '' && attributes.recursive ? `${text} for all below` : text;
}

export const optionWords = (options: readonly FsOption[]): string[] =>
  options.map(({ key, value }) => (value === undefined ? key : `${key}=${value}`));

export function sourceWords(source: NamespaceSource): string {
  if (source.from === 'pod') return 'of the pod';
  return source.from === 'container' ? `of container ${source.id}` : source.path;
}

export const idMapWords = (lines: readonly IdMapLine[]): string =>
  lines.map(({ inside, outside, count }) => `${inside}:${outside}:${count}`).join(' ');

const limitNames = new Map([...RLIMIT].map(([name, number]) => [number, name.slice('RLIMIT_'.length).toLowerCase()]));
export const limitName = (resource: number): string => limitNames.get(resource) ?? `limit ${resource}`;
export const limitValue = (value: bigint): string => (value === unlimited ? 'unlimited' : `${value}`);

export const octal = (mode: number): string => mode.toString(8).padStart(4, '0');

/** Shell-like: bare when nothing needs quotes. Control characters never reach a terminal. */
export function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : JSON.stringify(text);
}
