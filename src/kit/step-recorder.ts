import type { Observer } from './observer.js';

/** One step of a request as it happened. Times are milliseconds, `start` counted from the request's begin. */
export interface RecordedStep {
  readonly name: string;
  readonly start: number;
  /** Absent while the step is under way. */
  readonly duration?: number;
  readonly failed: boolean;
}

/**
 * An observer that remembers the steps it sees, in the order they began, and passes everything on. The list is what
 * `berth inspect` and the demo draw as a waterfall.
 */
export class StepRecorder implements Observer {
  readonly #next: Observer;
  readonly #begin = performance.now();
  readonly #steps: { name: string; start: number; duration?: number; failed: boolean }[] = [];

  constructor(next: Observer) {
    this.#next = next;
  }

  async step<T>(name: string, work: () => Promise<T> | T): Promise<T> {
    const start = performance.now();
    const entry: { name: string; start: number; duration?: number; failed: boolean } = {
      name,
      start: start - this.#begin,
      failed: true,
    };
    this.#steps.push(entry);
    try {
      const result = await this.#next.step(name, work);
      entry.failed = false;
      return result;
    } finally {
      entry.duration = performance.now() - start;
    }
  }

  note(...args: Parameters<Observer['note']>): void {
    this.#next.note(...args);
  }

  /** A copy; steps still running have no duration. */
  get steps(): readonly RecordedStep[] {
    return this.#steps.map((step) => ({ ...step, failed: step.failed && step.duration !== undefined }));
  }

  /** Milliseconds since the recorder was made. */
  get elapsed(): number {
    return performance.now() - this.#begin;
  }
}
