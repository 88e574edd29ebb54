import { InboundStream } from '../inbound.js';
import type { HeaderPairs } from './headers.js';

/** What a stream asks of its connection. */
export interface StreamLink {
  /** Calls back when there is room for more. */
  send(data: Uint8Array, last: boolean, done: (error?: Error | null) => void): void;
  /** The peer hears that the stream is over, unless it knows. */
  gone(reset: boolean): void;
  /** Its reader lags, and has got or taken data, or caught up. */
  flow(stream: InboundStream): void;
}

/** One SPDY stream: half-closed by `end`, reset by `destroy`. */
export class SpdyStream extends InboundStream {
  readonly headers: HeaderPairs;
  readonly id: number;
  readonly #link: StreamLink;
  #finished = false;

  constructor(id: number, headers: HeaderPairs, link: StreamLink) {
    super((stream) => link.flow(stream));
    this.id = id;
    this.headers = headers;
    this.#link = link;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#link.send(chunk, false, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#finished = true;
    this.#link.send(new Uint8Array(), true, done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#link.gone(!(this.#finished && this.ended));
    super._destroy(error, done);
  }
}
