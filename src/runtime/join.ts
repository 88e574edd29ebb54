import { RuntimeError } from '../kit/errors.js';
import type { Call } from '../kit/call.js';
import { throwIfCancelled } from '../kit/deadline.js';
import { SingleFlight } from '../kit/single-flight.js';

/** A request under way: what it makes, and since when. Shown in verbose status, for "where does it hang". */
export interface Underway {
  readonly name: string;
  readonly since: number;
}

/**
 * Requests that make something, joined by name: the kubelet repeats RunPodSandbox and CreateContainer when its own
 * time is up, and the repetition must find the first attempt, not fight it. The work does not stop when its first
 * caller goes away; every caller waits for the one outcome, or leaves when its own signal fires.
 */
export class JoinedRequests {
  readonly #flights = new SingleFlight<string>();
  readonly #since = new Map<string, number>();

  async run(name: string, call: Call, work: (call: Call) => Promise<string>): Promise<string> {
    throwIfCancelled(call.signal, name);
    const flight = this.#flights.run(name, async () => {
      this.#since.set(name, performance.now());
      try {
        return await work({ ...call, signal: new AbortController().signal });
      } finally {
        this.#since.delete(name);
      }
    });
    return await orAborted(flight, call.signal, name);
  }

  underway(): Underway[] {
    return [...this.#since].map(([name, since]) => ({ name, since }));
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
