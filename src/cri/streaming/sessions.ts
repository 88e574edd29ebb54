import { setMaxListeners } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { WebSocketServer, type WebSocket } from 'ws';
import type { Call } from '../../kit/call.js';
import { messageOf } from '../../kit/errors.js';
import type { ContainerStreams, Runtime } from '../../runtime/facade.js';
import { codeName, statusOf } from '../status.js';
import type { WatchRequest } from '../handler.js';
import { serveCommand, type CommandChannels, type CommandOptions, type CommandTarget } from './command.js';
import { chooseProtocol, headerList, refuse, upgradeToSpdy } from './negotiate.js';
import { exitOutcome, success, type Outcome } from './outcome.js';
import { readPort, type DialPort } from './port-forward.js';
import { acceptCommandStreams, commandProtocols } from './spdy/command.js';
import { portForwardProtocols, servePortForward } from './spdy/port-forward.js';
import { webSocketCommand, webSocketCommandProtocols } from './websocket/command.js';
import { webSocketPortForward, webSocketPortForwardProtocols } from './websocket/port-forward.js';

/** What a URL stands for. */
export type StreamingRequest =
  | ({ readonly kind: 'exec'; readonly containerId: string; readonly command: readonly string[] } & CommandOptions)
  | ({ readonly kind: 'attach'; readonly containerId: string } & CommandOptions)
  | { readonly kind: 'portforward'; readonly sandboxId: string; readonly ports: readonly number[] };

type CommandRequest = Exclude<StreamingRequest, { readonly kind: 'portforward' }>;

export interface SessionDeps {
  readonly runtime: Runtime;
  readonly creationTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly watch: WatchRequest;
}

/** Input comes in small pieces; whole messages are kept in memory. */
const longestMessage = 4 << 20;

