import type { Readable } from 'node:stream';
import { isKind, RuntimeError, type ErrorKind } from '../../kit/errors.js';
import { throwIfCancelled } from '../../kit/deadline.js';
import type { RegistryAuth } from '../model.js';
import { createAuthenticator, type Authenticator } from './auth.js';
import { credentialsFor, printableUrl } from './challenge.js';
import { endpointsOf, type Endpoint } from './hosts.js';
import { createHttpClient, discard, readBody, type HttpClient, type HttpTimeouts, type Response } from './http.js';
import { acceptManifests, digestOf, maxDocumentBytes } from './manifest.js';
import { formatReference, isDigest, type Reference } from './reference.js';

/**
 * A client of the Distribution API. A session is one repository as one caller sees it: its endpoints (mirrors first,
 * then the registry itself) and, per endpoint, the authorization obtained so far. An endpoint that cannot answer, for
 * whatever reason, is passed over for the next; the last error decides when none can.
 */
export interface Registry {
  session(reference: Reference, auth: RegistryAuth | undefined): Promise<RegistrySession>;
  close(): Promise<void>;
}

export interface RemoteDocument {
  readonly bytes: Buffer;
  readonly digest: string;
  readonly mediaType: string | undefined;
}

export interface RemoteBlob {
  readonly body: Readable;
  /** Position of the first byte: what was asked for, or 0 from a server that knows no ranges. */
  readonly start: number;
  readonly endpoint: Endpoint;
}

export interface RegistrySession {
  /** The digest a tag has now, when a server tells without sending the manifest. */
  head(tagOrDigest: string, signal: AbortSignal): Promise<string | undefined>;
  /** Errors: not-found, unauthenticated, unavailable, corrupt when the digest does not match. */
  manifest(tagOrDigest: string, signal: AbortSignal): Promise<RemoteDocument>;
  /** Opens a blob at an offset; endpoints in `avoid` are asked only when there are no others. */
  blob(digest: string, offset: number, avoid: ReadonlySet<Endpoint>, signal: AbortSignal): Promise<RemoteBlob>;
  /** Asks an endpoint that sent wrong bytes no more, if there is another. False when there is none. */
  distrust(endpoints: Iterable<Endpoint>): boolean;
}

interface Target {
  readonly endpoint: Endpoint;
  readonly authenticator: Authenticator;
}

