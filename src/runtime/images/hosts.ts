import { readFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { parse } from 'smol-toml';
import { isErrno, messageOf, RuntimeError } from '../../kit/errors.js';

/**
 * Where a registry's images are fetched from: containerd's hosts.toml layout, `DIR/HOST/hosts.toml`, or
 * `DIR/_default/hosts.toml` when the host has no directory of its own. Endpoints are tried in the file's order, the
 * registry itself (`server`) last.
 */
export interface Endpoint {
  /** Scheme, host, port and path without a slash at the end, ready for `/REPOSITORY/manifests/…`. */
  readonly url: string;
  readonly canPull: boolean;
  readonly canResolve: boolean;
  readonly skipVerify: boolean;
  /** Absolute paths of PEM files. */
  readonly caFiles: readonly string[];
  readonly clients: readonly { readonly certFile: string; readonly keyFile: string }[];
  readonly headers: Readonly<Record<string, string>>;
  /** Milliseconds; undefined where the file does not say. */
  readonly dialTimeoutMs: number | undefined;
  /** The registry the reference names: the request's credentials go here, and to no mirror. */
  readonly isNamed: boolean;
}

/** Reads the file anew for each call: changes take effect with the next pull. Errors: invalid-argument. */
export async function endpointsOf(certsDir: string | undefined, host: string): Promise<readonly Endpoint[]> {
  if (certsDir === undefined) return [plainEndpoint(host)];
  for (const name of [...directoryNames(host), '_default']) {
    const dir = join(certsDir, name);
    const text = await readFile(join(dir, 'hosts.toml'), 'utf8').catch((error: unknown) => {
      if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
      throw new RuntimeError('internal', `read ${join(dir, 'hosts.toml')}: ${messageOf(error)}`, { cause: error });
    });
    if (text !== undefined) return parseHosts(text, dir, host);
  }
  return [plainEndpoint(host)];
}

/** containerd also finds `HOST_PORT_`, for file systems without colons. */
function directoryNames(host: string): readonly string[] {
  const port = /^(.*):(\d+)$/.exec(host);
  return port === null ? [host] : [host, `${port[1]}_${port[2]}_`];
}

export function parseHosts(text: string, dir: string, host: string): readonly Endpoint[] {
  const file = join(dir, 'hosts.toml');
  let root: Record<string, unknown>;
  try {
    root = parse(text) as Record<string, unknown>;
  } catch (error) {
    throw new RuntimeError('invalid-argument', `${file}: ${messageOf(error).split('\n')[0]}`);
  }
  const fields = new Fields(file, dir);
  const hosts = fields.table(root['host'], 'host');
  const mirrors = Object.entries(hosts).map(([url, value]) => {
    const table = fields.table(value, `host.${JSON.stringify(url)}`);
    return fields.endpoint(url, table, `host.${JSON.stringify(url)}`, isSameHost(url, host));
  });
  /* Whoever wrote `server` says that it is the registry, whatever it is called. */
  const server = root['server'] === undefined ? defaultServer(host) : fields.string(root['server'], 'server');
  const named = fields.endpoint(server, root, 'server', true);
  return [...mirrors, named];
}

const plainEndpoint = (host: string): Endpoint => ({
  url: endpointUrl(defaultServer(host), false),
  canPull: true,
  canResolve: true,
  skipVerify: false,
  caFiles: [],
  clients: [],
  headers: {},
  dialTimeoutMs: undefined,
  isNamed: true,
});

/** Docker Hub's API has a name of its own; what listens on this machine speaks plain HTTP, as for docker. */
function defaultServer(host: string): string {
  if (host === 'docker.io') return 'https://registry-1.docker.io';
  return isLoopback(host) ? `http://${host}` : `https://${host}`;
}

function isLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, '');
  return name === 'localhost' || name === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(name);
}

function isSameHost(url: string, host: string): boolean {
  try {
    return (
      new URL(withScheme(url)).host === new URL(defaultServer(host)).host || new URL(withScheme(url)).host === host
    );
  } catch {
    return false;
  }
}

