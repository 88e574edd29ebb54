import { messageOf } from '../kit/errors.js';
import type { Observer } from '../kit/observer.js';
import { StepRecorder, type RecordedStep } from '../kit/step-recorder.js';
import type { Logger } from './logger.js';
import { stepLabel, type Metrics } from './metrics.js';
import type { Tracing, TraceSpan } from './tracing.js';

/** One request being watched. */
export interface WatchedRequest {
  readonly observer: Observer;
  readonly steps: readonly RecordedStep[];
  /**
   * Call once, when the answer is known. `status` is a short word such as OK or NOT_FOUND. `logged`: whoever served the
   * request has written its line; only the stack of a fault of ours is still worth one.
   */
  end(status: string, error?: unknown, logged?: boolean): void;
}

/** A request that has not been answered yet, for /debug/inflight. */
export interface InFlight {
  readonly id: number;
  readonly method: string;
  readonly facts: Readonly<Record<string, unknown>>;
  /** Milliseconds since it arrived. */
  readonly age: number;
  readonly steps: readonly RecordedStep[];
}

export interface Observability {
  readonly logger: Logger;
  readonly metrics: Metrics | undefined;
  /** `facts` name the objects of the request for log lines; `traceparent` is the caller's W3C header. */
  begin(method: string, facts?: Readonly<Record<string, unknown>>, traceparent?: string): WatchedRequest;
  inFlight(): readonly InFlight[];
}

export interface ObservabilityParts {
  readonly logger: Logger;
  readonly metrics: Metrics | undefined;
  readonly tracing: Tracing;
}

/** Statuses that say the request or the node is at fault in a way somebody should look at. */
const loud = new Set(['INTERNAL', 'DATA_LOSS', 'UNKNOWN', 'UNAVAILABLE', 'DEADLINE_EXCEEDED']);
/** Asked every second by the kubelet: not worth a line, even for debugging. */
const quiet = /^(List|Version$|Status$|ImageFsInfo$|PodSandboxStatus$|ContainerStatus$|ImageStatus$|.*Stats$)/;

export function createObservability({ logger, metrics, tracing }: ObservabilityParts): Observability {
  const open = new Map<number, { method: string; facts: Readonly<Record<string, unknown>>; recorder: StepRecorder }>();
  let last = 0;
  return {
    logger,
    metrics,
    begin(method, facts = {}, traceparent) {
      const id = ++last;
      const span = tracing.start(method, traceparent);
      const recorder = new StepRecorder(stepObserver(method, facts, { logger, metrics, span }));
      open.set(id, { method, facts, recorder });
      metrics?.requestsInFlight.inc({ method });
      const end = (status: string, error?: unknown, logged = false): void => {
        if (!open.delete(id)) return;
        metrics?.requestsInFlight.dec({ method });
        metrics?.requestSeconds.observe({ method, status }, recorder.elapsed / 1000);
        span.end(error === undefined ? undefined : messageOf(error));
        if (!logged || loud.has(status)) logEnd(logger, { method, facts, status, error, ms: recorder.elapsed });
      };
      return {
        observer: recorder,
        end,
        get steps() {
          return recorder.steps;
        },
      };
    },
    inFlight: () =>
      [...open].map(([id, { method, facts, recorder }]) => ({
        id,
        method,
        facts,
        age: recorder.elapsed,
        steps: recorder.steps,
      })),
  };
}

interface Watchers {
  readonly logger: Logger;
  readonly metrics: Metrics | undefined;
  readonly span: TraceSpan;
}

function stepObserver(method: string, facts: Readonly<Record<string, unknown>>, watchers: Watchers): Observer {
  const { logger, metrics, span } = watchers;
  return {
    async step(name, work) {
      const child = span.child(name);
      const labels = { method, step: stepLabel(name) };
      const stop = metrics?.stepSeconds.startTimer(labels);
      try {
        const result = await work();
        child.end();
        return result;
      } catch (error) {
        metrics?.stepFailures.inc(labels);
        child.end(messageOf(error));
        throw error;
      } finally {
        stop?.();
      }
    },
    measure: (what, labels, seconds) => metrics?.measure(what, labels, seconds),
    note: (level, message, more) => logger[level]({ method, ...facts, ...more }, message),
  };
}

interface Ended {
  readonly method: string;
  readonly facts: Readonly<Record<string, unknown>>;
  readonly status: string;
  readonly error: unknown;
  readonly ms: number;
}

function logEnd(logger: Logger, { method, facts, status, error, ms }: Ended): void {
  const line = { method, ...facts, status, ms: Math.round(ms * 100) / 100 };
  if (error === undefined) {
    if (!quiet.test(method)) logger.debug(line, method);
    return;
  }
  const stack = loud.has(status) && error instanceof Error ? { stack: error.stack } : {};
  logger[loud.has(status) ? 'error' : 'info']({ ...line, ...stack }, `${method}: ${messageOf(error)}`);
}
