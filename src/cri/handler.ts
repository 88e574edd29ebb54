/**
 * The one wrapper round every handler. It gives a request its signal (deadline, client gone, server stopping), its
 * observer, its place among the requests in flight, its log line, and turns whatever it throws into a status.
 */
import { setMaxListeners } from 'node:events';
import { status as grpc } from '@grpc/grpc-js';
import type { handleServerStreamingCall, handleUnaryCall, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import type { Call } from '../kit/call.js';
import { RuntimeError } from '../kit/errors.js';
import type { Observer } from '../kit/observer.js';
import type { Inflight } from './inflight.js';
import type { RequestSubject } from './inflight.js';
import { codeName, safeMessage, statusOf } from './status.js';
import type { CriStatus } from './status.js';

/** How a request ended, for spans, histograms and logs. */
export interface RequestOutcome {
  readonly code: grpc;
  /** gRPC's name of the code: OK, NOT_FOUND. */
  readonly codeName: string;
  readonly milliseconds: number;
  /** What was thrown, untranslated; absent when the request succeeded. */
  readonly error?: unknown;
}

export interface RequestWatch {
  /** Receives the steps and notes of this one request. */
  readonly observer: Observer;
  end(outcome: RequestOutcome): void;
}

/** Called once per request; makes its span. */
export type WatchRequest = (method: string, subject: RequestSubject) => RequestWatch;

export interface HandlerDeps {
  readonly watch: WatchRequest;
  readonly inflight: Inflight;
  /** Aborts when the server is forced to stop. */
  readonly stopping: AbortSignal;
  /** Aborts when the server takes no more requests: streams that would never end by themselves do so now. */
  readonly closing: AbortSignal;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
}

export interface HandlerOptions<Request> {
  readonly method: string;
  /** Requests that change something get a log line each; reads only when they fail. */
  readonly mutates: boolean;
  /** What the request is about, for people. Must not hold secrets. */
  readonly subject: (request: Request) => RequestSubject;
}

export type Handler<Request, Response> = (request: Request, call: Call) => Promise<Response> | Response;

/** Yields the messages of a stream; each is sent when the client has room for it. */
export type StreamHandler<Request, Response> = (
  request: Request,
  call: Call,
) => AsyncIterable<Response> | Promise<Iterable<Response>> | Iterable<Response>;

export type MakeStreamHandler = <Request, Response>(
  options: HandlerOptions<Request>,
  handler: StreamHandler<Request, Response>,
) => handleServerStreamingCall<Request, Response>;

export type MakeHandler = <Request, Response>(
  options: HandlerOptions<Request>,
  handler: Handler<Request, Response>,
) => handleUnaryCall<Request, Response>;

const nothing = (): RequestSubject => ({});

export const reads = <R>(method: string, subject: (request: R) => RequestSubject = nothing): HandlerOptions<R> => ({
  method,
  mutates: false,
  subject,
});

export const changes = <R>(method: string, subject: (request: R) => RequestSubject): HandlerOptions<R> => ({
  method,
  mutates: true,
  subject,
});

type Incoming<Request, Response> = ServerUnaryCall<Request, Response> | ServerWritableStream<Request, Response>;

export function handlerMaker(deps: HandlerDeps): MakeHandler {
  return (options, handler) => (wireCall, respond) => {
    void answer(deps, options, handler, wireCall).then(
      (response) => respond(null, response),
      (status: CriStatus) => respond(status),
    );
  };
}

export function streamHandlerMaker(deps: HandlerDeps): MakeStreamHandler {
  const stopping = AbortSignal.any([deps.stopping, deps.closing]);
  setMaxListeners(0, stopping); // one for each stream under way
  return <Request, Response>(options: HandlerOptions<Request>, handler: StreamHandler<Request, Response>) =>
    (wireCall: ServerWritableStream<Request, Response>) => {
      const send: Handler<Request, void> = async (request, call) => {
        for await (const message of await handler(request, call)) {
          if (call.signal.aborted) break;
          if (!wireCall.write(message)) await room(wireCall, call.signal);
        }
        if (stopping.aborted) call.signal.throwIfAborted();
      };
      void answer<Request, void>(
        { ...deps, stopping },
        options,
        send,
        wireCall as ServerWritableStream<Request, void>,
      ).then(
        () => wireCall.end(),
        (status: CriStatus) => wireCall.emit('error', status),
      );
    };
}

function room(stream: NodeJS.EventEmitter, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      stream.removeListener('drain', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    stream.once('drain', done);
    signal.addEventListener('abort', done, { once: true });
  });
}