interface Wanted {
  readonly method: 'GET' | 'HEAD';
  /** Below the repository: `/manifests/latest`. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly capability: 'canPull' | 'canResolve';
}

export function createRegistry(options: { readonly certsDir?: string; readonly timeouts: HttpTimeouts }): Registry {
  const http = createHttpClient(options.timeouts);
  return {
    async session(reference, auth) {
      const endpoints = await endpointsOf(options.certsDir, reference.host);
      return createSession(http, reference, endpoints, auth);
    },
    close: async () => await http.close(),
  };
}

function createSession(
  http: HttpClient,
  reference: Reference,
  endpoints: readonly Endpoint[],
  auth: RegistryAuth | undefined,
): RegistrySession {
  const credentials = credentialsFor(auth, reference.host);
  const targets: readonly Target[] = endpoints.map((endpoint) => {
    const own = endpoint.isNamed ? credentials : {};
    return { endpoint, authenticator: createAuthenticator(http, endpoint, own, reference.path) };
  });

  const distrusted = new Set<Endpoint>();

  const ask = async (target: Target, wanted: Wanted, signal: AbortSignal): Promise<Response> => {
    /* Mirrors are told whose image is meant, in containerd's way. */
    const query = target.endpoint.isNamed ? '' : `?ns=${encodeURIComponent(reference.host)}`;
    const url = `${target.endpoint.url}/${reference.path}${wanted.path}${query}`;
    for (;;) {
      const authorization = target.authenticator.header();
      const headers = {
        'user-agent': 'berth',
        ...target.endpoint.headers,
        ...wanted.headers,
        ...(authorization !== undefined && { authorization }),
      };
      const response = await http.send(target.endpoint, { method: wanted.method, url, headers }, signal);
      if (response.statusCode === 200 || response.statusCode === 206) return response;
      await discard(response);
      if (response.statusCode === 401 && (await target.authenticator.answer(response, signal))) continue;
      throw statusError(response.statusCode, wanted, url, formatReference(reference));
    }
  };

  const askAny = async (
    wanted: Wanted,
    avoid: ReadonlySet<Endpoint>,
    signal: AbortSignal,
  ): Promise<{ response: Response; target: Target }> => {
    const able = targets.filter(
      ({ endpoint }) =>
        endpoint[wanted.capability] && (!distrusted.has(endpoint) || distrusted.size === targets.length),
    );
    const fresh = able.filter((target) => !avoid.has(target.endpoint));
    let failure: unknown = new RuntimeError('unavailable', `${reference.host}: no endpoint is configured for this`);
    for (const target of fresh.length > 0 ? fresh : able) {
      try {
        return { response: await ask(target, wanted, signal), target };
      } catch (error) {
        throwIfCancelled(signal, `pull ${formatReference(reference)}`);
        failure = error;
      }
    }
    throw failure;
  };

  const manifestRequest = (method: 'GET' | 'HEAD', tagOrDigest: string): Wanted => ({
    method,
    path: `/manifests/${tagOrDigest}`,
    headers: { accept: acceptManifests.join(', ') },
    capability: isDigest(tagOrDigest) ? 'canPull' : 'canResolve',
  });

  return {
    distrust(given) {
      for (const endpoint of given) distrusted.add(endpoint);
      return targets.some(({ endpoint }) => endpoint.canPull && !distrusted.has(endpoint));
    },
    async head(tagOrDigest, signal) {
      try {
        const { response } = await askAny(manifestRequest('HEAD', tagOrDigest), new Set(), signal);
        await discard(response);
        const digest = response.headers['docker-content-digest'];
        return typeof digest === 'string' && isDigest(digest) ? digest : undefined;
      } catch (error) {
        if (isKind(error, 'cancelled')) throw error;
        return undefined;
      }
    },
    async manifest(tagOrDigest, signal) {
      const what = `manifest of ${formatReference(reference)}`;
      const { response } = await askAny(manifestRequest('GET', tagOrDigest), new Set(), signal);
      const bytes = await readBody(response, maxDocumentBytes, what);
      const digest = digestOf(bytes);
      const type = response.headers['content-type'];
      const claimed = isDigest(tagOrDigest) ? tagOrDigest : response.headers['docker-content-digest'];
      if (typeof claimed === 'string' && isDigest(claimed) && claimed !== digest) {
        throw new RuntimeError('corrupt', `${what}: digest is ${digest} and should be ${claimed}`);
      }
      return { bytes, digest, mediaType: typeof type === 'string' ? type : undefined };
    },
    async blob(digest, offset, avoid, signal) {
      const range = offset > 0 ? { range: `bytes=${offset}-` } : {};
      /* A transfer encoding would make Content-Range and our digests speak of different bytes. */
      const headers = { ...range, 'accept-encoding': 'identity' };
      const wanted: Wanted = { method: 'GET', path: `/blobs/${digest}`, headers, capability: 'canPull' };
      const { response, target } = await askAny(wanted, avoid, signal);
      const start = response.statusCode === 206 ? rangeStart(response) : 0;
      return { body: response.body, start: start === offset ? offset : start, endpoint: target.endpoint };
    },
  };
}

function rangeStart(response: Response): number {
  const match = /^bytes (\d+)-/.exec(String(response.headers['content-range'] ?? ''));
  return match === null ? 0 : Number(match[1]);
}

function statusError(status: number, wanted: Wanted, url: string, reference: string): RuntimeError {
  const kinds: Readonly<Record<number, ErrorKind>> = {
    401: 'unauthenticated',
    403: 'unauthenticated',
    404: 'not-found',
  };
  const said = status === 404 ? 'not found' : status === 401 || status === 403 ? 'access denied' : `status ${status}`;
  return new RuntimeError(
    kinds[status] ?? 'unavailable',
    `${reference}: ${wanted.method} ${printableUrl(url)}: ${said}`,
    {
      facts: { status },
    },
  );
}
