import { RuntimeError } from '../../kit/errors.js';
import type { RegistryAuth } from '../model.js';

/** The pure half of registry authentication: what was asked for, and what we have. */

export interface Challenge {
  /** Lower case: `basic`, `bearer`. */
  readonly scheme: string;
  readonly parameters: Readonly<Record<string, string>>;
}

/** Reads a `WWW-Authenticate` value (RFC 9110 section 11.6.1), which may hold several challenges. */
export function parseChallenges(header: string): readonly Challenge[] {
  const challenges: { scheme: string; parameters: Record<string, string> }[] = [];
  const token = /\s*,?\s*(?:([A-Za-z0-9_.~+-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|([A-Za-z0-9_.~+-]+))/gy;
  for (let match = token.exec(header); match !== null; match = token.exec(header)) {
    const [, key, quoted, plain, scheme] = match;
    if (scheme !== undefined) challenges.push({ scheme: scheme.toLowerCase(), parameters: {} });
    const current = challenges.at(-1);
    if (key === undefined || current === undefined) continue;
    current.parameters[key.toLowerCase()] = quoted === undefined ? (plain ?? '') : quoted.replace(/\\(.)/g, '$1');
  }
  return challenges;
}

/** What of a request's credentials a registry can be shown. */
export interface Credentials {
  /** Value of an `Authorization: Basic` header. */
  readonly basic?: string;
  /** An OAuth2 refresh token. */
  readonly refreshToken?: string;
  /** A bearer token that is ready for use. */
  readonly bearer?: string;
}

/**
 * Credentials for one registry host. Those meant for another server (`serverAddress`) are left out, as the kubelet may
 * offer every secret of a pod in turn. Errors: invalid-argument for an `auth` that is not base64 of `user:password`.
 */
export function credentialsFor(auth: RegistryAuth | undefined, host: string): Credentials {
  if (auth === undefined) return {};
  if (auth.serverAddress !== '' && !isSameServer(auth.serverAddress, host)) return {};
  if (auth.registryToken !== '') return { bearer: auth.registryToken };
  if (auth.identityToken !== '') return { refreshToken: auth.identityToken };
  if (auth.username !== '' || auth.password !== '') {
    return { basic: Buffer.from(`${auth.username}:${auth.password}`).toString('base64') };
  }
  if (auth.auth === '') return {};
  const decoded = Buffer.from(auth.auth, 'base64').toString('utf8').replace(/\0+$/, '');
  if (!decoded.includes(':')) throw new RuntimeError('invalid-argument', 'auth.auth: is not base64 of user:password');
  return { basic: Buffer.from(decoded).toString('base64') };
}

/** `https://index.docker.io/v1/` is how Docker's configuration files name Docker Hub. */
function isSameServer(address: string, host: string): boolean {
  const name = address.replace(/^[a-z]+:\/\//, '').split('/')[0] ?? '';
  const hub = ['docker.io', 'index.docker.io', 'registry-1.docker.io'];
  return name === host || (hub.includes(name) && hub.includes(host));
}

/** A URL for people: without query, fragment and credentials, which may be secrets (signed URLs). */
export function printableUrl(url: string): string {
  try {
    const { protocol, host, pathname } = new URL(url);
    return `${protocol}//${host}${pathname}`;
  } catch {
    return 'an invalid URL';
  }
}
