import { throwIfCancelled } from '../../kit/deadline.js';

/**
 * Lets at most `limit` pieces of work run at a time, first come, first served. Work that finds itself waiting for the
 * outside may give its place away before it is done, so that one slow registry does not hold up all the others.
 */
export class Gate {
  #free: number;
  readonly #queue: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  async hold<T>(signal: AbortSignal, doing: string, work: (leave: () => void) => Promise<T>): Promise<T> {
    await this.#enter(signal, doing);
    let inside = true;
    const leave = (): void => {
      if (inside) this.#leave();
      inside = false;
    };
    try {
      return await work(leave);
    } finally {
      leave();
    }
  }

  async #enter(signal: AbortSignal, doing: string): Promise<void> {
    throwIfCancelled(signal, doing);
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    const granted = await new Promise<boolean>((resolve) => {
      const turn = (): void => {
        signal.removeEventListener('abort', quit);
        resolve(true);
      };
      const quit = (): void => {
        this.#queue.splice(this.#queue.indexOf(turn), 1);
        resolve(false);
      };
      this.#queue.push(turn);
      signal.addEventListener('abort', quit, { once: true });
    });
    if (!granted) throwIfCancelled(signal, doing);
  }

  #leave(): void {
    const next = this.#queue.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }
}
