import { Duplex } from 'node:stream';

/** Two ends of one byte stream in memory, with the flow control of a socket. */
export function duplexPair(): readonly [Duplex, Duplex] {
  const first: Half = new Half(() => second);
  const second: Half = new Half(() => first);
  return [first, second];
}

class Half extends Duplex {
  readonly #other: () => Half | undefined;
  #room: (() => void) | undefined;

  constructor(other: () => Half | undefined) {
    super({ allowHalfOpen: true });
    this.#other = other;
  }

  override _read(): void {
    const room = this.#room;
    this.#room = undefined;
    room?.();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const other = this.#other();
    if (other === undefined || other.destroyed) return done(new Error('the other end is gone'));
    if (other.push(chunk)) done();
    else other.#room = done;
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#other()?.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const other = this.#other();
    if (other !== undefined && !other.destroyed) other.destroy();
    done(error);
  }
}