const withScheme = (url: string): string =>
  /^[a-z]+:\/\//.test(url) ? url : isLoopback(url.split('/')[0] ?? '') ? `http://${url}` : `https://${url}`;

function endpointUrl(url: string, overridePath: boolean): string {
  const parsed = new URL(withScheme(url));
  const path = parsed.pathname.replace(/\/+$/, '');
  const api = overridePath || path.endsWith('/v2') ? path : `${path}/v2`;
  return `${parsed.protocol}//${parsed.host}${api}`;
}

/** Typed access to TOML values; errors name file and key. */
class Fields {
  readonly #file: string;
  readonly #dir: string;

  constructor(file: string, dir: string) {
    this.#file = file;
    this.#dir = dir;
  }

  bad(key: string, why: string): RuntimeError {
    return new RuntimeError('invalid-argument', `${this.#file}: ${key}: ${why}`);
  }

  table(value: unknown, key: string): Record<string, unknown> {
    if (value === undefined) return {};
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw this.bad(key, 'must be a table');
    return value as Record<string, unknown>;
  }

  string(value: unknown, key: string): string {
    if (typeof value !== 'string') throw this.bad(key, 'must be a string');
    return value;
  }

  strings(value: unknown, key: string): readonly string[] {
    const list = value === undefined ? [] : Array.isArray(value) ? value : [value];
    return list.map((each) => this.string(each, key));
  }

  boolean(value: unknown, key: string): boolean {
    if (value !== undefined && typeof value !== 'boolean') throw this.bad(key, 'must be true or false');
    return value === true;
  }

  path(value: string): string {
    return isAbsolute(value) ? value : join(this.#dir, value);
  }

  endpoint(url: string, table: Record<string, unknown>, key: string, isNamed: boolean): Endpoint {
    const capabilities = this.strings(table['capabilities'] ?? ['pull', 'resolve'], `${key}.capabilities`);
    for (const each of capabilities) {
      if (!['pull', 'resolve', 'push', 'dial-stdio', 'referrers'].includes(each)) {
        throw this.bad(`${key}.capabilities`, `${JSON.stringify(each)} is not known`);
      }
    }
    return {
      url: this.url(url, key, this.boolean(table['override_path'], `${key}.override_path`)),
      canPull: capabilities.includes('pull'),
      canResolve: capabilities.includes('resolve'),
      skipVerify: this.boolean(table['skip_verify'], `${key}.skip_verify`),
      caFiles: this.strings(table['ca'], `${key}.ca`).map((path) => this.path(path)),
      clients: this.clients(table['client'], `${key}.client`),
      headers: this.headers(table['header'], `${key}.header`),
      dialTimeoutMs: this.duration(table['dial_timeout'], `${key}.dial_timeout`),
      isNamed,
    };
  }

  url(url: string, key: string, overridePath: boolean): string {
    try {
      const result = endpointUrl(url, overridePath);
      if (!/^https?:\/\//.test(result)) throw new Error('scheme');
      return result;
    } catch {
      throw this.bad(key, 'is no http or https URL');
    }
  }

  clients(value: unknown, key: string): Endpoint['clients'] {
    const list = value === undefined ? [] : Array.isArray(value) ? (value as unknown[]) : [value];
    return list.map((each) => {
      const [cert = '', keyFile = cert] = this.strings(each, key);
      return { certFile: this.path(cert), keyFile: this.path(keyFile) };
    });
  }

  headers(value: unknown, key: string): Readonly<Record<string, string>> {
    const entries = Object.entries(this.table(value, key));
    return Object.fromEntries(entries.map(([name, each]) => [name, this.strings(each, `${key}.${name}`).join(', ')]));
  }

  /** Go's notation as far as it makes sense here: `500ms`, `10s`, `1m30s`. */
  duration(value: unknown, key: string): number | undefined {
    if (value === undefined) return undefined;
    const text = this.string(value, key);
    const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
    if (parts.length === 0 || parts.map(([all]) => all).join('') !== text)
      throw this.bad(key, 'is no duration like 10s');
    const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
    return parts.reduce((sum, [, amount, unit]) => sum + Number(amount) * (units[unit ?? ''] ?? 0), 0);
  }
}
