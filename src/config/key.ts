import { invalid } from '../kit/errors.js';

/**
 * One setting: its kind, its default, the values it takes and what it is for. The table of all of them is
 * `table.ts`; the TOML file, the environment, the flags, `berth config default` and the chart's schema all follow
 * from it.
 */
export interface Key<T> {
  readonly kind: 'string' | 'path' | 'integer' | 'number' | 'boolean' | 'bytes' | 'duration' | 'list' | 'map';
  readonly default: T;
  readonly about: string;
  /** May change while the agent runs (SIGHUP). */
  readonly reloadable: boolean;
  /** The only values allowed, for kind `string`. */
  readonly choices?: readonly string[];
  /** Bounds of numbers, inclusive, in the unit of the value. */
  readonly min?: number;
  readonly max?: number;
  /** A further check; returns what is wrong. */
  readonly check?: (value: T) => string | undefined;
}

export type StringTable = Readonly<Record<string, string>>;
type Extra<T> = Partial<Pick<Key<T>, 'reloadable' | 'min' | 'max' | 'check'>>;

const key = <T>(kind: Key<T>['kind'], value: T, about: string, extra: Extra<T> = {}): Key<T> => ({
  kind,
  default: value,
  about,
  reloadable: false,
  ...extra,
});

export const string = (value: string, about: string, extra?: Extra<string>): Key<string> =>
  key('string', value, about, extra);
/** An absolute path; '' where the description says what that means. */
export const path = (value: string, about: string, extra?: Extra<string>): Key<string> =>
  key('path', value, about, extra);
export const integer = (value: number, about: string, extra?: Extra<number>): Key<number> =>
  key('integer', value, about, { min: 0, ...extra });
export const number = (value: number, about: string, extra?: Extra<number>): Key<number> =>
  key('number', value, about, extra);
export const boolean = (value: boolean, about: string, extra?: Extra<boolean>): Key<boolean> =>
  key('boolean', value, about, extra);
/** Bytes; written as an integer or with a unit: `16KiB`. */
export const bytes = (value: number, about: string, extra?: Extra<number>): Key<number> =>
  key('bytes', value, about, { min: 0, ...extra });
/** Milliseconds; written with a unit: `500ms`, `30s`, `5m`, `1h`. The property's name ends in `Ms`. */
export const duration = (value: number, about: string, extra?: Extra<number>): Key<number> =>
  key('duration', value, about, { min: 0, ...extra });
export const list = (value: readonly string[], about: string, extra?: Extra<readonly string[]>) =>
  key<readonly string[]>('list', value, about, extra);
export const map = (value: StringTable, about: string, extra?: Extra<StringTable>) =>
  key<StringTable>('map', value, about, extra);

export function choice<const C extends readonly string[]>(
  choices: C,
  value: C[number],
  about: string,
  extra?: Extra<C[number]>,
): Key<C[number]> {
  return { ...key<C[number]>('string', value, about, extra), choices };
}

/**
 * Reads a value as the key wants it, from a TOML value or, when it is a string, from the environment or a flag.
 * Throws `invalid-argument` with `where` (the key and its source) in front.
 */
export function readValue(key: Key<unknown>, given: unknown, where: string): unknown {
  const value = readers[key.kind](given, where);
  if (key.choices !== undefined && !key.choices.includes(value as string))
    throw invalid(where, `must be one of ${key.choices.join(', ')}, not ${show(given)}`);
  if (typeof value === 'number') checkBounds(key, value, given, where);
  const wrong = key.check?.(value);
  if (wrong !== undefined) throw invalid(where, wrong);
  return value;
}

function checkBounds(key: Key<unknown>, value: number, given: unknown, where: string): void {
  if (key.min !== undefined && value < key.min) throw invalid(where, `must be ${key.min} or more, not ${show(given)}`);
  if (key.max !== undefined && value > key.max) throw invalid(where, `must be ${key.max} or less, not ${show(given)}`);
}

const readers: Readonly<Record<Key<unknown>['kind'], (given: unknown, where: string) => unknown>> = {
  string: readString,
  path: readPath,
  integer: (given, where) => readNumber(given, where, true),
  number: (given, where) => readNumber(given, where, false),
  boolean: readBoolean,
  bytes: readBytes,
  duration: readDuration,
  list: readList,
  map: readMap,
};

