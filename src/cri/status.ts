import { status as grpc } from '@grpc/grpc-js';
import { RuntimeError, messageOf } from '../kit/errors.js';
import type { ErrorKind } from '../kit/errors.js';
import { redactUrls } from './redact.js';

/**
 * The one place where an error becomes a gRPC status. What the kubelet does with a code decides the column on the
 * right: NOT_FOUND means "already gone", UNAVAILABLE and DEADLINE_EXCEEDED are worth a retry, INVALID_ARGUMENT never.
 */
export const grpcCodes: Readonly<Record<ErrorKind, grpc>> = {
  'invalid-argument': grpc.INVALID_ARGUMENT,
  'not-found': grpc.NOT_FOUND,
  'already-exists': grpc.ALREADY_EXISTS,
  'wrong-state': grpc.FAILED_PRECONDITION,
  'in-progress': grpc.ABORTED,
  exhausted: grpc.RESOURCE_EXHAUSTED,
  denied: grpc.PERMISSION_DENIED,
  unauthenticated: grpc.UNAUTHENTICATED,
  unavailable: grpc.UNAVAILABLE,
  deadline: grpc.DEADLINE_EXCEEDED,
  cancelled: grpc.CANCELLED,
  unimplemented: grpc.UNIMPLEMENTED,
  corrupt: grpc.DATA_LOSS,
  internal: grpc.INTERNAL,
};

/** What grpc-js is given, and nothing else: it would read a status out of any integer `code` on a foreign error. */
export interface CriStatus {
  readonly code: grpc;
  readonly details: string;
}

/** The message travels in a header: long ones are cut, in characters. */
const longestMessage = 8192;

export function statusOf(error: unknown): CriStatus {
  const kind = error instanceof RuntimeError ? error.kind : 'internal';
  return { code: grpcCodes[kind], details: safeMessage(messageOf(error)) };
}

/** grpc-js passes the text through encodeURI, which throws on half of a surrogate pair: those are replaced. */
export function safeMessage(message: string): string {
  const text = redactUrls(message);
  const short = text.length > longestMessage ? `${text.slice(0, longestMessage)}…` : text;
  return Buffer.from(short, 'utf8').toString('utf8');
}

export const codeName = (code: grpc): string => grpc[code];
