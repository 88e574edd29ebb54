import type { Observer, StepProgress } from './observer.js';

/** One step of a request as it happened. Times are milliseconds, `start` counted from the request's begin. */
export interface RecordedStep {
  readonly name: string;
  readonly start: number;
  /** Absent while the step is under way. */
  readonly duration?: number;
  readonly failed: boolean;
  /** The newest report of a step that tells how far it has come. */
  readonly progress?: StepProgress;
}

type OwnStep = { -readonly [K in keyof RecordedStep]: RecordedStep[K] };

/**
 * An observer that remembers the steps it sees, in the order they began, and passes everything on. The list is what
 * `berth inspect` and the demo draw as a waterfall.
 */
export class StepRecorder implements Observer {
  readonly #next: Observer;
  readonly #begin = performance.now();
  readonly #steps: OwnStep[] = [];

  constructor(next: Observer) {
    this.#next = next;
  }

  async step<T>(name: string, work: () => Promise<T> | T): Promise<T> {
    const start = performance.now();
    const entry: OwnStep = { name, start: start - this.#begin, failed: true };
    this.#steps.push(entry);
    try {
      const result = await this.#next.step(name, work);
      entry.failed = false;
      return result;
    } finally {
      entry.duration = performance.now() - start;
    }
  }

  /** Belongs to the step that began last of those under way: steps that report have none within them. */
  progress(done: StepProgress): void {
    const step = this.#steps.findLast(({ duration }) => duration === undefined);
    if (step !== undefined) step.progress = done;
    this.#next.progress?.(done);
  }

  measure(...args: Parameters<NonNullable<Observer['measure']>>): void {
    this.#next.measure?.(...args);
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
