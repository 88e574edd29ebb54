import { RuntimeError } from '../kit/errors.js';
import type { Call } from '../kit/call.js';
import { throwIfCancelled, withDeadline } from '../kit/deadline.js';
import { StepRecorder, type RecordedStep } from '../kit/step-recorder.js';

/** Milliseconds a request gets to take itself back before nobody waits for it any more. */
const patienceMs = 10_000;

/** A request under way: what it makes, since when, and what it is at. Shown in verbose status, for "where does it hang". */
export interface Underway {
  readonly name: string;
  readonly since: number;
  /** Those that have not ended, outermost first. */
  readonly steps: readonly RecordedStep[];
}

interface Flight {
  readonly since: number;
  readonly owner: string;
  readonly controller: AbortController;
  readonly recorder: StepRecorder;
  readonly outcome: Promise<string>;
}

/**
 * Requests that make something, joined by name: the kubelet repeats RunPodSandbox and CreateContainer when its own
 * time is up, and the repetition must find the first attempt, not fight it. The work does not stop when its first
 * caller goes away; every caller waits for the one outcome, or leaves when its own signal fires. Only `abort` ends it
 * early: what it is for is about to go.
 */
export class JoinedRequests {
  readonly #flights = new Map<string, Flight>();

  /** `owner` is what the work ends with, for `abort`. */
  async run(name: string, call: Call, work: (call: Call) => Promise<string>, owner = ''): Promise<string> {
    throwIfCancelled(call.signal, name);
    const flight = this.#flights.get(name) ?? this.#launch(name, call, work, owner);
    return await orAborted(flight.outcome, call.signal, name);
  }

  #launch(name: string, call: Call, work: (call: Call) => Promise<string>, owner: string): Flight {
    const controller = new AbortController();
    const recorder = new StepRecorder(call.observer);
    const outcome = Promise.resolve()
      .then(() => work({ ...call, signal: controller.signal, observer: recorder }))
      .finally(() => this.#flights.delete(name));
    const flight: Flight = { since: performance.now(), owner, controller, recorder, outcome };
    this.#flights.set(name, flight);
    return flight;
  }

  /**
   * Tells the requests of an owner to give up, or all of them. Resolves when they have taken themselves back, or are
   * past waiting for: one may hang in the kernel.
   */
  async abort(reason: RuntimeError, owner?: string): Promise<void> {
    const found = [...this.#flights.values()].filter((flight) => owner === undefined || flight.owner === owner);
    for (const { controller } of found) controller.abort(reason);
    const ended = Promise.allSettled(found.map(({ outcome }) => outcome));
    await withDeadline('end requests', patienceMs, () => ended).catch(() => undefined);
  }

  underway(): Underway[] {
    return [...this.#flights].map(([name, { since, recorder }]) => ({
      name,
      since,
      steps: recorder.steps.filter(({ duration }) => duration === undefined),
    }));
  }
}

async function orAborted<T>(flight: Promise<T>, signal: AbortSignal, name: string): Promise<T> {
  let onAbort = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(new RuntimeError('cancelled', `${name}: the caller went away; the work goes on`));
    signal.addEventListener('abort', onAbort, { once: true });
  });
  flight.catch(() => undefined);
  try {
    return await Promise.race([flight, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
