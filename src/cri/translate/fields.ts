/**
 * Checks every translation uses. Each takes the path of the field as the caller wrote it (`config.linux.sysctls`) and
 * throws `invalid-argument` with it. Absent and empty values become `undefined` where the model says "not given".
 */
import { invalid } from '../../kit/errors.js';
import type { StringMap } from '../../runtime/model.js';

/** Highest uid or gid a request may name: the CRI carries them signed, Kubernetes allows 31 bits. */
export const highestId = 2 ** 31 - 1;

export function required<T>(path: string, value: T | undefined): T {
  if (value === undefined) throw invalid(path, 'is required');
  return value;
}

/** No NUL: the kernel would end the string there and see another value than was checked. */
export function text(path: string, value: string): string {
  if (value.includes('\0')) throw invalid(path, 'must not contain a NUL character');
  return value;
}

export function nonEmpty(path: string, value: string): string {
  if (value === '') throw invalid(path, 'must not be empty');
  return text(path, value);
}

/** One line: control characters would let a value leave its line in a file or in a log. */
export function line(path: string, value: string): string {
  // eslint-disable-next-line no-control-regex -- control bytes are what this looks for
  if (/[\u0000-\u001f\u007f]/.test(value)) throw invalid(path, 'must not contain control characters');
  return value;
}

export function word(path: string, value: string): string {
  if (value === '' || /\s/.test(value)) throw invalid(path, `"${value}" must be one word`);
  return line(path, value);
}

const longestName = 253;

/** A part of an object's name. 253 is the longest name Kubernetes knows. */
export function name(path: string, value: string): string {
  if (value.length > longestName) throw invalid(path, `is longer than ${longestName} characters`);
  return line(path, nonEmpty(path, value));
}

export const texts = (path: string, values: readonly string[]): readonly string[] =>
  values.map((value, index) => text(`${path}[${index}]`, value));

export function absolutePath(path: string, value: string): string {
  if (!value.startsWith('/')) throw invalid(path, `"${value}" must be an absolute path`);
  return text(path, value);
}

export const climbs = (value: string): boolean => value.split('/').includes('..');

/** A path that stays below the directory it is relative to. */
export function pathBelow(path: string, value: string): string {
  if (value.startsWith('/')) throw invalid(path, `"${value}" must be a relative path`);
  if (climbs(value)) throw invalid(path, `"${value}" must not contain ".."`);
  return line(path, value);
}

export function integer(path: string, value: bigint): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw invalid(path, `${value} is out of range`);
  return number;
}

/** For limits: 0 is "not given", -1 and anything below mean "no limit". */
export function limit(path: string, value: bigint): number | undefined {
  if (value === 0n) return undefined;
  return value < 0n ? -1 : integer(path, value);
}

export function atLeast(path: string, value: number, lowest: number): number {
  if (value < lowest) throw invalid(path, `${value} is below ${lowest}`);
  return value;
}

export function within(path: string, value: number, lowest: number, highest: number): number {
  if (value < lowest || value > highest) throw invalid(path, `${value} is not within ${lowest} to ${highest}`);
  return value;
}

export function id(path: string, value: bigint): number {
  return within(path, integer(path, value), 0, highestId);
}

export const optionalId = (path: string, value: { value: bigint } | undefined): number | undefined =>
  value === undefined ? undefined : id(path, value.value);

/** Looks an enum value up; values newer than this release are refused, not guessed. */
export function choice<T>(path: string, table: readonly (T | undefined)[], value: number): T {
  const found = table[value];
  if (found === undefined) throw invalid(path, `value ${value} is not supported`);
  return found;
}

/** A copy without the wire object's prototype in the way: any string may be a key. */
export const copyMap = (map: StringMap): StringMap => ({ ...map });

/** Leaves out members that are undefined, for records whose optional members are absent rather than undefined. */
export function given<T extends object>(members: { [K in keyof T]: T[K] | undefined }): T {
  const result: Partial<T> = {};
  for (const key of Object.keys(members) as (keyof T)[]) {
    const value = members[key];
    if (value !== undefined) result[key] = value;
  }
  return result as T;
}
