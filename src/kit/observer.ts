/**
 * What the domain tells the outside about its progress. The domain names steps; whether they become log lines,
 * histograms or spans is decided in `src/observe/`.
 */
export interface Observer {
  /** Runs `work` as a named, timed step. The name reads as a sentence in present tense: "create pod cgroup". */
  step<T>(name: string, work: () => Promise<T> | T): Promise<T>;
  /** How far the step under way has come, in numbers with names; the newest report stands for all. */
  progress?(done: StepProgress): void;
  /** Something that happened, to be counted, and timed where `seconds` are given. */
  measure?(what: Measured, labels: Readonly<Record<string, string>>, seconds?: number): void;
  /** A fact worth a log line that is no error of the request. */
  note(level: 'debug' | 'info' | 'warn' | 'error', message: string, facts?: Readonly<Record<string, unknown>>): void;
}

/** `{ entries: 12000, bytes: 3145728 }` */
export type StepProgress = Readonly<Record<string, number>>;

/** What `src/observe/metrics.ts` has a counter or a histogram for. */
export type Measured = 'snapshot' | 'remap';

export const silentObserver: Observer = {
  async step(_name, work) {
    return await work();
  },
  note() {},
};
