/**
 * What the domain tells the outside about its progress. The domain names steps; whether they become log lines,
 * histograms or spans is decided in `src/observe/`.
 */
export interface Observer {
  /** Runs `work` as a named, timed step. The name reads as a sentence in present tense: "create pod cgroup". */
  step<T>(name: string, work: () => Promise<T> | T): Promise<T>;
  /** A fact worth a log line that is no error of the request. */
  note(level: 'debug' | 'info' | 'warn' | 'error', message: string, facts?: Readonly<Record<string, unknown>>): void;
}

export const silentObserver: Observer = {
  async step(_name, work) {
    return await work();
  },
  note() {},
};
