import { request as httpRequest, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { RuntimeError } from '../../kit/errors.js';
import { silentObserver } from '../../kit/observer.js';
import type { CommandStreams, ContainerStreams, ExecCommand, Runtime } from '../../runtime/facade.js';
import { decode, decodeError, encode, encodeError, type WireError } from './wire.js';

/**
 * Streams over the admin socket, of a container (attach) or of a command in one (exec): GET /streams with
 * `Upgrade: berth-streams`, then frames of a type octet, a big-endian u32 length and the bytes, both ways. The first
 * frame says what to open; it is answered by `opened` or `failed`.
 */
const protocol = 'berth-streams';
const frames = { open: 0, opened: 1, failed: 2, stdin: 3, stdout: 4, stderr: 5, end: 6, resize: 7, exit: 8 } as const;

/** With a command: exec; without: attach. */
export interface StreamsRequest {
  readonly id: string;
  readonly command?: ExecCommand;
}

function send(socket: Duplex, type: number, data: Uint8Array | string = ''): boolean {
  const body = Buffer.from(data);
  const head = Buffer.alloc(5);
  head.writeUInt8(type, 0);
  head.writeUInt32BE(body.length, 1);
  socket.cork();
  socket.write(head);
  const more = socket.write(body);
  socket.uncork();
  return more;
}

type OnFrame = (type: number, data: Buffer) => void;

/** Calls `onFrame` for each whole frame of the stream, in order. */
function readFrames(socket: Duplex, onFrame: OnFrame): void {
  let rest: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      const end = 5 + rest.readUInt32BE(1);
      onFrame(rest.readUInt8(0), rest.subarray(5, end));
      rest = rest.subarray(end);
    }
  });
}

