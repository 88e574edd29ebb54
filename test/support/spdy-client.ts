import { connect, type Socket } from 'node:net';
import { request as httpRequest } from 'node:http';
import { SpdyFrameReader, controlFrame, controlTypes, dataFrame } from '../../src/cri/streaming/spdy/frames.js';
import { HeaderDecoder, HeaderEncoder } from '../../src/cri/streaming/spdy/headers.js';

/** One stream as the client sees it. */
export interface ClientStream {
  readonly id: number;
  readonly text: () => string;
  readonly bytes: () => number;
  /** Resolves when the server has closed or reset its side. */
  readonly ended: Promise<'end' | 'reset'>;
  send(data: string | Uint8Array): void;
  end(): void;
  reset(): void;
}

export interface SpdyClient {
  readonly socket: Socket;
  /** The protocol the server chose. */
  readonly protocol: string | undefined;
  open(headers: Readonly<Record<string, string>>): ClientStream;
  /** Resolves when the server has said goodbye. */
  readonly goodbye: Promise<void>;
  close(): void;
}

/** Upgrades a connection as Kubernetes' clients do. Rejects with the status line when the server refuses. */
export function spdyClient(url: string, protocols: string[]): Promise<SpdyClient> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, {
      method: 'POST',
      headers: { connection: 'Upgrade', upgrade: 'SPDY/3.1', 'x-stream-protocol-version': protocols },
    });
    request.on('error', reject);
    request.on('response', (response) => {
      response.resume();
      reject(new Error(`refused: ${response.statusCode ?? 0}`));
    });
    request.on('upgrade', (response, socket, head) => {
      if (head.length > 0) socket.unshift(head);
      resolve(new Client(socket as Socket, response.headers['x-stream-protocol-version'] as string | undefined));
    });
    request.end();
  });
}

class Client implements SpdyClient {
  readonly socket: Socket;
  readonly protocol: string | undefined;
  readonly goodbye: Promise<void>;
  readonly #encoder = new HeaderEncoder();
  readonly #decoder = new HeaderDecoder();
  readonly #streams = new Map<number, Stream>();
  #nextId = 1;

  constructor(socket: Socket, protocol: string | undefined) {
    this.socket = socket;
    this.protocol = protocol;
    const reader = new SpdyFrameReader();
    let leave = (): void => undefined;
    this.goodbye = new Promise((resolve) => (leave = resolve));
    socket.on('data', (chunk: Buffer) => {
      for (const frame of reader.push(chunk)) {
        if (frame.kind === 'data') this.#streams.get(frame.streamId)?.take(frame.data, frame.fin);
        else if (frame.type === controlTypes.synReply) this.#decoder.decode(frame.payload.subarray(4));
        else if (frame.type === controlTypes.rstStream)
          this.#streams.get(frame.payload.readUInt32BE(0))?.finish('reset');
        else if (frame.type === controlTypes.goaway) leave();
      }
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      for (const stream of this.#streams.values()) stream.finish('reset');
      leave();
    });
  }

  open(headers: Readonly<Record<string, string>>): ClientStream {
    const id = this.#nextId;
    this.#nextId += 2;
    const stream = new Stream(id, this.socket);
    this.#streams.set(id, stream);
    const block = this.#encoder.encode(new Map(Object.entries(headers)));
    this.socket.write(controlFrame(controlTypes.synStream, 0, id, 0, Buffer.alloc(2), block));
    return stream;
  }

  close(): void {
    this.socket.destroy();
  }
}

class Stream implements ClientStream {
  readonly id: number;
  readonly ended: Promise<'end' | 'reset'>;
  readonly #socket: Socket;
  readonly #chunks: Buffer[] = [];
  #finish: (how: 'end' | 'reset') => void = () => undefined;

  constructor(id: number, socket: Socket) {
    this.id = id;
    this.#socket = socket;
    this.ended = new Promise((resolve) => (this.#finish = resolve));
  }

  text = (): string => Buffer.concat(this.#chunks).toString();
  bytes = (): number => this.#chunks.reduce((sum, { length }) => sum + length, 0);

  take(data: Buffer, last: boolean): void {
    if (data.length > 0) this.#chunks.push(data);
    if (last) this.finish('end');
  }

  finish(how: 'end' | 'reset'): void {
    this.#finish(how);
  }

  send(data: string | Uint8Array): void {
    this.#socket.write(dataFrame(this.id, Buffer.from(data), false));
  }

  end(): void {
    this.#socket.write(dataFrame(this.id, Buffer.alloc(0), true));
  }

  reset(): void {
    this.#socket.write(controlFrame(controlTypes.rstStream, 0, this.id, 5));
  }
}

/** A plain connection, for requests that are none. */
export const rawRequest = (port: number, text: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    let answer = '';
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
    socket.on('error', reject);
    socket.on('close', () => resolve(answer));
  });
