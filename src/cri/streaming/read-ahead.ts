import type { InboundStream } from './inbound.js';

/** How far a connection is read beyond what the readers of its streams have taken. */
export interface ReadAheadLimits {
  /** Bytes that lagging streams may hold together before nothing more is read. */
  readonly bytes: number;
  /** Milliseconds without a byte taken after which a stream that keeps the others waiting is given up; absent: never. */
  readonly stallMs?: number;
}

/** For streams that belong together, like those of a command: its stdin may wait for ever, and sizes still pass it. */
export const patient: ReadAheadLimits = { bytes: 1 << 20 };

/** For streams that know nothing of each other, like forwarded connections. */
export const fair: ReadAheadLimits = { bytes: 8 << 20, stallMs: 30_000 };

export interface Pausable {
  pause(): void;
  resume(): void;
}

/**
 * Keeps a slow reader of one stream from holding up the others on its connection. Kubernetes' clients know no windows
 * of SPDY, and channels over WebSocket have none, so a single stream cannot be told to wait: what its reader leaves is
 * kept up to a bound. Beyond, the connection waits; and when a reader takes nothing at all, its stream is given up.
 */
export class ReadAhead {
  readonly #connection: Pausable;
  readonly #limits: ReadAheadLimits;
  readonly #lagging = new Set<InboundStream>();
  #timer: NodeJS.Timeout | undefined;

  constructor(connection: Pausable, limits: ReadAheadLimits) {
    this.#connection = connection;
    this.#limits = limits;
  }

  /** A lagging stream has got or lost data, or caught up. */
  readonly update = (stream: InboundStream): void => {
    if (stream.lagging) this.#lagging.add(stream);
    else this.#lagging.delete(stream);
    let held = 0;
    for (const { readableLength } of this.#lagging) held += readableLength;
    if (held < this.#limits.bytes) return this.#goOn();
    this.#connection.pause();
    if (this.#limits.stallMs !== undefined) this.#timer ??= setTimeout(this.#giveUpStalled, this.#limits.stallMs);
  };

  #goOn(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#connection.resume();
  }

  readonly #giveUpStalled = (): void => {
    this.#timer = undefined;
    const { stallMs = Infinity } = this.#limits;
    const now = performance.now();
    const stalled = [...this.#lagging].filter(({ takenAt }) => now - takenAt >= stallMs);
    const [worst] = stalled.sort((a, b) => b.readableLength - a.readableLength);
    if (worst === undefined) this.#timer = setTimeout(this.#giveUpStalled, stallMs);
    else worst.destroy();
  };
}
