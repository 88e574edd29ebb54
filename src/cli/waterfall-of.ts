import type { RecordedStep } from '../kit/step-recorder.js';

interface StepTiming {
  readonly name: string;
  readonly startUs: number;
  readonly durationUs: number;
}

/** The recorded steps in what `inspect` answers: its `waterfall`, whose times are microseconds since the request. */
export function waterfallOf(facts: Readonly<Record<string, unknown>>): readonly RecordedStep[] {
  const timings = Array.isArray(facts['waterfall']) ? (facts['waterfall'] as readonly StepTiming[]) : [];
  return timings
    .map(({ name, startUs, durationUs }) => ({
      name,
      start: startUs / 1000,
      duration: durationUs / 1000,
      failed: false,
    }))
    .sort((a, b) => a.start - b.start || b.duration - a.duration);
}
