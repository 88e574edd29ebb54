import type { Observer } from './observer.js';
import { messageOf } from './errors.js';

type UndoAction = () => Promise<void> | void;

/** An undo that failed: what could not be cleaned, and why. Recorded as residue by the caller. */
export interface UndoFailure {
  readonly step: string;
  readonly error: unknown;
}

/**
 * The undo stack of one request. Each step registers how to take itself back; when the request fails, everything is
 * taken back newest first, each action with a deadline of its own (the request's is often the one that expired), and
 * all of them even when one fails.
 *
 * ```ts
 * const undo = new Undo(call.observer);
 * try {
 *   const ns = await undo.step('create network namespace', make, (made) => made.remove());
 *   undo.before('attach network', () => network.detach(ns));   // ADD leaves things behind even when it fails
 *   await undo.step('attach network', () => network.attach(ns));
 *   undo.commit();
 * } catch (error) {
 *   residue.record(await undo.run());
 *   throw error;
 * }
 * ```
 */
export class Undo {
  readonly #actions: { step: string; action: UndoAction }[] = [];
  readonly #observer: Observer;
  readonly #deadlineMs: number;

  /** `deadlineMs` bounds each undo action, in milliseconds. */
  constructor(observer: Observer, deadlineMs = 30_000) {
    this.#observer = observer;
    this.#deadlineMs = deadlineMs;
  }

  /** Runs a step; once it has succeeded, `action` takes it back. */
  async step<T>(name: string, work: () => Promise<T> | T, action?: (made: T) => Promise<void> | void): Promise<T> {
    return await this.#observer.step(name, async () => {
      const made = await work();
      // At once: whatever happens after the work, it is there to be taken back.
      if (action !== undefined) this.#actions.push({ step: name, action: () => action(made) });
      return made;
    });
  }

  /** Registers an undo before its step runs, for steps that can half-happen. */
  before(name: string, action: UndoAction): void {
    this.#actions.push({ step: name, action });
  }

  /** The request has succeeded: nothing is taken back any more. */
  commit(): void {
    this.#actions.length = 0;
  }

  /** Takes everything back, newest first. Never throws; returns what could not be taken back. */
  async run(): Promise<readonly UndoFailure[]> {
    const failures: UndoFailure[] = [];
    for (let entry = this.#actions.pop(); entry !== undefined; entry = this.#actions.pop()) {
      try {
        await within(this.#deadlineMs, entry.action);
      } catch (error) {
        this.#observer.note('warn', `undo of "${entry.step}" failed: ${messageOf(error)}`);
        failures.push({ step: entry.step, error });
      }
    }
    return failures;
  }
}

async function within(ms: number, action: UndoAction): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  try {
    await Promise.race([action(), expired]);
  } finally {
    clearTimeout(timer);
  }
}
