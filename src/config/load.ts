import { readFileSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import { invalid, isErrno, notFound, RuntimeError } from '../kit/errors.js';
import type { Key } from './key.js';
import { readValue } from './key.js';
import { configKeys, type NamedKey } from './names.js';
import { rootlessDefaults } from './rootless.js';
import { didYouMean } from './suggest.js';
import type { table } from './table.js';

type Values<T> = T extends Key<infer V> ? V : { readonly [K in keyof T]: Values<T[K]> };

/** All settings, resolved and frozen. Durations are milliseconds, sizes bytes, paths absolute. */
export type Config = Values<typeof table>;

export interface ConfigInput {
  /** Named by the user: must exist. */
  readonly file?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** By flag name without dashes. */
  readonly flags?: Readonly<Record<string, string | boolean | undefined>>;
  /** The places of an ordinary user instead of the system's. */
  readonly rootless?: boolean;
}

export const defaultConfigFile = '/etc/berth/config.toml';

/**
 * The file, then the environment, then flags, each over the one before. Throws `invalid-argument` that names the key
 * and where its value came from; unknown keys of the file are errors. The default file may be missing.
 */
export function loadConfig(input: ConfigInput = {}): Config {
  const env = input.env ?? {};
  const own = input.rootless === true ? rootlessDefaults(env) : undefined;
  const values = new Map<NamedKey, unknown>(
    configKeys.map((named) => [named, own?.values[named.name] ?? named.key.default]),
  );
  const file = input.file ?? env['BERTH_CONFIG'];
  for (const [named, value] of fromFile(file ?? own?.file ?? defaultConfigFile, file !== undefined)) {
    values.set(named, value);
  }
  for (const named of configKeys) {
    const given = env[named.env];
    if (given !== undefined) values.set(named, readValue(named.key, given, `environment variable ${named.env}`));
    const flag = input.flags?.[named.flag];
    if (flag !== undefined) values.set(named, readValue(named.key, flag, `flag --${named.flag}`));
  }
  return freeze(resolve(nest(values)));
}

function fromFile(path: string, required: boolean): Map<NamedKey, unknown> {
  const text = readText(path, required);
  return text === undefined ? new Map() : parseConfig(text, path);
}

function readText(path: string, required: boolean): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw new RuntimeError('denied', `read ${path}: ${String(error)}`, { cause: error });
    if (required) throw notFound('configuration file', path);
    return undefined;
  }
}

/** Values by key from the text of a TOML file; `source` is named in errors. */
export function parseConfig(text: string, source: string): Map<NamedKey, unknown> {
  const found = new Map<NamedKey, unknown>();
  const byName = new Map(configKeys.map((named) => [named.name, named]));
  const visit = (table: Readonly<Record<string, unknown>>, prefix: string): void => {
    for (const [property, value] of Object.entries(table)) {
      const name = `${prefix}${property}`;
      const named = byName.get(name);
      if (named !== undefined) found.set(named, readValue(named.key, value, `${source}: ${name}`));
      else if (isTable(value) && isSection(name)) visit(value, `${name}.`);
      else throw invalid(`${source}: ${name}`, `unknown key${didYouMean(name, [...byName.keys(), ...sections])}`);
    }
  };
  visit(parseToml(text, source), '');
  return found;
}

function parseToml(text: string, source: string): Readonly<Record<string, unknown>> {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const reason = error.message.split('\n')[0]?.replace(/^Invalid TOML document: /, '') ?? '';
    throw invalid(`${source}:${error.line}:${error.column}`, reason);
  }
}

const isTable = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);

const sections = new Set(
  configKeys.flatMap(({ name }) => (name.includes('.') ? [name.slice(0, name.lastIndexOf('.'))] : [])),
);
const isSection = (name: string): boolean => sections.has(name);

type Nested = { [name: string]: unknown };

function nest(values: ReadonlyMap<NamedKey, unknown>): Config {
  const result: Nested = {};
  for (const [{ path }, value] of values) {
    let at = result;
    for (const property of path.slice(0, -1)) at = (at[property] ??= {}) as Nested;
    at[path.at(-1) ?? ''] = value;
  }
  return result as Config;
}

/** Fills in what depends on other keys. */
function resolve(config: Config): Config {
  if (config.state === '') throw invalid('state', 'is not known: set XDG_RUNTIME_DIR, or state itself');
  return {
    ...config,
    network: { ...config.network, netnsDir: config.network.netnsDir || `${config.state}/netns` },
    socket: config.socket || `${config.state}/berth.sock`,
    admin: { ...config.admin, socket: config.admin.socket || `${config.state}/admin.sock` },
  };
}

function freeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  Object.values(value).forEach(freeze);
  return Object.freeze(value);
}

/** Names of the keys whose values differ, and whether each may change while the agent runs. */
export function configChanges(before: Config, after: Config): readonly { name: string; reloadable: boolean }[] {
  return configKeys
    .filter(({ path }) => JSON.stringify(valueAt(before, path)) !== JSON.stringify(valueAt(after, path)))
    .map(({ name, key }) => ({ name, reloadable: key.reloadable }));
}

export const valueAt = (config: Config, path: readonly string[]): unknown =>
  path.reduce<unknown>((at, property) => (at as Nested | undefined)?.[property], config);
