import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { testImageParts, type TestImageParts } from './test-image.js';

/**
 * A registry that misbehaves on demand, for what a real one does not do when asked: broken connections, wrong bytes,
 * token services, redirects. Serves one image under any repository and tag.
 */
export interface FakeRegistry {
  readonly host: string;
  readonly url: string;
  readonly image: TestImageParts;
  readonly requests: readonly RecordedRequest[];
  /** Takes a request away from the normal answers when it returns true. */
  intercept: (request: IncomingMessage, response: ServerResponse, path: string) => boolean;
  close(): Promise<void>;
}

export interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: IncomingMessage['headers'];
}

export interface FakeRegistryOptions {
  readonly image?: TestImageParts;
  readonly tls?: { readonly key: string; readonly cert: string; readonly ca?: string };
  /** Wants a bearer token, which it gives for these credentials or, when absent, to anyone. */
  readonly bearer?: { readonly username?: string; readonly password?: string; readonly refreshToken?: string };
}

export async function startFakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const image = options.image ?? testImageParts({ name: 'x', bare: true, files: { '/f': 'x'.repeat(300_000) } });
  const requests: RecordedRequest[] = [];
  const registry = { intercept: (): boolean => false } as unknown as {
    -readonly [K in keyof FakeRegistry]: FakeRegistry[K];
  };
  const listener: RequestListener = (request, response) => {
    const url = new URL(request.url ?? '/', registry.url);
    const { pathname: path, search: query } = url;
    requests.push({ method: request.method ?? '', path, query, headers: request.headers });
    if (registry.intercept(request, response, path)) return;
    if (path === '/token') void giveToken(options, request, response, url);
    else if (options.bearer !== undefined && !isAuthorized(request)) refuse(registry.url, response);
    else serve(image, request, response, path);
  };
  const { tls } = options;
  const server: Server =
    tls === undefined
      ? createServer(listener)
      : createTlsServer(
          { ...tls, ...(tls.ca !== undefined && { requestCert: true, rejectUnauthorized: true }) },
          listener,
        );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const host = `127.0.0.1:${port}`;
  return Object.assign(registry, {
    host,
    url: `${tls === undefined ? 'http' : 'https'}://${host}`,
    image,
    requests,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}

const goodToken = 'good.token-1';

const isAuthorized = (request: IncomingMessage): boolean => request.headers.authorization === `Bearer ${goodToken}`;

function refuse(url: string, response: ServerResponse): void {
  const challenge = `Bearer realm="${url}/token",service="fake",scope="repository:some/thing:pull"`;
  response.writeHead(401, { 'www-authenticate': challenge }).end('{"errors":[]}');
}

async function giveToken(
  options: FakeRegistryOptions,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
): Promise<void> {
  let body = '';
  for await (const chunk of request) body += String(chunk);
  const { username, password, refreshToken } = options.bearer ?? {};
  const basic = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
  const form = new URLSearchParams(body);
  const scope = request.method === 'POST' ? form.get('scope') : url.searchParams.get('scope');
  const allowed =
    refreshToken !== undefined
      ? form.get('refresh_token') === refreshToken && form.get('grant_type') === 'refresh_token'
      : username === undefined || request.headers.authorization === basic;
  if (!allowed || scope !== 'repository:some/thing:pull') response.writeHead(401).end('{}');
  else response.writeHead(200).end(JSON.stringify({ access_token: goodToken, expires_in: 300 }));
}

function serve(image: TestImageParts, request: IncomingMessage, response: ServerResponse, path: string): void {
  const match = /^(?:\/[a-z]+)?\/v2\/.+\/(manifests|blobs)\/([^/]+)$/.exec(path);
  const wanted = match?.[1] === 'manifests' && !match[2]?.startsWith('sha256:') ? image.manifest.digest : match?.[2];
  const bytes = image.blobs.get(wanted ?? '');
  if (bytes === undefined) return void response.writeHead(404).end('{"errors":[{"code":"NAME_UNKNOWN"}]}');
  const type = match?.[1] === 'manifests' ? image.manifest.mediaType : 'application/octet-stream';
  const headers = { 'content-type': type, 'docker-content-digest': wanted };
  const from = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1];
  if (request.method === 'HEAD') response.writeHead(200, { ...headers, 'content-length': bytes.length }).end();
  else if (from === undefined) response.writeHead(200, { ...headers, 'content-length': bytes.length }).end(bytes);
  else {
    const range = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
    response.writeHead(206, { ...headers, 'content-range': range }).end(bytes.subarray(Number(from)));
  }
}
