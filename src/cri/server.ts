import { setMaxListeners } from 'node:events';
import { Server as GrpcServer, ServerCredentials } from '@grpc/grpc-js';
import { sleep } from '../kit/deadline.js';
import { silentObserver } from '../kit/observer.js';
import type { Runtime } from '../runtime/facade.js';
import { ClientConnection } from './connection.js';
import { handlerMaker, streamHandlerMaker } from './handler.js';
import type { HandlerDeps, WatchRequest } from './handler.js';
import { imageService, imageServiceDefinition } from './image-service.js';
import { Inflight } from './inflight.js';
import { runtimeService, runtimeServiceDefinition } from './runtime-service.js';
import type { RuntimeIdentity } from './runtime-service.js';
import { listenOn } from '../kit/listen.js';
import type { StreamingServer } from './streaming/server.js';

export interface CriServerOptions {
  readonly runtime: Runtime;
  /** Absolute path of the unix socket. */
  readonly socketPath: string;
  readonly identity: RuntimeIdentity;
  /** Makes the span and the observer of each request; without it nothing is logged. */
  readonly watch?: WatchRequest;
  readonly inflight?: Inflight;
  /** Without it Exec, Attach and PortForward are unimplemented. */
  readonly streaming?: StreamingServer;
}

export interface CriServer {
  readonly socketPath: string;
  /** Requests being worked on, for /debug/inflight. */
  readonly inflight: Inflight;
  /**
   * Takes no new requests and lets those in flight finish. After `graceMs` milliseconds they are told to stop; a
   * second later the connections are cut. What they have begun they still take back; the promise does not wait for it.
   */
  close(graceMs: number): Promise<void>;
}

/** 80 MiB both ways: ExecSync may carry 16 MiB twice, and long lists are one message. */
const longestMessage = 80 * 1024 * 1024;

/** How long a request that was told to stop may take to answer so. */
const lastWordsMs = 1000;

const unwatched: WatchRequest = () => ({ observer: silentObserver, end: () => undefined });

/** Serves both CRI services on a unix socket. Throws when the socket cannot be had (see `listenOn`). */
export async function serveCri(options: CriServerOptions): Promise<CriServer> {
  const inflight = options.inflight ?? new Inflight();
  const [closing, stopping] = [new AbortController(), new AbortController()];
  setMaxListeners(0, closing.signal, stopping.signal); // one listener per request in flight
  const grpc = grpcServer(options, inflight, { closing: closing.signal, stopping: stopping.signal });
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  const connections = new Set<ClientConnection>();
  const listener = await listenOn(options.socketPath, 'own', (socket) => {
    const connection = new ClientConnection(socket);
    connections.add(connection);
    connection.once('close', () => connections.delete(connection));
    injector.injectConnection(connection);
  });
  return {
    socketPath: options.socketPath,
    inflight,
    async close(graceMs) {
      listener.close();
      closing.abort();
      if (await finished(grpc, graceMs)) return;
      stopping.abort();
      await Promise.race([inflight.idle(), sleep(lastWordsMs)]);
      grpc.forceShutdown();
      for (const connection of connections) connection.destroy();
    },
  };
}

function grpcServer(
  options: CriServerOptions,
  inflight: Inflight,
  signals: Pick<HandlerDeps, 'closing' | 'stopping'>,
): GrpcServer {
  const server = new GrpcServer({
    'grpc.max_receive_message_length': longestMessage,
    'grpc.max_send_message_length': longestMessage,
    'grpc.enable_channelz': 0,
  });
  const deps = { watch: options.watch ?? unwatched, inflight, ...signals, now: () => performance.now() };
  const handle = handlerMaker(deps);
  const stream = streamHandlerMaker(deps);
  const { runtime, identity, streaming } = options;
  server.addService(runtimeServiceDefinition, runtimeService(runtime, identity, { handle, stream }, streaming));
  server.addService(imageServiceDefinition, imageService(runtime, handle, stream));
  return server;
}

/** False when requests are still in flight after the grace time. */
function finished(server: GrpcServer, graceMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), graceMs);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve(true);
    });
  });
}
