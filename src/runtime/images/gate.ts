import { throwIfCancelled } from '../../kit/deadline.js';

/** Lets at most `limit` pieces of work run at a time, first come, first served. */
export class Gate {
  #free: number;
  readonly #queue: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  async hold<T>(signal: AbortSignal, doing: string, work: () => Promise<T>): Promise<T> {
    await this.#enter(signal, doing);
    try {
      return await work();
    } finally {
      this.#leave();
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