const show = (value: unknown): string =>
  typeof value === 'bigint' ? `${value}` : (JSON.stringify(value) ?? 'nothing');

function readString(given: unknown, where: string): string {
  if (typeof given !== 'string') throw invalid(where, `must be a string, not ${show(given)}`);
  return given;
}

function readPath(given: unknown, where: string): string {
  const value = readString(given, where);
  if (value !== '' && !value.startsWith('/')) throw invalid(where, `must be an absolute path, not ${show(given)}`);
  return value.length > 1 ? value.replace(/\/+$/, '') : value;
}

function readNumber(given: unknown, where: string, whole: boolean): number {
  const value = typeof given === 'string' && given.trim() !== '' ? Number(given) : given;
  const fits = typeof value === 'number' && (whole ? Number.isSafeInteger(value) : Number.isFinite(value));
  if (!fits) throw invalid(where, `must be ${whole ? 'an integer' : 'a number'}, not ${show(given)}`);
  return value;
}

function readBoolean(given: unknown, where: string): boolean {
  if (typeof given === 'boolean') return given;
  if (given === 'true' || given === 'false') return given === 'true';
  throw invalid(where, `must be true or false, not ${show(given)}`);
}

const byteUnits: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** Bytes of `65536`, `"65536"` or `"64KiB"`. */
export function readBytes(given: unknown, where: string): number {
  if (typeof given === 'number' && Number.isSafeInteger(given)) return given;
  const match = typeof given === 'string' ? /^(\d+) ?([KMGT]iB|B|)$/.exec(given) : null;
  if (match === null) throw invalid(where, `must be bytes like 65536 or "64KiB", not ${show(given)}`);
  return Number(match[1]) * (byteUnits[match[2] ?? ''] ?? 1);
}

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

function readDuration(given: unknown, where: string): number {
  const match = typeof given === 'string' ? /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(given) : null;
  if (given === '0') return 0;
  if (match === null) throw invalid(where, `must be a duration like "500ms", "30s" or "5m", not ${show(given)}`);
  return Number(match[1]) * (durationUnits[match[2] ?? ''] ?? 1);
}

function readList(given: unknown, where: string): readonly string[] {
  if (typeof given === 'string') return given === '' ? [] : given.split(',').map((item) => item.trim());
  if (!Array.isArray(given)) throw invalid(where, `must be a list of strings, not ${show(given)}`);
  return given.map((item) => readString(item, where));
}

function readMap(given: unknown, where: string): StringTable {
  if (typeof given === 'string') return Object.fromEntries(readList(given, where).map((pair) => readPair(pair, where)));
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw invalid(where, `must be a table of strings, not ${show(given)}`);
  return Object.fromEntries(
    Object.entries(given).map(([name, value]) => [name, readString(value, `${where}.${name}`)]),
  );
}

function readPair(pair: string, where: string): [string, string] {
  const at = pair.indexOf('=');
  if (at < 1) throw invalid(where, `must be name=value pairs, not ${show(pair)}`);
  return [pair.slice(0, at), pair.slice(at + 1)];
}

/** The value as the TOML file writes it. */
export function writeValue(key: Key<unknown>, value: unknown): string {
  if (key.kind === 'bytes') return writeUnit(value as number, byteUnits, '', (text) => JSON.stringify(text));
  if (key.kind === 'duration') return writeUnit(value as number, durationUnits, 'ms', (text) => JSON.stringify(text));
  if (key.kind === 'list') return `[${(value as readonly string[]).map((item) => JSON.stringify(item)).join(', ')}]`;
  if (key.kind === 'map') return writeMap(value as StringTable);
  return JSON.stringify(value);
}

function writeUnit(value: number, units: StringUnits, smallest: string, quote: (text: string) => string): string {
  const fitting = Object.entries(units).filter(([, size]) => size > 1 && value > 0 && value % size === 0);
  const [unit, size] = fitting.at(-1) ?? [smallest, 1];
  return unit === '' ? String(value) : quote(`${value / size}${unit}`);
}
type StringUnits = Readonly<Record<string, number>>;

const writeMap = (value: StringTable): string => {
  const pairs = Object.entries(value).map(([name, text]) => `${JSON.stringify(name)} = ${JSON.stringify(text)}`);
  return pairs.length === 0 ? '{}' : `{ ${pairs.join(', ')} }`;
};
