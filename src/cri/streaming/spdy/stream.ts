import { Duplex } from 'node:stream';
import type { HeaderPairs } from './headers.js';

/** What a stream asks of its connection. */
export interface StreamLink {
  /** Calls back when there is room for more. */
  send(data: Uint8Array, last: boolean, done: (error?: Error | null) => void): void;
  /** The peer hears that the stream is over, unless it knows. */
  gone(reset: boolean): void;
  /** The reader has taken what was there. */
  drained(): void;
}

/** Bytes a stream holds before its whole connection waits for its reader. */
const bufferBytes = 256 << 10;

/** One SPDY stream: half-closed by `end`, reset by `destroy`. */
export class SpdyStream extends Duplex {
  readonly headers: HeaderPairs;
  readonly id: number;
  readonly #link: StreamLink;
  #finished = false;
  #ended = false;
  /** Bytes handed in and not read yet would fill memory: the connection stops reading while this is set. */
  choked = false;

  constructor(id: number, headers: HeaderPairs, link: StreamLink) {
    super({ allowHalfOpen: true, highWaterMark: bufferBytes });
    this.id = id;
    this.headers = headers;
    this.#link = link;
  }

  /** From the peer. */
  receive(data: Buffer, last: boolean): void {
    if (this.destroyed || this.#ended) return;
    if (data.length > 0 && !this.push(data)) this.choked = true;
    if (!last) return;
    this.#ended = true;
    this.push(null);
  }

  override _read(): void {
    if (!this.choked) return;
    this.choked = false;
    this.#link.drained();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#link.send(chunk, false, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#finished = true;
    this.#link.send(new Uint8Array(), true, done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.choked = false;
    this.#link.gone(!(this.#finished && this.#ended));
    done(error);
  }
}
