import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:https';
import { RuntimeError, messageOf } from '../../kit/errors.js';
import type { Runtime } from '../../runtime/facade.js';
import type { WatchRequest } from '../handler.js';
import { refuse } from './negotiate.js';
import { Sessions, type StreamingRequest } from './sessions.js';
import type { TlsSource } from './tls.js';
import { Tokens } from './tokens.js';

export interface StreamingOptions {
  readonly runtime: Runtime;
  /** The address listened on; what is in the URLs too. */
  readonly address: string;
  /** 0 lets the kernel choose. */
  readonly port: number;
  /** Milliseconds without a byte after which a session ends. */
  readonly idleTimeoutMs: number;
  /** Milliseconds a client may take to open its streams. */
  readonly creationTimeoutMs: number;
  /** Absent: plain HTTP. */
  readonly tls?: TlsSource;
  readonly watch: WatchRequest;
}

/**
 * Where clients come to for Exec, Attach and PortForward: they ask the CRI for a URL and have a minute to use it,
 * once.
 */
export interface StreamingServer {
  /** The URL for a request that has been checked. Throws `exhausted` when too many wait. */
  urlFor(request: StreamingRequest): string;
  /** Sessions under way. */
  readonly sessions: number;
  /** Ends every session. */
  close(): Promise<void>;
}

/** Milliseconds between a CRI answer and its client's connection. */
const tokenLifetimeMs = 60_000;
const keepAliveMs = 30_000;

export async function serveStreaming(options: StreamingOptions): Promise<StreamingServer> {
  const tokens = new Tokens<StreamingRequest>(tokenLifetimeMs, () => performance.now());
  const sessions = new Sessions(options);
  const server = options.tls === undefined ? createServer() : createTlsServer(options.tls.load());
  server.on('request', (_request, response) => {
    response.writeHead(400, { 'content-type': 'text/plain', connection: 'close' });
    response.end('a streaming request must ask for an upgrade\n');
  });
  server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    socket.setTimeout(options.idleTimeoutMs, () => socket.destroy());
    socket.setKeepAlive(true, keepAliveMs);
    socket.setNoDelay(true);
    const wanted = redeem(tokens, request.url ?? '');
    if (wanted === undefined)
      return refuse(socket, '404 Not Found', 'no request waits here: it was used, or is too old');
    sessions.begin(wanted, request, socket, head);
  });
  await listen(server, options);
  const { port } = server.address() as AddressInfo;
  const host = options.address.includes(':') ? `[${options.address}]` : options.address;
  const base = `${options.tls === undefined ? 'http' : 'https'}://${host}:${port}`;
  return {
    urlFor(request) {
      const fresh = options.tls?.reload();
      if (fresh !== undefined && 'setSecureContext' in server) server.setSecureContext(fresh);
      return `${base}/${request.kind}/${tokens.issue(request)}`;
    },
    get sessions() {
      return sessions.size;
    },
    async close() {
      sessions.close();
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function redeem(tokens: Tokens<StreamingRequest>, url: string): StreamingRequest | undefined {
  const [, kind, token] = /^\/(exec|attach|portforward)\/([\w-]+)(?:\?|$)/.exec(url) ?? [];
  const request = token === undefined ? undefined : tokens.redeem(token);
  return request?.kind === kind ? request : undefined;
}

function listen(server: Server, { address, port }: StreamingOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      reject(new RuntimeError('unavailable', `streaming server on ${address}:${port}: ${messageOf(error)}`));
    });
    server.listen(port, address, resolve);
  });
}
