/**
 * The one error type of the domain, and its closed list of kinds.
 *
 * A kind says what the caller should do next, not what went wrong inside; the table that turns kinds into gRPC
 * status codes lives in `src/cri/status.ts`. Errors never carry a numeric `code` property: grpc-js would take any
 * integer found there for a status.
 */
export const errorKinds = [
  /** A field of the request is wrong; the message starts with its path. Never worth a retry. */
  'invalid-argument',
  /** The named object does not exist. */
  'not-found',
  /** The name is taken by something that is not this request's first attempt. */
  'already-exists',
  /** The object exists but its state forbids the request. */
  'wrong-state',
  /** The same object is busy with another request. */
  'in-progress',
  /** A limit or a range is used up. */
  'exhausted',
  /** Policy or the kernel refuses. */
  'denied',
  /** A registry wants other credentials. */
  'unauthenticated',
  /** Something outside (registry, network plugin, shim) did not answer; a retry may help. */
  'unavailable',
  /** The request's own time ran out. */
  'deadline',
  /** The caller went away. */
  'cancelled',
  /** Not offered by this release. */
  'unimplemented',
  /** Stored data does not hold what it promised: a digest, a record, an archive. */
  'corrupt',
  /** Everything else; a fault of Berth or of the host. */
  'internal',
] as const;

export type ErrorKind = (typeof errorKinds)[number];

/** Small, printable facts about an error, for logs and spans. Never secrets. */
export type ErrorFacts = Readonly<Record<string, string | number | boolean | undefined>>;

export class RuntimeError extends Error {
  readonly kind: ErrorKind;
  readonly facts: ErrorFacts;

  constructor(kind: ErrorKind, message: string, options: { facts?: ErrorFacts; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'RuntimeError';
    this.kind = kind;
    this.facts = options.facts ?? {};
  }
}

/**
 * A failed kernel call. `errno` is the positive number, `errnoName` its symbol; native code throws nothing else for a
 * call that failed, and whoever knows what the failure means wraps it into a RuntimeError.
 */
export class SyscallError extends Error {
  readonly syscall: string;
  readonly errno: number;
  readonly errnoName: string;
  readonly object: string | undefined;

  constructor(syscall: string, errno: number, errnoName: string, object?: string) {
    super(object === undefined ? `${syscall}: ${errnoName}` : `${syscall} ${object}: ${errnoName}`);
    this.name = 'SyscallError';
    this.syscall = syscall;
    this.errno = errno;
    this.errnoName = errnoName;
    this.object = object;
  }
}

export const invalid = (path: string, message: string): RuntimeError =>
  new RuntimeError('invalid-argument', `${path}: ${message}`, { facts: { field: path } });

export const notFound = (what: string, id: string): RuntimeError =>
  new RuntimeError('not-found', `${what} "${id}" not found`, { facts: { what, id } });

export const isKind = (error: unknown, kind: ErrorKind): error is RuntimeError =>
  error instanceof RuntimeError && error.kind === kind;

/** True for a Node or kernel error with this errno name (`ENOENT`). */
export const isErrno = (error: unknown, name: string): boolean =>
  (error instanceof SyscallError && error.errnoName === name) ||
  (error instanceof Error && (error as NodeJS.ErrnoException).code === name);

/** The error itself when it already speaks the domain's language, else an `internal` error that wraps it. */
export function asRuntimeError(error: unknown, doing: string): RuntimeError {
  if (error instanceof RuntimeError) return error;
  return new RuntimeError('internal', `${doing}: ${messageOf(error)}`, { cause: error });
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
