import { messageOf } from '../../kit/errors.js';

/** How a remote command ended. */
export type Outcome =
  | { readonly kind: 'success' }
  | { readonly kind: 'exit'; readonly code: number }
  | { readonly kind: 'error'; readonly message: string };

export const success: Outcome = { kind: 'success' };

export const exitOutcome = (code: number): Outcome => (code === 0 ? success : { kind: 'exit', code });

export const errorOutcome = (what: string, error: unknown): Outcome => ({
  kind: 'error',
  message: `${what}: ${messageOf(error)}`,
});

const words = (outcome: Outcome): string =>
  outcome.kind === 'exit'
    ? `command terminated with non-zero exit code: exit status ${outcome.code}`
    : outcome.kind === 'error'
      ? outcome.message
      : '';

/** The v1.Status object that remote command protocols of version 4 and later end with. */
export function statusObject(outcome: Outcome): Readonly<Record<string, unknown>> {
  if (outcome.kind === 'success') return { metadata: {}, status: 'Success' };
  const message = words(outcome);
  if (outcome.kind === 'exit') {
    const causes = [{ reason: 'ExitCode', message: String(outcome.code) }];
    return { metadata: {}, status: 'Failure', message, reason: 'NonZeroExitCode', details: { causes } };
  }
  const causes = [{ message }];
  return {
    metadata: {},
    status: 'Failure',
    message: `Internal error occurred: ${message}`,
    reason: 'InternalError',
    details: { causes },
    code: 500,
  };
}

/** What goes over the error stream: the status object, or before version 4 the message of a failure. */
export const lastWords = (outcome: Outcome, withStatus: boolean): string =>
  withStatus ? JSON.stringify(statusObject(outcome)) : words(outcome);
