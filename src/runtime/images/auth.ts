import { RuntimeError } from '../../kit/errors.js';
import { parseChallenges, printableUrl, type Challenge, type Credentials } from './challenge.js';
import type { Endpoint } from './hosts.js';
import { readBody, type HttpClient, type HttpRequest, type Response } from './http.js';

const maxTokenAnswer = 1 << 20;

export interface Authenticator {
  /** The `Authorization` to send, if one is known. */
  header(): string | undefined;
  /** Answers a 401. False when there is nothing better to offer than what was refused. */
  answer(response: Response, signal: AbortSignal): Promise<boolean>;
}

/**
 * Authentication at one endpoint for one repository: nothing until asked, then what the challenge wants (the
 * Distribution project's token protocol, or Basic). A mirror is made with no credentials and gets anonymous tokens.
 */
export function createAuthenticator(
  http: HttpClient,
  endpoint: Endpoint,
  credentials: Credentials,
  repository: string,
): Authenticator {
  let header = credentials.bearer === undefined ? undefined : `Bearer ${credentials.bearer}`;
  let refused = 0;
  /* Concurrent requests that got a 401 share one exchange. */
  let exchange: Promise<boolean> | undefined;

  const negotiate = async (response: Response, signal: AbortSignal): Promise<boolean> => {
    if (++refused > 3) return false;
    const challenges = parseChallenges(String(response.headers['www-authenticate'] ?? ''));
    const bearer = challenges.find((each) => each.scheme === 'bearer');
    if (bearer !== undefined && credentials.bearer === undefined) {
      const token = await fetchToken(http, endpoint, bearer, credentials, repository, signal);
      header = `Bearer ${token}`;
      return true;
    }
    const basic = challenges.some((each) => each.scheme === 'basic') ? credentials.basic : undefined;
    if (basic === undefined || header === `Basic ${basic}`) return false;
    header = `Basic ${basic}`;
    return true;
  };

  return {
    header: () => header,
    answer(response, signal) {
      exchange ??= negotiate(response, signal).finally(() => (exchange = undefined));
      return exchange;
    },
  };
}

async function fetchToken(
  http: HttpClient,
  endpoint: Endpoint,
  challenge: Challenge,
  credentials: Credentials,
  repository: string,
  signal: AbortSignal,
): Promise<string> {
  const realm = realmOf(challenge, endpoint);
  const scope = challenge.parameters['scope'] ?? `repository:${repository}:pull`;
  const service = challenge.parameters['service'];
  const wanted = tokenRequest(realm, scope, service, credentials);
  const response = await http.send({ ...endpoint, url: realm.href }, wanted, signal);
  const what = `token from ${printableUrl(realm.href)}`;
  const body = await readBody(response, maxTokenAnswer, what);
  if (response.statusCode !== 200) {
    const kind = response.statusCode >= 500 || response.statusCode === 429 ? 'unavailable' : 'unauthenticated';
    throw new RuntimeError(kind, `${what} for ${scope}: status ${response.statusCode}`);
  }
  return tokenIn(body, what);
}

/** A registry reached over TLS must not have us send a password in the clear. */
function realmOf(challenge: Challenge, endpoint: Endpoint): URL {
  const text = challenge.parameters['realm'] ?? '';
  if (!URL.canParse(text)) throw new RuntimeError('unavailable', `${endpoint.url}: names no valid token service`);
  const realm = new URL(text);
  if (realm.protocol === 'https:' || (realm.protocol === 'http:' && endpoint.url.startsWith('http:'))) return realm;
  throw new RuntimeError('denied', `${endpoint.url}: names a token service without TLS: ${printableUrl(text)}`);
}

function tokenRequest(realm: URL, scope: string, service: string | undefined, given: Credentials): HttpRequest {
  const headers = { accept: 'application/json', 'user-agent': 'berth' };
  if (given.refreshToken !== undefined) {
    const form = new URLSearchParams({ grant_type: 'refresh_token', client_id: 'berth', scope });
    form.set('refresh_token', given.refreshToken);
    if (service !== undefined) form.set('service', service);
    const type = { 'content-type': 'application/x-www-form-urlencoded' };
    return { method: 'POST', url: realm.href, headers: { ...headers, ...type }, body: form.toString() };
  }
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set('service', service);
  url.searchParams.append('scope', scope);
  const authorization = given.basic === undefined ? {} : { authorization: `Basic ${given.basic}` };
  return { method: 'GET', url: url.href, headers: { ...headers, ...authorization } };
}

function tokenIn(body: Buffer, what: string): string {
  let answer: { token?: unknown; access_token?: unknown };
  try {
    answer = JSON.parse(body.toString('utf8')) as typeof answer;
  } catch {
    throw new RuntimeError('unavailable', `${what}: the answer is not JSON`);
  }
  const token = [answer.token, answer.access_token].find((each) => typeof each === 'string' && each !== '');
  if (typeof token !== 'string' || /[^\x21-\x7e]/.test(token)) {
    throw new RuntimeError('unavailable', `${what}: the answer holds no token`);
  }
  return token;
}
