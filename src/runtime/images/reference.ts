import { RuntimeError } from '../../kit/errors.js';

/**
 * Image references as docker and containerd read them: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`. A first component is a
 * host when it holds a dot or a colon or is `localhost`; else the host is docker.io, and a path of one component there
 * gets `library/`. Without tag and digest the tag is `latest`; with both, the digest decides and the tag is dropped.
 */
export interface Reference {
  /** `docker.io`, `localhost:5000`, `[::1]:5000`. */
  readonly host: string;
  readonly path: string;
  /** Given if and only if `digest` is not. */
  readonly tag?: string;
  /** `sha256:…`. */
  readonly digest?: string;
}

const hostPattern =
  /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?$/;
const pathPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const digestPattern = /^sha256:[0-9a-f]{64}$/;
/** The Distribution specification's bound on names, host included. */
const maxName = 255;

export const isDigest = (text: string): boolean => digestPattern.test(text);

/** Errors: invalid-argument. */
export function parseReference(text: string): Reference {
  const bad = (why: string): never => {
    throw new RuntimeError('invalid-argument', `image reference ${JSON.stringify(text.slice(0, 300))}: ${why}`);
  };
  if (text === '') bad('is empty');
  if (text.includes('://')) bad('must not carry a scheme');
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !digestPattern.test(digest)) bad('the digest must be sha256: and 64 hex digits');
  const named = at < 0 ? text : text.slice(0, at);
  const colon = named.lastIndexOf(':');
  const tagged = colon > named.lastIndexOf('/') && !named.endsWith(']');
  const tag = tagged ? named.slice(colon + 1) : undefined;
  if (tag !== undefined && !tagPattern.test(tag)) bad('the tag may hold letters, digits, _ . - and 128 characters');
  const { host, path } = splitName(tagged ? named.slice(0, colon) : named);
  if (!hostPattern.test(host)) bad(`${JSON.stringify(host)} is no registry host`);
  if (/[A-Z]/.test(path)) bad('the repository must be lower case');
  if (!pathPattern.test(path)) bad('the repository may hold lower case letters and digits, separated by . _ - and /');
  if (host.length + 1 + path.length > maxName) bad(`the name is longer than ${maxName} characters`);
  if (digest !== undefined) return { host, path, digest };
  return { host, path, tag: tag ?? 'latest' };
}

function splitName(name: string): { host: string; path: string } {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const isHost = first.includes('.') || first.includes(':') || first === 'localhost';
  const host = isHost ? first : 'docker.io';
  const path = isHost ? name.slice(slash + 1) : name;
  if (host === 'index.docker.io' || host === 'docker.io') {
    return { host: 'docker.io', path: path.includes('/') ? path : `library/${path}` };
  }
  return { host, path };
}

/** `docker.io/library/busybox`. */
export const repositoryOf = (reference: Reference): string => `${reference.host}/${reference.path}`;

/** The normal form, with tag or digest. */
export function formatReference(reference: Reference): string {
  const suffix = reference.digest === undefined ? `:${reference.tag ?? 'latest'}` : `@${reference.digest}`;
  return `${repositoryOf(reference)}${suffix}`;
}
