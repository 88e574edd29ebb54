import { RuntimeError } from './errors.js';

interface Flight<P, T> {
  readonly controller: AbortController;
  readonly listeners: Set<(progress: P) => void>;
  readonly outcome: Promise<T>;
  last: P | undefined;
  waiters: number;
}

/**
 * Work that several callers want at the same time is done once. All of them see its progress, the late ones starting
 * with the newest, and share its outcome. One who gives up leaves alone; when the last has left, the work is aborted.
 */
export class SharedWork<P, T> {
  readonly #flights = new Map<string, Flight<P, T>>();
  readonly #running = new Set<Promise<unknown>>();

  async join(
    key: string,
    signal: AbortSignal,
    onProgress: (progress: P) => void,
    start: (signal: AbortSignal, report: (progress: P) => void) => Promise<T>,
  ): Promise<T> {
    if (signal.aborted) throw cancelled(signal);
    const flight = this.#flights.get(key) ?? this.#launch(key, start);
    flight.waiters += 1;
    flight.listeners.add(onProgress);
    if (flight.last !== undefined) onProgress(flight.last);
    let leave = (): void => undefined;
    const left = new Promise<never>((_, reject) => {
      leave = () => reject(cancelled(signal));
      signal.addEventListener('abort', leave, { once: true });
    });
    try {
      return await Promise.race([flight.outcome, left]);
    } finally {
      signal.removeEventListener('abort', leave);
      flight.listeners.delete(onProgress);
      flight.waiters -= 1;
      if (flight.waiters === 0) this.#abandon(key, flight);
    }
  }

  /** Waits until all work, abandoned work too, has come to its end. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }

  #launch(key: string, start: (signal: AbortSignal, report: (progress: P) => void) => Promise<T>): Flight<P, T> {
    const controller = new AbortController();
    const listeners = new Set<(progress: P) => void>();
    const report = (progress: P): void => {
      flight.last = progress;
      for (const listener of listeners) listener(progress);
    };
    /* A turn later, so that `flight` is there when the work reports at once. */
    const outcome = Promise.resolve().then(() => start(controller.signal, report));
    const flight: Flight<P, T> = { controller, listeners, outcome, last: undefined, waiters: 0 };
    const tracked = outcome.then(
      () => this.#forget(key, flight),
      () => this.#forget(key, flight),
    );
    this.#running.add(tracked);
    void tracked.finally(() => this.#running.delete(tracked));
    this.#flights.set(key, flight);
    return flight;
  }

  #abandon(key: string, flight: Flight<P, T>): void {
    this.#forget(key, flight);
    flight.controller.abort(new RuntimeError('cancelled', 'nobody waits for this any more'));
  }

  #forget(key: string, flight: Flight<P, T>): void {
    if (this.#flights.get(key) === flight) this.#flights.delete(key);
  }
}

const cancelled = (signal: AbortSignal): RuntimeError =>
  signal.reason instanceof RuntimeError
    ? signal.reason
    : new RuntimeError('cancelled', 'the caller went away', { cause: signal.reason });
