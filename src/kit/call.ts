import type { Observer } from './observer.js';

/**
 * What accompanies one request through the runtime: who may stop it and who watches it. Passed as the last argument
 * of every story and every slow part.
 */
export interface Call {
  /** Aborts when the caller gives up. Undo never runs under this signal. */
  readonly signal: AbortSignal;
  /** Receives step timings and log lines. */
  readonly observer: Observer;
}
