import type { WaitingShim } from './spawn-shim.js';

/** Milliseconds after a pod's start until the reserve is filled up: the pod's own start comes first. */
const refillDelayMs = 40;
/** Milliseconds from the start of the agent: a command that only looks something up is done by then. */
const firstDelayMs = 500;

/**
 * A few shims that wait for pods, so that a pod's start begins with a process that is there. Filled up a moment after
 * one was taken; a burst larger than the reserve starts the rest on the spot.
 */
export class ShimReserve {
  readonly #spawn: () => WaitingShim;
  readonly #size: number;
  readonly #waiting: WaitingShim[] = [];
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(spawn: () => WaitingShim, size: number) {
    this.#spawn = spawn;
    this.#size = size;
    this.#refillSoon(firstDelayMs);
  }

  take(): WaitingShim {
    this.#refillSoon();
    return this.#waiting.pop() ?? this.#spawn();
  }

  /** Ends the ones that wait; the next pod brings new ones. */
  drain(): void {
    clearTimeout(this.#timer);
    for (const shim of this.#waiting.splice(0)) shim.discard();
  }

  close(): void {
    this.#closed = true;
    this.drain();
  }

  #refillSoon(delayMs = refillDelayMs): void {
    if (this.#closed || this.#size === 0) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      // One at a time, so that a refill never holds the agent up for long. What fails now fails again with a pod.
      try {
        this.#waiting.push(this.#spawn());
      } catch {
        return;
      }
      if (this.#waiting.length < this.#size) this.#refillSoon();
    }, delayMs);
    this.#timer.unref();
  }
}
