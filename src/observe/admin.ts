import { chmodSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { messageOf, RuntimeError } from '../kit/errors.js';
import type { Observability } from './observer.js';

type Handler = (request: IncomingMessage, response: ServerResponse) => Promise<void> | void;

export interface AdminOptions {
  /** Unix socket, mode 0600; serves everything. */
  readonly socket: string;
  /** host:port or '': serves only what is safe to show, /metrics and /healthz. */
  readonly address: string;
  readonly observability: Observability;
  /** Unmet conditions in words; empty means healthy. */
  readonly unhealthy: () => readonly string[];
  /** Further routes of the socket, by `METHOD /path`. */
  readonly routes: Readonly<Record<string, Handler>>;
  /** Connection upgrades of the socket. */
  readonly upgrade: (request: IncomingMessage, socket: Duplex) => Promise<void>;
}

export interface AdminServer {
  /** Stops listening and ends open connections. */
  close(): Promise<void>;
}

/**
 * The agent's side door: health, metrics, requests under way, and whatever routes the composition adds. A stale
 * socket is replaced, one that still answers is refused (`in-progress`).
 */
export async function serveAdmin(options: AdminOptions): Promise<AdminServer> {
  const open = publicRoutes(options);
  const socketServer = httpServer({ ...open, ...debugRoutes(options), ...options.routes });
  socketServer.on('upgrade', (request, socket) => void options.upgrade(request, socket));
  await replaceStaleSocket(options.socket);
  await listen(socketServer, { path: options.socket });
  chmodSync(options.socket, 0o600);
  const servers = [socketServer];
  if (options.address !== '') {
    const server = httpServer(open);
    try {
      await listen(server, splitAddress(options.address));
    } catch (error) {
      await closeServer(socketServer);
      throw error;
    }
    servers.push(server);
  }
  return { close: async () => void (await Promise.all(servers.map(closeServer))) };
}

function publicRoutes({ observability, unhealthy }: AdminOptions): Record<string, Handler> {
  return {
    'GET /healthz': (_request, response) => {
      const reasons = unhealthy();
      sendJson(response, { healthy: reasons.length === 0, reasons }, reasons.length === 0 ? 200 : 503);
    },
    'GET /metrics': async (_request, response) => {
      const registry = observability.metrics?.registry;
      if (registry === undefined) return sendJson(response, { error: 'metrics are not enabled' }, 404);
      response.writeHead(200, { 'content-type': registry.contentType }).end(await registry.metrics());
    },
  };
}

function debugRoutes({ observability }: AdminOptions): Record<string, Handler> {
  return {
    'GET /ping': (_request, response) => sendJson(response, {}),
    'GET /debug/inflight': (_request, response) => sendJson(response, observability.inFlight()),
  };
}

const sendJson = (response: ServerResponse, body: unknown, status = 200): void =>
  void response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);

function httpServer(routes: Readonly<Record<string, Handler>>): Server {
  return createServer((request, response) => {
    const path = (request.url ?? '').split('?')[0] ?? '';
    const handler = routes[`${request.method} ${path}`];
    if (handler === undefined) return sendJson(response, { error: `no such page: ${request.method} ${path}` }, 404);
    void answer(handler, request, response);
  });
}

async function answer(handler: Handler, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    await handler(request, response);
  } catch (error) {
    if (response.headersSent) response.destroy();
    else sendJson(response, { error: messageOf(error) }, 500);
  }
}

function splitAddress(address: string): { host: string; port: number } {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at).replace(/^\[(.*)\]$/, '$1') || '0.0.0.0', port: Number(address.slice(at + 1)) };
}

async function replaceStaleSocket(path: string): Promise<void> {
  const live = await new Promise<boolean>((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(true);
    });
    probe.on('error', () => resolve(false));
  });
  if (live) throw new RuntimeError('in-progress', `another agent already serves ${path}`);
  rmSync(path, { force: true });
}

function listen(server: Server, where: { path: string } | { host: string; port: number }): Promise<void> {
  const name = 'path' in where ? where.path : `${where.host}:${where.port}`;
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(new RuntimeError('unavailable', `listen on ${name}: ${error.message}`, { cause: error })),
    );
    server.listen(where, resolve);
  });
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