/** Rejects with a CriStatus, never with anything else. */
async function answer<Request, Response>(
  deps: HandlerDeps,
  options: HandlerOptions<Request>,
  handler: Handler<Request, Response>,
  wireCall: Incoming<Request, Response>,
): Promise<Response> {
  const startedAt = deps.now();
  const subject = options.subject(wireCall.request);
  const watch = deps.watch(options.method, subject);
  const abort = abortOf(options.method, wireCall, deps.stopping);
  const done = deps.inflight.add(inflightEntry(options.method, subject, startedAt, abort.signal));
  const end = (status: CriStatus, error?: unknown): void => {
    abort.dispose();
    done();
    const milliseconds = deps.now() - startedAt;
    logLine(watch.observer, options, { status, subject, milliseconds });
    watch.end({
      code: status.code,
      codeName: codeName(status.code),
      milliseconds,
      ...(error === undefined ? {} : { error }),
    });
  };
  try {
    const response = await handler(wireCall.request, { signal: abort.signal, observer: watch.observer });
    end({ code: grpc.OK, details: '' });
    return response;
  } catch (error) {
    const status = statusOf(error);
    end(status, error);
    throw status;
  }
}

function inflightEntry(method: string, subject: RequestSubject, startedAt: number, signal: AbortSignal) {
  return {
    method,
    subject,
    startedAt,
    get abandoned(): string | undefined {
      return signal.aborted ? safeMessage(String(signal.reason)) : undefined;
    },
  };
}

interface Abort {
  readonly signal: AbortSignal;
  dispose(): void;
}

/** setTimeout fires at once for longer times than this, in milliseconds; nobody waits 24 days. */
const longestTimer = 2 ** 31 - 1;

function abortOf<Request, Response>(
  method: string,
  wireCall: Incoming<Request, Response>,
  stopping: AbortSignal,
): Abort {
  const controller = new AbortController();
  const expired = (): void => controller.abort(new RuntimeError('deadline', `${method}: the request's time is up`));
  const gone = (): void => {
    if (timeLeft(wireCall) <= 0) expired();
    else controller.abort(new RuntimeError('cancelled', `${method}: the caller went away`));
  };
  const stop = (): void => controller.abort(new RuntimeError('unavailable', `${method}: the server is stopping`));
  const left = timeLeft(wireCall);
  const timer = left < longestTimer ? setTimeout(expired, Math.max(left, 0)) : undefined;
  wireCall.on('cancelled', gone);
  if (stopping.aborted) stop();
  else stopping.addEventListener('abort', stop, { once: true });
  return {
    signal: controller.signal,
    dispose() {
      clearTimeout(timer);
      wireCall.removeListener('cancelled', gone);
      stopping.removeEventListener('abort', stop);
    },
  };
}

/** Milliseconds until the caller's deadline; Infinity without one. */
function timeLeft(wireCall: { getDeadline(): Date | number }): number {
  return Number(wireCall.getDeadline()) - Date.now();
}

interface LogFacts {
  readonly status: CriStatus;
  readonly subject: RequestSubject;
  readonly milliseconds: number;
}

function logLine<Request>(observer: Observer, options: HandlerOptions<Request>, facts: LogFacts): void {
  const { status, subject, milliseconds } = facts;
  const failed = status.code !== grpc.OK;
  if (!options.mutates && !failed) return;
  const level = failed ? (options.mutates ? 'warn' : 'debug') : 'info';
  observer.note(level, failed ? `${options.method}: ${status.details}` : options.method, {
    ...subject,
    code: codeName(status.code),
    ms: Math.round(milliseconds * 1000) / 1000,
  });
}

const later = (method: string): CriStatus => ({
  code: grpc.UNIMPLEMENTED,
  details: `${method} is not offered by this release`,
});

/** For RPCs of the contract that this release does not offer. */
export const unimplemented =
  <Request, Response>(method: string): handleUnaryCall<Request, Response> =>
  (_call, respond) =>
    respond(later(method));
