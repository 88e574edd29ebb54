/** CNI network configurations: reading one, and finding the one in force in a directory (CNI spec, section 1). */
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { RuntimeError, isErrno, messageOf } from '../../kit/errors.js';

export interface CniPlugin {
  readonly type: string;
  /** Names of the capabilities it wants arguments for. */
  readonly capabilities: readonly string[];
  /** The plugin's whole configuration object. */
  readonly raw: Readonly<Record<string, unknown>>;
}

export interface CniConfig {
  readonly name: string;
  readonly cniVersion: CniVersion;
  readonly plugins: readonly CniPlugin[];
  readonly disableCheck: boolean;
  readonly disableGc: boolean;
  /** The file's text, kept with each attachment: a pod is detached by what it was attached with. */
  readonly text: string;
}

/** Oldest first. */
export const cniVersions = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof cniVersions)[number];

/** True when `version` is `than` or newer. */
export const atLeast = (version: CniVersion, than: CniVersion): boolean =>
  cniVersions.indexOf(version) >= cniVersions.indexOf(than);

const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** Reads a list of plugins, or a single plugin as a list of one. Throws `invalid-argument` saying what is wrong. */
export function parseCniConfig(text: string): CniConfig {
  const list = objectOf(JSON.parse(text), 'configuration');
  const plugins = list['plugins'] === undefined ? [list] : list['plugins'];
  if (!Array.isArray(plugins) || plugins.length === 0) throw wrong('plugins: want a list of at least one');
  const name = list['name'];
  if (typeof name !== 'string' || !namePattern.test(name))
    throw wrong(`name: ${JSON.stringify(name)} is no network name`);
  return {
    name,
    cniVersion: versionOf(list),
    plugins: plugins.map(parsePlugin),
    disableCheck: list['disableCheck'] === true,
    disableGc: list['disableGC'] === true,
    text,
  };
}

function parsePlugin(value: unknown, index: number): CniPlugin {
  const raw = objectOf(value, `plugins[${index}]`);
  const type = raw['type'];
  // The type is looked up as a file name in the plugin directories.
  if (typeof type !== 'string' || !namePattern.test(type)) {
    throw wrong(`plugins[${index}].type: ${JSON.stringify(type)} is no plugin name`);
  }
  const capabilities =
    raw['capabilities'] === undefined ? {} : objectOf(raw['capabilities'], `plugins[${index}].capabilities`);
  const wanted = Object.entries(capabilities).flatMap(([name, on]) => (on === true ? [name] : []));
  return { type, capabilities: wanted, raw };
}

/** The newest version that the configuration allows and Berth speaks. */
function versionOf(list: Record<string, unknown>): CniVersion {
  const several = Array.isArray(list['cniVersions']) ? list['cniVersions'] : [];
  const allowed: unknown[] = [list['cniVersion'], ...several];
  const best = cniVersions.filter((version) => allowed.includes(version)).at(-1);
  if (best !== undefined) return best;
  throw wrong(`cniVersion: ${JSON.stringify(list['cniVersion'])} is none of ${cniVersions.join(', ')}`);
}

function objectOf(value: unknown, what: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw wrong(`${what}: want an object`);
}

const wrong = (message: string): RuntimeError => new RuntimeError('invalid-argument', message);

/** What a directory holds now. */
export interface CniDirectoryState {
  /** The configuration in force: that of the first file, by name, that can be read. */
  readonly config?: CniConfig;
  /** False when there is no file that could hold a configuration. */
  readonly populated: boolean;
  /** Why there is no configuration; '' when there is. */
  readonly message: string;
}

/**
 * Watches a directory of configurations by looking at names, sizes and times of its files each time it is asked: a few
 * microseconds, and unlike a notification never missed, also when the directory appears later. A file that has become
 * unreadable (half written, most often) counts with its last good content until it is mended or removed.
 */
export function cniDirectory(directory: string, report: (message: string) => void): () => CniDirectoryState {
  let signature: string | undefined;
  let state: CniDirectoryState = { populated: false, message: '' };
  let good = new Map<string, CniConfig>();
  return () => {
    const files = candidates(directory);
    const now = files.map(signatureOf).join('\n');
    if (now === signature) return state;
    signature = now;
    const read = files.map((file) => [file, readConfig(file, good.get(file), report)] as const);
    good = new Map(read.flatMap(([file, config]) => (config === undefined ? [] : [[file, config] as const])));
    state = stateOf(directory, files, [...good.values()][0]);
    return state;
  };
}

function stateOf(directory: string, files: readonly string[], config: CniConfig | undefined): CniDirectoryState {
  if (config !== undefined) return { config, populated: true, message: '' };
  const problem = files.length === 0 ? 'no network configuration' : 'no readable network configuration';
  return { populated: files.length > 0, message: `${problem} in ${directory}` };
}

function candidates(directory: string): string[] {
  try {
    const names = readdirSync(directory).filter((name) => /\.(conflist|conf|json)$/.test(name));
    return names.sort().map((name) => join(directory, name));
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return [];
    throw error;
  }
}

function signatureOf(file: string): string {
  try {
    const { ino, size, mtimeNs } = statSync(file, { bigint: true });
    return `${file} ${ino} ${size} ${mtimeNs}`;
  } catch {
    return `${file} gone`;
  }
}

function readConfig(
  file: string,
  before: CniConfig | undefined,
  report: (message: string) => void,
): CniConfig | undefined {
  try {
    return parseCniConfig(readFileSync(file, 'utf8'));
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    report(
      `CNI configuration ${file}: ${messageOf(error)}${before === undefined ? '' : '; its last good content stays'}`,
    );
    return before;
  }
}
