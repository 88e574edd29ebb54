import { request as httpRequest, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Call } from '../../kit/call.js';
import { RuntimeError } from '../../kit/errors.js';
import type { ContainerStreams, Runtime } from '../../runtime/facade.js';
import { decodeError, encode, encodeError, type WireError } from './wire.js';

/**
 * A container's streams over the admin socket: GET /attach?id=ID with `Upgrade: berth-attach`, then frames of a type
 * octet, a big-endian u32 length and the bytes, both ways.
 */
const frame = { stdin: 0, stdout: 1, stderr: 2, end: 3 } as const;
const protocol = 'berth-attach';

function encodeFrame(type: number, data: Uint8Array = new Uint8Array()): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(type, 0);
  head.writeUInt32BE(data.length, 1);
  return Buffer.concat([head, data]);
}

/** Calls `onFrame` for each whole frame of the stream, in order. */
function readFrames(socket: Duplex, onFrame: (type: number, data: Buffer) => void): void {
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

/** The server's side, for the admin server's `upgrade` event. */
export function attachHandler(runtime: Runtime) {
  return async (request: IncomingMessage, socket: Duplex): Promise<void> => {
    socket.on('error', () => socket.destroy());
    const id = new URL(request.url ?? '', 'http://agent').searchParams.get('id') ?? '';
    try {
      const gone = new AbortController();
      socket.once('close', () => gone.abort());
      const observer = {
        step: async <T>(_: string, work: () => Promise<T> | T) => await work(),
        note: () => undefined,
      };
      const streams = await runtime.containers.attach(id, { signal: gone.signal, observer });
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`);
      pump(streams, socket);
    } catch (error) {
      const body = encode(encodeError(error));
      socket.end(`HTTP/1.1 400 Bad Request\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
    }
  };
}

function pump(streams: ContainerStreams, socket: Duplex): void {
  streams.onOutput((stream, data) => void socket.write(encodeFrame(frame[stream], data)));
  readFrames(socket, (type, data) => {
    if (type === frame.end) streams.end();
    else void streams.write(data).catch(() => socket.destroy());
  });
  socket.on('close', () => streams.close());
  void streams.ended.finally(() => socket.end(encodeFrame(frame.end)));
}

/** The client's side. */
export function attachRemote(socketPath: string, id: string, call: Call): Promise<ContainerStreams> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      socketPath,
      path: `/attach?id=${encodeURIComponent(id)}`,
      headers: { connection: 'Upgrade', upgrade: protocol },
      signal: call.signal,
    });
    request.on('upgrade', (_response, socket, head) => resolve(remoteStreams(socket, head)));
    request.on('response', (response) => void readError(response).then(reject, reject));
    request.on('error', (error) => reject(new RuntimeError('unavailable', `attach to ${id}: ${error.message}`)));
    request.end();
  });
}

async function readError(response: IncomingMessage): Promise<RuntimeError> {
  const chunks = await response.toArray();
  return decodeError(JSON.parse(Buffer.concat(chunks as Buffer[]).toString('utf8')) as WireError);
}

function remoteStreams(socket: Duplex, head: Buffer): ContainerStreams {
  let listener: ((stream: 'stdout' | 'stderr', data: Uint8Array) => void) | undefined;
  const waiting: [type: number, data: Buffer][] = [];
  const deliver = (type: number, data: Buffer): void => {
    if (type === frame.end) socket.end();
    else if (listener === undefined) waiting.push([type, data]);
    else listener(type === frame.stderr ? 'stderr' : 'stdout', data);
  };
  readFrames(socket, deliver);
  if (head.length > 0) socket.unshift(head);
  socket.on('error', () => socket.destroy());
  return {
    onOutput(given) {
      listener = given;
      for (const [type, data] of waiting.splice(0)) deliver(type, data);
    },
    write: (data) => new Promise((resolve) => socket.write(encodeFrame(frame.stdin, data), () => resolve())),
    end: () => void socket.write(encodeFrame(frame.end)),
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    ended: new Promise((resolve) => socket.once('close', () => resolve())),
    close: () => socket.destroy(),
  };
}
