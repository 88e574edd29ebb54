import { RuntimeError, invalid } from '../../kit/errors.js';
import type { DeviceRule } from './types.js';

/**
 * Device rules for the v1 controller, as data.
 *
 * The v1 controller keeps a default and a list of exceptions; it does not keep order. So the ordered rules are first
 * brought to that form, and a list that has no such form (a denial that cuts a hole into a wider permission) is an
 * error rather than a policy that quietly allows more. The v2 program has no such limits.
 */

/** Undefined number: every one. */
interface DeviceException {
  readonly type: 'b' | 'c';
  readonly major: number | undefined;
  readonly minor: number | undefined;
  readonly access: string;
}

export interface DevicePolicy {
  readonly allowByDefault: boolean;
  readonly exceptions: readonly DeviceException[];
}

export interface DeviceWrite {
  readonly file: 'devices.allow' | 'devices.deny';
  readonly value: string;
}

const maxMajor = 0xfff;
const maxMinor = 0xfffff;

/** Refuses what the kernel would misread; `field` is the path of the list in the request. */
export function checkDeviceRules(rules: readonly DeviceRule[], field = 'deviceRules'): void {
  rules.forEach((rule, index) => {
    const path = `${field}[${index}]`;
    if (!['a', 'b', 'c'].includes(rule.type)) throw invalid(`${path}.type`, `"${rule.type}" is not one of a, b, c`);
    if (rule.type === 'a') return;
    if (!/^(?=.)r?w?m?$/.test(canonical(rule.access)) || rule.access.length > 3) {
      throw invalid(`${path}.access`, `"${rule.access}" is not made of r, w and m`);
    }
    checkNumber(rule.major, maxMajor, `${path}.major`);
    checkNumber(rule.minor, maxMinor, `${path}.minor`);
  });
}

function checkNumber(value: number | undefined, max: number, field: string): void {
  if (value === undefined || (Number.isInteger(value) && value >= 0 && value <= max)) return;
  throw invalid(field, `${value} is no device number (0 to ${max}, or absent for all)`);
}

const canonical = (access: string): string =>
  [...new Set(access)].sort((a, b) => 'rwm'.indexOf(a) - 'rwm'.indexOf(b)).join('');

/** The default-and-exceptions form of ordered rules, starting from "everything is denied". */
export function devicePolicy(rules: readonly DeviceRule[]): DevicePolicy {
  checkDeviceRules(rules);
  let allowByDefault = false;
  let exceptions: DeviceException[] = [];
  rules.forEach((rule, index) => {
    if (rule.type === 'a') {
      allowByDefault = rule.allow;
      exceptions = [];
      return;
    }
    const wanted = { type: rule.type, major: rule.major, minor: rule.minor, access: canonical(rule.access) };
    if (rule.allow === allowByDefault) exceptions = subtract(exceptions, wanted, index);
    else exceptions = merge(exceptions, wanted);
  });
  return { allowByDefault, exceptions };
}

const sameDevice = (a: DeviceException, b: DeviceException): boolean =>
  a.type === b.type && a.major === b.major && a.minor === b.minor;

const covers = (wide: DeviceException, narrow: DeviceException): boolean =>
  wide.type === narrow.type &&
  (wide.major === undefined || wide.major === narrow.major) &&
  (wide.minor === undefined || wide.minor === narrow.minor);

const overlaps = (a: DeviceException, b: DeviceException): boolean =>
  a.type === b.type &&
  (a.major === undefined || b.major === undefined || a.major === b.major) &&
  (a.minor === undefined || b.minor === undefined || a.minor === b.minor) &&
  [...a.access].some((letter) => b.access.includes(letter));

function merge(exceptions: readonly DeviceException[], added: DeviceException): DeviceException[] {
  const same = exceptions.find((item) => sameDevice(item, added));
  if (same === undefined) return [...exceptions, added];
  const merged = { ...same, access: canonical(same.access + added.access) };
  return exceptions.map((item) => (item === same ? merged : item));
}

function subtract(exceptions: readonly DeviceException[], taken: DeviceException, index: number): DeviceException[] {
  return exceptions.flatMap((item) => {
    if (!overlaps(item, taken)) return [item];
    if (!covers(taken, item)) {
      throw invalid(
        `deviceRules[${index}]`,
        `"${lineOf(taken)}" takes a part of "${lineOf(item)}" away, which cgroup v1 cannot express`,
      );
    }
    const access = [...item.access].filter((letter) => !taken.access.includes(letter)).join('');
    return access === '' ? [] : [{ ...item, access }];
  });
}

const star = (value: number | undefined): string => (value === undefined ? '*' : String(value));

const lineOf = ({ type, major, minor, access }: DeviceException): string =>
  `${type} ${star(major)}:${star(minor)} ${access}`;

/** Reads devices.list. A default of allow hides its exceptions, which shows as `exceptionsKnown: false`. */
export function parseDevicesList(text: string): DevicePolicy & { readonly exceptionsKnown: boolean } {
  const lines = text.split('\n').filter((line) => line !== '');
  const allowByDefault = lines.some((line) => line.startsWith('a '));
  if (allowByDefault) return { allowByDefault, exceptions: [], exceptionsKnown: false };
  return { allowByDefault, exceptions: lines.map(parseLine), exceptionsKnown: true };
}

function parseLine(line: string): DeviceException {
  const [, type, major, minor, access] = /^([bc]) ([0-9]+|\*):([0-9]+|\*) ([rwm]+)$/.exec(line) ?? [];
  if (type === undefined || access === undefined) {
    throw new RuntimeError('internal', `devices.list: cannot read the line "${line}"`);
  }
  const number = (text: string | undefined): number | undefined => (text === '*' ? undefined : Number(text));
  return { type: type as 'b' | 'c', major: number(major), minor: number(minor), access: canonical(access) };
}

/**
 * The writes that lead from one policy to the other. What is new is allowed before what is old is denied, so that a
 * running process never loses a device in between. Changing the default resets the list, which the kernel refuses
 * (EINVAL) while the cgroup has children.
 */
export function deviceWrites(from: DevicePolicy & { exceptionsKnown?: boolean }, to: DevicePolicy): DeviceWrite[] {
  const except =
    (allow: boolean) =>
    (item: DeviceException): DeviceWrite => ({
      file: allow ? 'devices.allow' : 'devices.deny',
      value: lineOf(item),
    });
  if (from.allowByDefault !== to.allowByDefault || from.exceptionsKnown === false) {
    const reset: DeviceWrite = { file: to.allowByDefault ? 'devices.allow' : 'devices.deny', value: 'a' };
    return [reset, ...to.exceptions.map(except(!to.allowByDefault))];
  }
  const added = difference(to.exceptions, from.exceptions).map(except(!to.allowByDefault));
  const removed = difference(from.exceptions, to.exceptions).map(except(to.allowByDefault));
  return to.allowByDefault ? [...removed, ...added] : [...added, ...removed];
}

/** The part of `left`, access letter by letter, that `right` does not have for the very same device. */
function difference(left: readonly DeviceException[], right: readonly DeviceException[]): DeviceException[] {
  return left.flatMap((item) => {
    const same = right.find((other) => sameDevice(item, other));
    const access = [...item.access].filter((letter) => same?.access.includes(letter) !== true).join('');
    return access === '' ? [] : [{ ...item, access }];
  });
}
