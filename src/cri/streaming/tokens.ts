import { randomBytes } from 'node:crypto';
import { RuntimeError } from '../../kit/errors.js';

/** A token nobody guesses: 32 random bytes. */
const tokenBytes = 32;
/** Requests that wait for their client at once; more is a client that never comes. */
const mostWaiting = 1000;

interface Waiting<T> {
  readonly value: T;
  readonly expires: number;
}

/** Requests waiting for their client: each token works once, within its time. */
export class Tokens<T> {
  readonly #waiting = new Map<string, Waiting<T>>();
  readonly #lifetimeMs: number;
  readonly #now: () => number;

  /** `now` is a monotonic clock in milliseconds. */
  constructor(lifetimeMs: number, now: () => number) {
    this.#lifetimeMs = lifetimeMs;
    this.#now = now;
  }

  /** Throws `exhausted` when too many wait already. */
  issue(value: T): string {
    this.#dropExpired();
    if (this.#waiting.size >= mostWaiting) {
      throw new RuntimeError('exhausted', `${mostWaiting} streaming requests wait for their clients already`);
    }
    const token = randomBytes(tokenBytes).toString('base64url');
    this.#waiting.set(token, { value, expires: this.#now() + this.#lifetimeMs });
    return token;
  }

  /** The request of a token, once. */
  redeem(token: string): T | undefined {
    const waiting = this.#waiting.get(token);
    this.#waiting.delete(token);
    return waiting === undefined || waiting.expires < this.#now() ? undefined : waiting.value;
  }

  /** Insertion order is the order of expiry. */
  #dropExpired(): void {
    for (const [token, { expires }] of this.#waiting) {
      if (expires >= this.#now()) return;
      this.#waiting.delete(token);
    }
  }
}
