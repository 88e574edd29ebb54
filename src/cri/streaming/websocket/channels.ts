import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import { RuntimeError } from '../../../kit/errors.js';
import { InboundStream } from '../inbound.js';
import { ReadAhead, type ReadAheadLimits } from '../read-ahead.js';

/** Milliseconds a client may take to say goodbye. */
const farewellMs = 5000;
const closeChannel = 255;

/** How messages look: binary with a channel octet first, or text with a channel digit and base64. */
export type Coding = 'binary' | 'base64';

/**
 * Numbered channels over one WebSocket: each message is its channel and its data. There is no end of a channel before
 * version 5, whose message 255 with a channel number is one.
 */
export class WebSocketChannels {
  readonly #socket: WebSocket;
  readonly #coding: Coding;
  readonly #channels = new Map<number, Channel>();
  readonly #gone = new AbortController();
  readonly #ahead: ReadAhead;

  constructor(socket: WebSocket, coding: Coding, closes: boolean, limits: ReadAheadLimits) {
    this.#socket = socket;
    this.#coding = coding;
    // Once it closes, what is still under way is read to its end.
    const isOpen = (): boolean => socket.readyState === socket.OPEN;
    this.#ahead = new ReadAhead(
      { pause: () => isOpen() && socket.pause(), resume: () => isOpen() && socket.resume() },
      limits,
    );
    socket.on('message', (data) => {
      const message = data as Buffer;
      const [number, payload] = this.#decode(message);
      if (number === closeChannel && closes)
        this.#channels.get(payload[0] ?? closeChannel)?.receive(payload.subarray(1), true);
      else this.#channels.get(number)?.receive(payload, false);
    });
    const leave = (): void => {
      this.#gone.abort(new RuntimeError('cancelled', 'the client has gone'));
      for (const channel of this.#channels.values()) channel.destroy();
    };
    socket.on('close', leave);
    socket.on('error', () => socket.terminate());
  }

  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  open(number: number): Duplex {
    const channel = new Channel((data, done) => this.send(number, data, done), this.#ahead.update);
    channel.on('error', () => undefined);
    this.#channels.set(number, channel);
    return channel;
  }

  /** `done` is called when the message has left this process. */
  send(number: number, data: Uint8Array, done: (error?: Error) => void = () => undefined): void {
    if (this.#coding === 'binary') {
      this.#socket.send(Buffer.concat([Uint8Array.of(number), data]), { binary: true }, done);
    } else {
      this.#socket.send(`${number}${Buffer.from(data).toString('base64')}`, done);
    }
  }

  close(): void {
    this.#socket.close(1000);
    const timer = setTimeout(() => this.#socket.terminate(), farewellMs);
    this.#socket.once('close', () => clearTimeout(timer));
    for (const channel of this.#channels.values()) channel.destroy();
    this.#socket.resume();
  }

  #decode(message: Buffer): readonly [number, Buffer] {
    if (this.#coding === 'binary') return [message[0] ?? -1, message.subarray(1)];
    return [(message[0] ?? 0) - 0x30, Buffer.from(message.toString('latin1', 1), 'base64')];
  }
}

class Channel extends InboundStream {
  readonly #send: (data: Uint8Array, done: (error?: Error) => void) => void;

  constructor(send: (data: Uint8Array, done: (error?: Error) => void) => void, onFlow: ReadAhead['update']) {
    super(onFlow);
    this.#send = send;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#send(chunk, done);
  }
}
