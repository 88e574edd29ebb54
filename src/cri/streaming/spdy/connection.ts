import type { Duplex } from 'node:stream';
import { RuntimeError, messageOf } from '../../../kit/errors.js';
import { ReadAhead, type ReadAheadLimits } from '../read-ahead.js';
import { SpdyFrameReader, controlFrame, controlTypes, dataFrame, fin, resetReasons, type SpdyFrame } from './frames.js';
import { HeaderDecoder, HeaderEncoder } from './headers.js';
import { SpdyStream } from './stream.js';

/** Bytes of data sent in one frame, so that streams get their turns. */
const longestData = 16 << 10;
/** Milliseconds a client may take to hang up. */
const farewellMs = 5000;
/** Streams a client may have open at once. */
const mostStreams = 512;

/**
 * The server's side of SPDY/3.1 over any byte stream, as far as Kubernetes' clients use it: they open streams, know no
 * windows and no settings, and rely on the transport's own flow control. What happens when a stream's reader lags is
 * told by `ReadAhead`.
 */
export class SpdyConnection {
  readonly #transport: Duplex;
  readonly #reader = new SpdyFrameReader();
  readonly #decoder = new HeaderDecoder();
  readonly #encoder = new HeaderEncoder();
  readonly #streams = new Map<number, SpdyStream>();
  readonly #onStream: (stream: SpdyStream) => void;
  readonly #ahead: ReadAhead;
  #lastId = 0;
  #leaving = false;

  /** `onStream` is called for each stream the client opens, and may refuse it with `destroy`. */
  constructor(transport: Duplex, limits: ReadAheadLimits, onStream: (stream: SpdyStream) => void) {
    this.#transport = transport;
    this.#ahead = new ReadAhead(transport, limits);
    this.#onStream = onStream;
    transport.setMaxListeners(0); // one for each stream that waits for room
    transport.on('data', (chunk: Buffer) => this.#receive(chunk));
    transport.on('end', () => {
      this.#closeStreams();
      transport.end();
    });
    transport.on('error', () => transport.destroy());
    transport.on('close', () => this.#closeStreams());
  }

  /** Tells the client that this is the end, and hangs up when everything is sent. */
  close(): void {
    if (this.#leaving) return;
    this.#leaving = true;
    if (this.#transport.destroyed) return;
    this.#transport.end(controlFrame(controlTypes.goaway, 0, this.#lastId, 0));
    this.#closeStreams();
    this.#transport.resume();
    const timer = setTimeout(() => this.#transport.destroy(), farewellMs);
    this.#transport.once('close', () => clearTimeout(timer));
  }

  #closeStreams(): void {
    for (const stream of [...this.#streams.values()]) stream.destroy();
  }

  #receive(chunk: Buffer): void {
    try {
      for (const frame of this.#reader.push(chunk)) this.#handle(frame);
    } catch (error) {
      this.#transport.destroy(new RuntimeError('invalid-argument', messageOf(error)));
    }
  }

  #handle(frame: SpdyFrame): void {
    if (frame.kind === 'data') return this.#data(frame.streamId, frame.data, frame.fin);
    const { type, flags, payload } = frame;
    if (type === controlTypes.synStream) return this.#open(flags, payload);
    if (type === controlTypes.ping && payload.length >= 4) {
      // Ours would be even; we send none.
      this.#send(controlFrame(type, 0, payload.readUInt32BE(0)));
    } else if (type === controlTypes.rstStream && payload.length >= 8) {
      this.#forget(payload.readUInt32BE(0) & 0x7fffffff)?.destroy();
    } else if ((type === controlTypes.headers || type === controlTypes.synReply) && payload.length >= 4) {
      this.#decoder.decode(payload.subarray(4)); // keeps the compression in step
      if ((flags & fin) !== 0) this.#data(payload.readUInt32BE(0) & 0x7fffffff, Buffer.alloc(0), true);
    }
  }

  #open(flags: number, payload: Buffer): void {
    if (payload.length < 10) throw new RuntimeError('invalid-argument', 'SPDY SYN_STREAM is cut short');
    const id = payload.readUInt32BE(0) & 0x7fffffff;
    const headers = this.#decoder.decode(payload.subarray(10));
    if (id <= this.#lastId || this.#leaving || this.#streams.size >= mostStreams) {
      return this.#send(controlFrame(controlTypes.rstStream, 0, id, resetReasons.refusedStream));
    }
    this.#lastId = id;
    const stream = new SpdyStream(id, headers, {
      send: (data, last, done) => this.#sendData(id, data, last, done),
      gone: (reset) => {
        const known = this.#forget(id) !== undefined;
        if (known && reset) this.#send(controlFrame(controlTypes.rstStream, 0, id, resetReasons.cancel));
      },
      flow: this.#ahead.update,
    });
    stream.on('error', () => undefined);
    this.#streams.set(id, stream);
    this.#send(controlFrame(controlTypes.synReply, 0, id, this.#encoder.encode(new Map())));
    if ((flags & fin) !== 0) stream.receive(Buffer.alloc(0), true);
    this.#onStream(stream);
  }

  #data(id: number, data: Buffer, last: boolean): void {
    this.#streams.get(id)?.receive(data, last); // else late data of a stream that is gone
  }

  #forget(id: number): SpdyStream | undefined {
    const stream = this.#streams.get(id);
    this.#streams.delete(id);
    return stream;
  }

  #send(frame: Buffer): void {
    if (this.#transport.writable) this.#transport.write(frame);
  }

  #sendData(id: number, data: Uint8Array, last: boolean, done: (error?: Error | null) => void): void {
    if (!this.#transport.writable) return done(new RuntimeError('unavailable', 'the client has gone'));
    let at = 0;
    for (; data.length - at > longestData; at += longestData) {
      this.#transport.write(dataFrame(id, data.subarray(at, at + longestData), false));
    }
    const room = this.#transport.write(dataFrame(id, data.subarray(at), last));
    if (room) return done();
    const settle = (): void => {
      this.#transport.off('drain', settle).off('close', settle);
      done(this.#transport.destroyed ? new RuntimeError('unavailable', 'the client has gone') : null);
    };
    this.#transport.once('drain', settle).once('close', settle);
  }
}
