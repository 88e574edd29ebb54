import { readFile } from 'node:fs/promises';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';
import { Agent, EnvHttpProxyAgent, request, type Dispatcher } from 'undici';
import { isKind, messageOf, RuntimeError } from '../../kit/errors.js';
import { printableUrl } from './challenge.js';
import type { Endpoint } from './hosts.js';

/** HTTP as registries need it: per-endpoint TLS, redirects that carry no secret elsewhere, errors without secrets. */

export type Response = Dispatcher.ResponseData;

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'POST';
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface HttpClient {
  /** Follows redirects. Errors: unavailable when there is no answer, cancelled. */
  send(endpoint: Endpoint, wanted: HttpRequest, signal: AbortSignal): Promise<Response>;
  close(): Promise<void>;
}

export interface HttpTimeouts {
  /** Milliseconds without any answer, or between two pieces of one, after which a connection counts as broken. */
  readonly silenceMs: number;
  /** Milliseconds to accept a connection, where hosts.toml does not say. */
  readonly connectMs: number;
}

const maxRedirects = 5;
const systemBundles = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt', '/etc/ssl/cert.pem'];

export function createHttpClient(timeouts: HttpTimeouts): HttpClient {
  const agents = new Map<string, Promise<Dispatcher>>();
  const agentFor = (endpoint: Endpoint): Promise<Dispatcher> => {
    const { skipVerify, caFiles, clients, dialTimeoutMs } = endpoint;
    const key = JSON.stringify([new URL(endpoint.url).protocol, skipVerify, caFiles, clients, dialTimeoutMs]);
    const agent = agents.get(key) ?? createAgent(endpoint, timeouts);
    agents.set(key, agent);
    agent.catch(() => agents.delete(key));
    return agent;
  };
  return {
    send: async (endpoint, wanted, signal) => await follow(await agentFor(endpoint), wanted, signal),
    async close() {
      for (const agent of agents.values()) await (await agent).destroy();
      agents.clear();
    },
  };
}

/** Proxies are those of the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY), as for every other tool; never for this host. */
async function createAgent(endpoint: Endpoint, timeouts: HttpTimeouts): Promise<Dispatcher> {
  const connect = {
    timeout: endpoint.dialTimeoutMs ?? timeouts.connectMs,
    rejectUnauthorized: !endpoint.skipVerify,
    secureContext: await secureContextFor(endpoint),
  };
  const options = { connect, headersTimeout: timeouts.silenceMs, bodyTimeout: timeouts.silenceMs };
  const { env } = process;
  const names = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY'];
  if (names.every((name) => (env[name] ?? '') === '')) return new Agent(options);
  const noProxy = ['localhost', '127.0.0.1', '[::1]', env['no_proxy'] ?? env['NO_PROXY'] ?? ''].join(',');
  return new EnvHttpProxyAgent({ ...options, requestTls: connect, noProxy });
}

/** The host's own certificate authorities, as every other tool on the node uses, and the endpoint's on top. */
async function secureContextFor(endpoint: Endpoint): Promise<SecureContext> {
  const extra = await Promise.all(endpoint.caFiles.map(readPem));
  const [client] = endpoint.clients;
  return createSecureContext({
    ca: [...(await systemAuthorities()), ...extra],
    ...(client !== undefined && { cert: await readPem(client.certFile), key: await readPem(client.keyFile) }),
  });
}

async function systemAuthorities(): Promise<readonly string[]> {
  for (const path of systemBundles) {
    const text = await readFile(path, 'utf8').catch(() => '');
    if (text !== '') return [text];
  }
  return rootCertificates;
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new RuntimeError('invalid-argument', `registry certificate ${path}: ${messageOf(error)}`, { cause: error });
  }
}

async function follow(agent: Dispatcher, wanted: HttpRequest, signal: AbortSignal): Promise<Response> {
  let current = wanted;
  for (let hops = 0; ; hops++) {
    const response = await sendOnce(agent, current, signal);
    const location = response.headers['location'];
    if (![301, 302, 303, 307, 308].includes(response.statusCode) || typeof location !== 'string') return response;
    await discard(response);
    if (hops === maxRedirects) {
      throw new RuntimeError('unavailable', `${wanted.method} ${printableUrl(wanted.url)}: too many redirects`);
    }
    current = redirected(current, location);
  }
}

function redirected(from: HttpRequest, location: string): HttpRequest {
  let to: URL;
  try {
    to = new URL(location, from.url);
  } catch {
    throw new RuntimeError('unavailable', `${printableUrl(from.url)}: redirects to no valid URL`);
  }
  if (to.protocol !== 'http:' && to.protocol !== 'https:') {
    throw new RuntimeError('unavailable', `${printableUrl(from.url)}: redirects to ${to.protocol}`);
  }
  const sameOrigin = to.origin === new URL(from.url).origin;
  /* Credentials and configured headers are for the host they were given for. */
  const kept = ['accept', 'range', 'user-agent', 'accept-encoding'];
  const headers = Object.entries(from.headers).filter(([name]) => sameOrigin || kept.includes(name.toLowerCase()));
  return { ...from, url: to.href, headers: Object.fromEntries(headers) };
}

async function sendOnce(agent: Dispatcher, wanted: HttpRequest, signal: AbortSignal): Promise<Response> {
  try {
    return await request(wanted.url, {
      dispatcher: agent,
      method: wanted.method,
      headers: wanted.headers,
      signal,
      ...(wanted.body !== undefined && { body: wanted.body }),
    });
  } catch (error) {
    throw connectionError(error, `${wanted.method} ${printableUrl(wanted.url)}`, signal);
  }
}

/** Turns whatever the HTTP client threw into `unavailable`, or `cancelled` when the signal is the cause. */
export function connectionError(error: unknown, doing: string, signal: AbortSignal): RuntimeError {
  if (error instanceof RuntimeError) return error;
  if (signal.aborted) {
    if (isKind(signal.reason, 'deadline')) return signal.reason;
    return new RuntimeError('cancelled', `${doing}: the caller went away`, { cause: error });
  }
  return new RuntimeError('unavailable', `${doing}: ${reasonOf(error)}`, { cause: error });
}

/** An AggregateError (several addresses tried) has no message of its own. */
const reasonOf = (error: unknown): string =>
  error instanceof AggregateError && error.errors.length > 0 ? messageOf(error.errors[0]) : messageOf(error);

/** Reads a whole body of at most `limit` bytes. */
export async function readBody(response: Response, limit: number, what: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let total = 0;
  for await (const chunk of response.body as AsyncIterable<Buffer>) {
    total += chunk.length;
    if (total > limit) throw new RuntimeError('corrupt', `${what}: answer is larger than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Gives the connection back without reading an unbounded answer. */
export const discard = async (response: Response): Promise<void> =>
  await response.body.dump({ limit: 65_536 }).catch(() => undefined);
