import { invalid } from '../../kit/errors.js';

/** An object of a file and where it is, as a prefix of its fields' names: `devices[0].`. */
export interface Fields {
  readonly at: string;
  readonly values: Readonly<Record<string, unknown>>;
}

/** An object. With `known`, any other field is refused. Errors of all of these: invalid-argument with the field. */
export function fields(value: unknown, at: string, known?: readonly string[]): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(at || 'spec', 'is no object');
  const prefix = at === '' ? '' : `${at}.`;
  const unknown = Object.keys(value).find((name) => known?.includes(name) === false);
  if (unknown !== undefined) throw invalid(`${prefix}${unknown}`, 'is no field of this object');
  return { at: prefix, values: value as Record<string, unknown> };
}

/** Undefined for what is missing, null or empty. */
export function optional<T>(from: Fields, name: string, read: (value: unknown, at: string) => T): T | undefined {
  const value = Object.hasOwn(from.values, name) ? from.values[name] : undefined;
  const absent = value === undefined || value === null || value === '' || value === '~' || value === 'null';
  return absent ? undefined : read(value, `${from.at}${name}`);
}

export const list = <T>(from: Fields, name: string, read: (value: unknown, at: string) => T): readonly T[] =>
  optional(from, name, (value, at) => {
    if (!Array.isArray(value)) throw invalid(at, 'is no list');
    return value.map((entry, index) => read(entry, `${at}[${index}]`));
  }) ?? [];

export function text(from: Fields, name: string, { empty = false } = {}): string {
  const value = Object.hasOwn(from.values, name) ? from.values[name] : undefined;
  if (typeof value === 'string' && (empty || value !== '')) return value;
  throw invalid(`${from.at}${name}`, value === undefined || value === '' ? 'is missing' : 'is no string');
}

export const texts = (from: Fields, name: string): readonly string[] =>
  list(from, name, (value, at) => {
    if (typeof value === 'string') return value;
    throw invalid(at, 'is no string');
  });

/** From 0 to `max`. In text a leading 0 or 0o makes it octal and 0x hexadecimal, as in YAML 1.1 and 1.2. */
export function integerOf(value: unknown, at: string, max: number): number {
  const number = typeof value === 'string' ? numberIn(value) : value;
  if (typeof number === 'number' && Number.isInteger(number) && number >= 0 && number <= max) return number;
  throw invalid(at, `is no integer from 0 to ${max}`);
}

export const integer = (from: Fields, name: string, max: number): number | undefined =>
  optional(from, name, (value, at) => integerOf(value, at, max));

function numberIn(value: string): number {
  const octal = /^0o?([0-7]+)$/.exec(value);
  if (octal !== null) return Number.parseInt(octal[1] ?? '', 8);
  return /^(\d+|0x[\da-f]+)$/i.test(value) ? Number(value) : Number.NaN;
}
