import { invalid } from '../../kit/errors.js';
import { MOUNT_ATTR, MS } from './kernel.js';
import type { FsOption } from './plan.js';

/** The options of one OCI mount, sorted by what the kernel wants them for. */
export interface ParsedMountOptions {
  /** MOUNT_ATTR_* of the mount itself; `clear` goes before `set`. */
  readonly set: number;
  readonly clear: number;
  /** The same for the mount and all below it (`rro`, …). */
  readonly recursiveSet: number;
  readonly recursiveClear: number;
  /** MS_PRIVATE and the like without MS_REC; 0: nothing was said. */
  readonly propagation: number;
  readonly recursivePropagation: boolean;
  readonly bind: boolean;
  readonly recursiveBind: boolean;
  /** `idmap` or `ridmap`. */
  readonly idmap: boolean;
  /** `ridmap`. */
  readonly recursiveIdmap: boolean;
  readonly copyUp: boolean;
  /** What is left belongs to the file system. */
  readonly data: readonly FsOption[];
}

interface AttributeRule {
  readonly set: number;
  readonly clear: number;
}

const on = (bit: number): AttributeRule => ({ set: bit, clear: 0 });
const off = (bit: number): AttributeRule => ({ set: 0, clear: bit });
/** Access time is a field of its own: to set one value is to clear the others. */
const accessTime = (value: number): AttributeRule => ({ set: value, clear: MOUNT_ATTR.ATIME_MASK });

/** runtime-spec "Linux mount options"; with an `r` in front they hold for the mounts below too. */
const attributeRules: ReadonlyMap<string, AttributeRule> = new Map([
  ['ro', on(MOUNT_ATTR.RDONLY)],
  ['nosuid', on(MOUNT_ATTR.NOSUID)],
  ['suid', off(MOUNT_ATTR.NOSUID)],
  ['nodev', on(MOUNT_ATTR.NODEV)],
  ['dev', off(MOUNT_ATTR.NODEV)],
  ['noexec', on(MOUNT_ATTR.NOEXEC)],
  ['exec', off(MOUNT_ATTR.NOEXEC)],
  ['nodiratime', on(MOUNT_ATTR.NODIRATIME)],
  ['diratime', off(MOUNT_ATTR.NODIRATIME)],
  ['nosymfollow', on(MOUNT_ATTR.NOSYMFOLLOW)],
  ['symfollow', off(MOUNT_ATTR.NOSYMFOLLOW)],
  ['noatime', accessTime(MOUNT_ATTR.NOATIME)],
  ['atime', accessTime(0)],
  ['relatime', accessTime(0)],
  ['norelatime', accessTime(0)],
  ['strictatime', accessTime(MOUNT_ATTR.STRICTATIME)],
  ['nostrictatime', accessTime(0)],
]);

const propagations: ReadonlyMap<string, number> = new Map([
  ['private', MS.PRIVATE],
  ['shared', MS.SHARED],
  ['slave', MS.SLAVE],
  ['unbindable', MS.UNBINDABLE],
]);

/** Said for completeness or for other programs; nothing changes. A bind keeps what its source forbids to write. */
const ignored: ReadonlySet<string> = new Set(['defaults', 'rw', 'silent', 'loud', 'auto', 'noauto', '']);

/** @param field path of the options in the spec, for errors */
export function parseMountOptions(options: readonly string[], field: string): ParsedMountOptions {
  const result = {
    set: 0,
    clear: 0,
    recursiveSet: 0,
    recursiveClear: 0,
    propagation: 0,
    recursivePropagation: false,
    bind: false,
    recursiveBind: false,
    idmap: false,
    recursiveIdmap: false,
    copyUp: false,
    data: [] as FsOption[],
  };
  options.forEach((option, index) => {
    if (option.includes('\0')) throw invalid(`${field}[${index}]`, 'holds a zero byte');
    if (option === 'remount') throw invalid(`${field}[${index}]`, 'a remount is not possible');
    if (ignored.has(option) || option.startsWith('x-')) return;
    if (applyWord(result, option) || applyAttribute(result, option) || applyPropagation(result, option)) return;
    result.data.push(dataOption(option));
  });
  return result;
}

type Mutable = { -readonly [Key in keyof ParsedMountOptions]: ParsedMountOptions[Key] };

function applyWord(result: Mutable, option: string): boolean {
  if (option === 'bind' || option === 'rbind') {
    result.bind = true;
    result.recursiveBind ||= option === 'rbind';
  } else if (option === 'idmap' || option === 'ridmap') {
    result.idmap = true;
    result.recursiveIdmap ||= option === 'ridmap';
  } else if (option === 'tmpcopyup') result.copyUp = true;
  else return false;
  return true;
}

function applyAttribute(result: Mutable, option: string): boolean {
  if (option === 'rrw') {
    result.recursiveSet &= ~MOUNT_ATTR.RDONLY;
    result.recursiveClear |= MOUNT_ATTR.RDONLY;
    return true;
  }
  const plain = attributeRules.get(option);
  const recursive = option.startsWith('r') ? attributeRules.get(option.slice(1)) : undefined;
  if (plain !== undefined) {
    result.set = (result.set & ~plain.clear) | plain.set;
    result.clear = (result.clear & ~plain.set) | plain.clear;
  } else if (recursive !== undefined) {
    result.recursiveSet = (result.recursiveSet & ~recursive.clear) | recursive.set;
    result.recursiveClear = (result.recursiveClear & ~recursive.set) | recursive.clear;
  } else return false;
  return true;
}

function applyPropagation(result: Mutable, option: string): boolean {
  const plain = propagations.get(option);
  const recursive = option.startsWith('r') ? propagations.get(option.slice(1)) : undefined;
  if (plain === undefined && recursive === undefined) return false;
  result.propagation = plain ?? recursive ?? 0;
  result.recursivePropagation = plain === undefined;
  return true;
}

/** Superblock flags (`sync`, `lazytime`, …) go to fsconfig(2) under their own names, too. */
function dataOption(option: string): FsOption {
  const equals = option.indexOf('=');
  if (equals < 0) return { key: option };
  return { key: option.slice(0, equals), value: option.slice(equals + 1) };
}
