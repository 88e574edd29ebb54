import { RuntimeError } from '../kit/errors.js';
import type { RuntimeEvent } from './facade.js';

/** Events kept for a subscriber that does not read; then its stream ends, and it knows that it must look for itself. */
const longestQueue = 10_000;

/** Hands each event to every subscriber, in order. */
export class EventFeed {
  readonly #subscribers = new Set<Subscriber>();

  publish(event: RuntimeEvent): void {
    for (const subscriber of this.#subscribers) subscriber.take(event);
  }

  /**
   * The events from now on, until the signal aborts. Throws `exhausted` when the reader has fallen too far behind:
   * what it missed is in the lists.
   */
  subscribe(signal: AbortSignal): AsyncIterable<RuntimeEvent> {
    const subscriber = new Subscriber();
    this.#subscribers.add(subscriber);
    const leave = (): void => {
      this.#subscribers.delete(subscriber);
      subscriber.end();
    };
    if (signal.aborted) leave();
    signal.addEventListener('abort', leave, { once: true });
    return subscriber.events(() => {
      signal.removeEventListener('abort', leave);
      this.#subscribers.delete(subscriber);
    });
  }
}

class Subscriber {
  #queue: RuntimeEvent[] = [];
  #wake: () => void = () => undefined;
  #ended = false;
  #lost = false;

  take(event: RuntimeEvent): void {
    if (this.#lost) return;
    if (this.#queue.length >= longestQueue) {
      this.#lost = true;
      this.#queue = [];
    } else {
      this.#queue.push(event);
    }
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  async *events(done: () => void): AsyncGenerator<RuntimeEvent> {
    try {
      for (;;) {
        if (this.#lost)
          throw new RuntimeError('exhausted', `more than ${longestQueue} events were not read: list again`);
        const batch = this.#queue;
        this.#queue = [];
        yield* batch;
        if (this.#ended) return;
        if (this.#queue.length === 0 && !this.#lost) await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      done();
    }
  }
}