/** The streaming sessions under way, over whichever protocol their clients speak. */
export class Sessions {
  readonly #deps: SessionDeps;
  readonly #sockets = new Set<Socket>();
  readonly #webSockets = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: longestMessage,
  });

  readonly #chosen = new WeakMap<IncomingMessage, string>();

  constructor(deps: SessionDeps) {
    this.#deps = deps;
    this.#webSockets.on('headers', (headers, request) => {
      const protocol = this.#chosen.get(request);
      if (protocol !== undefined) headers.push(`Sec-WebSocket-Protocol: ${protocol}`);
    });
  }

  get size(): number {
    return this.#sockets.size;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Takes over a connection whose token was good. */
  begin(wanted: StreamingRequest, request: IncomingMessage, socket: Socket, head: Buffer): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    const upgrade = request.headers.upgrade?.toLowerCase();
    if (upgrade === 'websocket') return this.#webSocket(wanted, request, socket, head);
    if (upgrade !== 'spdy/3.1') return refuse(socket, '400 Bad Request', `cannot upgrade to ${String(upgrade)}`);
    if (head.length > 0) socket.unshift(head);
    if (wanted.kind === 'portforward') {
      if (upgradeToSpdy(request, socket, portForwardProtocols, 'portforward.k8s.io') === undefined) return;
      return this.#watch(wanted, (call) =>
        servePortForward(socket, this.#dial(wanted.sandboxId, call), this.#deps.creationTimeoutMs),
      );
    }
    const protocol = upgradeToSpdy(request, socket, commandProtocols, 'channel.k8s.io');
    if (protocol === undefined) return;
    this.#watch(wanted, async (call) => {
      const channels = await acceptCommandStreams(socket, wanted, protocol, this.#deps.creationTimeoutMs);
      return await this.#command(wanted, channels, call);
    });
  }

  #webSocket(wanted: StreamingRequest, request: IncomingMessage, socket: Socket, head: Buffer): void {
    const known = wanted.kind === 'portforward' ? webSocketPortForwardProtocols : webSocketCommandProtocols;
    const offered = headerList(request, 'sec-websocket-protocol');
    const protocol = chooseProtocol(offered, known, 'channel.k8s.io');
    if (protocol === undefined) {
      return refuse(socket, '403 Forbidden', `none of the client's protocols is known here: ${offered.join(', ')}`);
    }
    // The library refuses names with a slash, which the tunnel's has: so the answer is written here.
    delete request.headers['sec-websocket-protocol'];
    if (offered.length > 0) this.#chosen.set(request, protocol);
    this.#webSockets.handleUpgrade(request, socket, head, (webSocket) => {
      socket.setTimeout(this.#deps.idleTimeoutMs); // the library has ended the one before
      this.#watch(wanted, (call) => this.#overWebSocket(wanted, webSocket, protocol, request, call));
    });
  }

  async #overWebSocket(
    wanted: StreamingRequest,
    webSocket: WebSocket,
    protocol: string,
    request: IncomingMessage,
    call: Call,
  ): Promise<Outcome | undefined> {
    if (wanted.kind !== 'portforward') {
      return await this.#command(wanted, webSocketCommand(webSocket, wanted, protocol), call);
    }
    const ports = portsOf(request.url ?? '', wanted.ports);
    const dial = this.#dial(wanted.sandboxId, call);
    await webSocketPortForward(webSocket, protocol, ports, dial, this.#deps.creationTimeoutMs);
    return undefined;
  }

  #dial(sandboxId: string, call: Call): DialPort {
    return (port) => this.#deps.runtime.sandboxes.dial(sandboxId, port, call);
  }

  #command(wanted: CommandRequest, channels: CommandChannels, call: Call): Promise<Outcome> {
    const { containers } = this.#deps.runtime;
    if (wanted.kind === 'attach') {
      return serveCommand(`attach to container ${wanted.containerId}`, channels, async (signal) =>
        attachTarget(wanted.containerId, await containers.attach(wanted.containerId, { ...call, signal }), containers),
      );
    }
    const { containerId, command, stdin, terminal } = wanted;
    return serveCommand(`exec in container ${containerId}`, channels, async (signal) => {
      const streams = await containers.exec(containerId, { args: command, stdin, terminal }, { ...call, signal });
      return { ...streams, outcome: streams.exited.then(exitOutcome) };
    });
  }

  /** One span and one log line for each session. */
  #watch(wanted: StreamingRequest, serve: (call: Call) => Promise<Outcome | void>): void {
    const subject = wanted.kind === 'portforward' ? { sandbox: wanted.sandboxId } : { container: wanted.containerId };
    const name = { exec: 'ExecSession', attach: 'AttachSession', portforward: 'PortForwardSession' }[wanted.kind];
    const startedAt = performance.now();
    const watch = this.#deps.watch(name, subject);
    const end = (error?: unknown): void => {
      const milliseconds = performance.now() - startedAt;
      const { code } = error === undefined ? { code: 0 } : statusOf(error);
      watch.end({ code, codeName: codeName(code), milliseconds, ...(error === undefined ? {} : { error }) });
    };
    const { signal } = new AbortController();
    setMaxListeners(0, signal); // one listener for each connection being made
    serve({ signal, observer: watch.observer }).then(
      (outcome) => {
        if (outcome?.kind === 'error') watch.observer.note('warn', `${name}: ${outcome.message}`, subject);
        end();
      },
      (error: unknown) => {
        watch.observer.note('debug', `${name}: ${messageOf(error)}`, subject);
        end(error);
      },
    );
  }
}

function attachTarget(id: string, streams: ContainerStreams, containers: Runtime['containers']): CommandTarget {
  return {
    ...streams,
    resize: (rows, columns) => containers.resize(id, rows, columns),
    outcome: streams.ended.then(() => success),
  };
}

/** A WebSocket client names its ports in the query, or else in the CRI request. */
function portsOf(url: string, requested: readonly number[]): readonly number[] {
  const named = new URL(url, 'http://server').searchParams.getAll('port').flatMap((text) => text.split(','));
  const ports = named.map(readPort).filter((port) => port !== undefined);
  return ports.length > 0 ? ports : requested;
}
