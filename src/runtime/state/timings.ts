import type { Observer } from '../../kit/observer.js';
import type { StepTiming } from './records.js';

/**
 * An observer that also writes down when each step began and how long it took, for the waterfall of a pod's start that
 * is kept with the pod. Times are microseconds since `begin`.
 */
export interface TimedObserver {
  readonly observer: Observer;
  readonly timings: () => readonly StepTiming[];
}

export function recordTimings(inner: Observer, clock: () => number): TimedObserver {
  const begin = clock();
  const timings: StepTiming[] = [];
  return {
    observer: {
      async step(name, work) {
        const start = clock();
        try {
          return await inner.step(name, work);
        } finally {
          timings.push({
            name,
            startUs: Math.round((start - begin) * 1000),
            durationUs: Math.round((clock() - start) * 1000),
          });
        }
      },
      note: (level, message, facts) => inner.note(level, message, facts),
    },
    timings: () => timings,
  };
}