/** The agent's side, for the admin server's `upgrade` event. */
export function streamsHandler(runtime: Runtime) {
  return (_request: IncomingMessage, socket: Duplex): Promise<void> => {
    socket.on('error', () => socket.destroy());
    const gone = new AbortController();
    socket.once('close', () => gone.abort());
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`);
    let onFrame: OnFrame | undefined;
    readFrames(socket, (type, data) => {
      if (onFrame !== undefined) return onFrame(type, data);
      // Input that comes before the streams are open waits in `early`.
      const early: [number, Buffer][] = [];
      onFrame = (...frame) => void early.push(frame);
      void openHere(runtime, decode(data.toString()) as StreamsRequest, gone.signal).then(
        (opened) => {
          onFrame = pump(opened, socket);
          for (const frame of early) onFrame(...frame);
        },
        (error: unknown) => {
          send(socket, frames.failed, encode(encodeError(error)));
          socket.end();
        },
      );
    });
    return Promise.resolve();
  };
}

interface Opened {
  readonly streams: Omit<ContainerStreams, 'ended'>;
  /** The exit code of a command, undefined for a container. */
  readonly over: Promise<number | undefined>;
  resize(rows: number, columns: number): Promise<void>;
}

async function openHere(
  { containers }: Runtime,
  { id, command }: StreamsRequest,
  signal: AbortSignal,
): Promise<Opened> {
  const call = { signal, observer: silentObserver };
  if (command === undefined) {
    const streams = await containers.attach(id, call);
    const resize = (rows: number, columns: number): Promise<void> => containers.resize(id, rows, columns);
    return { streams, over: streams.ended.then(() => undefined), resize };
  }
  const streams = await containers.exec(id, command, call);
  return { streams, over: streams.exited, resize: (rows, columns) => streams.resize(rows, columns) };
}

/** Joins opened streams to the socket; returns what to do with each further frame of the client. */
function pump({ streams, over, resize }: Opened, socket: Duplex): OnFrame {
  send(socket, frames.opened);
  streams.onOutput((stream, data) => {
    if (!send(socket, frames[stream], data)) streams.pause();
  });
  socket.on('drain', () => streams.resume());
  socket.on('close', () => streams.close());
  void over.then(
    (code) => {
      send(socket, code === undefined ? frames.end : frames.exit, code === undefined ? '' : String(code));
      socket.end();
    },
    () => socket.destroy(),
  );
  return (type, data) => {
    if (type === frames.end) streams.end();
    else if (type === frames.stdin) void streams.write(data).catch(() => undefined);
    else if (type === frames.resize) {
      const [rows = 0, columns = 0] = data.toString().split(' ').map(Number);
      void resize(rows, columns).catch(() => undefined);
    }
  };
}

/** The command's side of attach. */
export async function attachRemote(socketPath: string, id: string, signal: AbortSignal): Promise<ContainerStreams> {
  const { streams, over } = await openRemote(socketPath, { id }, signal);
  return { ...streams, ended: over.then(() => undefined) };
}

/** The command's side of exec. */
export async function execRemote(
  socketPath: string,
  id: string,
  command: ExecCommand,
  signal: AbortSignal,
): Promise<CommandStreams> {
  const { streams, over, resize } = await openRemote(socketPath, { id, command }, signal);
  const exited = over.then((code) => {
    if (code !== undefined) return code;
    throw new RuntimeError('unavailable', 'the agent went away while the command ran');
  });
  return { ...streams, resize, exited };
}

async function openRemote(socketPath: string, wanted: StreamsRequest, signal: AbortSignal): Promise<Opened> {
  const socket = await connect(socketPath, signal);
  socket.on('error', () => socket.destroy());
  const client = new ClientStreams(socket);
  send(socket, frames.open, encode(wanted));
  await client.opened;
  return {
    streams: client,
    over: client.over,
    resize: (rows, columns) => Promise.resolve(void send(socket, frames.resize, `${rows} ${columns}`)),
  };
}

function connect(socketPath: string, signal: AbortSignal): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const headers = { connection: 'Upgrade', upgrade: protocol };
    const request = httpRequest({ socketPath, path: '/streams', headers, signal });
    request.on('upgrade', (_response, socket, head) => {
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
    });
    request.on('error', (error) =>
      reject(new RuntimeError('unavailable', `ask the agent at ${socketPath}: ${error.message}`)),
    );
    request.end();
  });
}

class ClientStreams implements Omit<ContainerStreams, 'ended'> {
  readonly opened: Promise<void>;
  readonly over: Promise<number | undefined>;
  readonly #socket: Duplex;
  readonly #waiting: ['stdout' | 'stderr', Buffer][] = [];
  #listener: ((stream: 'stdout' | 'stderr', data: Uint8Array) => void) | undefined;

  constructor(socket: Duplex) {
    this.#socket = socket;
    let code: number | undefined;
    this.over = new Promise((resolve) => socket.once('close', () => resolve(code)));
    this.opened = new Promise((resolve, reject) => {
      socket.once('close', () => reject(new RuntimeError('unavailable', 'the agent went away')));
      readFrames(socket, (type, data) => {
        if (type === frames.opened) resolve();
        else if (type === frames.failed) reject(decodeError(JSON.parse(data.toString()) as WireError));
        else if (type === frames.stdout) this.#deliver('stdout', data);
        else if (type === frames.stderr) this.#deliver('stderr', data);
        else if (type === frames.exit) code = Number(data.toString());
      });
    });
    socket.once('end', () => socket.end());
  }

  #deliver(stream: 'stdout' | 'stderr', data: Buffer): void {
    if (this.#listener === undefined) this.#waiting.push([stream, data]);
    else this.#listener(stream, data);
  }

  onOutput = (listener: (stream: 'stdout' | 'stderr', data: Uint8Array) => void): void => {
    this.#listener = listener;
    for (const [stream, data] of this.#waiting.splice(0)) listener(stream, data);
  };
  write = (data: Uint8Array): Promise<void> =>
    new Promise((resolve) => {
      if (send(this.#socket, frames.stdin, data)) resolve();
      else this.#socket.once('drain', resolve).once('close', resolve);
    });
  end = (): void => void send(this.#socket, frames.end);
  pause = (): void => void this.#socket.pause();
  resume = (): void => void this.#socket.resume();
  close = (): void => void this.#socket.destroy();
}
