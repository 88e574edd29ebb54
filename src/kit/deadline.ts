import { RuntimeError } from './errors.js';

/**
 * Awaits `work`, but no longer than `ms` milliseconds. The work itself is told through the signal and is expected to
 * stop; whether it does or not, the caller gets a `deadline` error that names what was awaited.
 */
export async function withDeadline<T>(
  what: string,
  ms: number,
  work: (signal: AbortSignal) => Promise<T>,
  parent?: AbortSignal,
): Promise<T> {
  const controller = new AbortController();
  const onParent = (): void => controller.abort(parent?.reason);
  if (parent?.aborted) onParent();
  else parent?.addEventListener('abort', onParent, { once: true });
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const error = new RuntimeError('deadline', `${what}: no answer within ${ms} ms`);
      reject(error);
      controller.abort(error);
    }, ms);
  });
  try {
    return await Promise.race([work(controller.signal), expired]);
  } finally {
    clearTimeout(timer);
    parent?.removeEventListener('abort', onParent);
  }
}

/** Throws a `cancelled` error when the caller has gone away. */
export function throwIfCancelled(signal: AbortSignal, doing: string): void {
  if (!signal.aborted) return;
  if (signal.reason instanceof RuntimeError) throw signal.reason;
  throw new RuntimeError('cancelled', `${doing}: the caller went away`, { cause: signal.reason });
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
