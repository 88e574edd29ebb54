import { Duplex } from 'node:stream';

/** What a stream holds before its reader counts as lagging, bytes. */
const bufferBytes = 256 << 10;

/** One of several streams that share a connection: data arrive whether its reader keeps up or not. */
export abstract class InboundStream extends Duplex {
  readonly #onFlow: (stream: InboundStream) => void;
  #ended = false;
  #lagging = false;
  #takenAt = 0;

  /** `onFlow` is called whenever a lagging stream has got or lost data, or stops being one. */
  constructor(onFlow: (stream: InboundStream) => void) {
    super({ allowHalfOpen: true, highWaterMark: bufferBytes });
    this.#onFlow = onFlow;
  }

  /** Holds more than its reader should leave. */
  get lagging(): boolean {
    return this.#lagging;
  }

  /** When its reader last took something, or began to lag: milliseconds of the monotonic clock. */
  get takenAt(): number {
    return this.#takenAt;
  }

  /** The peer has sent all it will. */
  get ended(): boolean {
    return this.#ended;
  }

  /** From the peer. */
  receive(data: Uint8Array, last: boolean): void {
    if (this.destroyed || this.#ended) return;
    if (data.length > 0 && !this.push(data)) {
      if (!this.#lagging) this.#takenAt = performance.now();
      this.#lagging = true;
      this.#onFlow(this);
    }
    if (!last) return;
    this.#ended = true;
    this.push(null);
  }

  override read(size?: number): unknown {
    const lagged = this.#lagging;
    const data: unknown = super.read(size);
    if (!lagged || data === null) return data;
    this.#takenAt = performance.now();
    this.#onFlow(this);
    return data;
  }

  override _read(): void {
    this.#catchUp();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#catchUp();
    done(error);
  }

  #catchUp(): void {
    if (!this.#lagging) return;
    this.#lagging = false;
    this.#onFlow(this);
  }
}
