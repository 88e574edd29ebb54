import type { Socket } from 'node:net';
import { RuntimeError, messageOf } from '../../kit/errors.js';
import { FrameSplitter, PayloadReader, encodeFrame, errorKinds, frameTypes, type Frame } from './frames.js';
import { errnoSymbol } from './plan-failed.js';

/** A request the shim refused or could not do, as the wire says it. */
export interface ShimRefusal {
  readonly kind: number;
  readonly step: number;
  readonly errno: number;
  readonly detail: number;
  readonly what: string;
}

interface Pending {
  readonly resolve: (payload: PayloadReader) => void;
  readonly reject: (error: Error) => void;
  readonly onRefusal: ((refusal: ShimRefusal) => Error) | undefined;
  readonly onOutput: ((stream: number, data: Buffer) => void) | undefined;
}

export interface ConnectionListener {
  /** Frames that are nobody's answer. */
  onEvent(frame: Frame): void;
  /** Once, with the reason. */
  onEnd(reason: string): void;
}

export interface RequestOptions {
  /** On abort the promise rejects; the shim's late answer is dropped. */
  readonly signal?: AbortSignal;
  /** Called with the request's number when the signal aborts. */
  readonly onAbort?: (id: number) => void;
  /** Turns a refusal into the error to throw. */
  readonly onRefusal?: (refusal: ShimRefusal) => Error;
  /** Output frames that belong to this request. */
  readonly onOutput?: (stream: number, data: Buffer) => void;
}

/**
 * One connection to a shim: numbered requests, answers in any order, events. When the socket ends, everything that
 * waits is rejected with `unavailable`.
 */
export class ShimConnection {
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #splitter = new FrameSplitter();
  #lastId = 0;
  #ended: string | undefined;
  #listener: ConnectionListener | undefined;
  /** What came before somebody listened: a shim tells earlier exits right after its greeting. */
  readonly #early: Frame[] = [];

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => this.#end(messageOf(error)));
    socket.on('close', () => this.#end('the shim closed the connection'));
  }

  /** One listener for the connection's life; it hears what came earlier too. */
  listen(listener: ConnectionListener): void {
    this.#listener = listener;
    for (const frame of this.#early.splice(0)) listener.onEvent(frame);
    if (this.#ended !== undefined) listener.onEnd(this.#ended);
  }

  get open(): boolean {
    return this.#ended === undefined;
  }

  request(type: number, payload: readonly Uint8Array[], options: RequestOptions = {}): Promise<PayloadReader> {
    const { signal } = options;
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) return reject(new RuntimeError('unavailable', `shim: ${this.#ended}`));
      if (signal?.aborted === true) return reject(cancelled(signal));
      const id = this.#nextId();
      const onAbort = (): void => {
        this.#pending.delete(id);
        options.onAbort?.(id);
        reject(cancelled(signal));
      };
      const settle =
        <T>(then: (value: T) => void) =>
        (value: T): void => {
          signal?.removeEventListener('abort', onAbort);
          then(value);
        };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#pending.set(id, {
        resolve: settle(resolve),
        reject: settle(reject),
        onRefusal: options.onRefusal,
        onOutput: options.onOutput,
      });
      this.#socket.write(encodeFrame(type, id, payload));
    });
  }

  /** Sends a request whose answer nobody awaits. */
  tell(type: number, payload: readonly Uint8Array[]): void {
    if (this.#ended === undefined) this.#socket.write(encodeFrame(type, this.#nextId(), payload));
  }

  close(): void {
    this.#socket.destroy();
    this.#end('the connection was closed');
  }

  /** Takes in nothing more for now, answers included. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /**
   * Sends a last request; when it is granted the connection carries plain bytes, and the socket is the caller's. For
   * connections on which nothing else is under way.
   */
  handOver(type: number, payload: readonly Uint8Array[], options: RequestOptions): Promise<Socket> {
    const socket = this.#socket;
    const granted = this.request(type, payload, options);
    socket.removeAllListeners('data');
    const taken: Buffer[] = [];
    const take = (chunk: Buffer): void => {
      taken.push(chunk);
      const data = Buffer.concat(taken);
      const length = data.length < 4 ? Infinity : 4 + data.readUInt32LE(0);
      if (data.length < length) return;
      socket.off('data', take);
      socket.pause();
      if (data.length > length) socket.unshift(data.subarray(length));
      this.#receive(data.subarray(0, length));
    };
    socket.on('data', take);
    return granted.then(() => {
      socket.removeAllListeners('close').removeAllListeners('error');
      socket.allowHalfOpen = true;
      return socket;
    });
  }

  /** A connection keeps the process alive unless told otherwise. */
  unref(): void {
    this.#socket.unref();
  }

  #nextId(): number {
    do this.#lastId = (this.#lastId % 0x7fffffff) + 1;
    while (this.#pending.has(this.#lastId));
    return this.#lastId;
  }

  #receive(chunk: Buffer): void {
    try {
      for (const frame of this.#splitter.push(chunk)) this.#dispatch(frame);
    } catch (error) {
      this.#socket.destroy();
      this.#end(messageOf(error));
    }
  }

  #dispatch(frame: Frame): void {
    const pending = this.#pending.get(frame.id);
    if (frame.type === frameTypes.outputEvent && pending?.onOutput !== undefined) {
      const reader = new PayloadReader(frame.payload);
      return pending.onOutput(reader.u8(), reader.bytes());
    }
    if ((frame.type & 0x8000) === 0) {
      if (this.#listener === undefined) this.#early.push(frame);
      else this.#listener.onEvent(frame);
      return;
    }
    if (pending === undefined) return;
    this.#pending.delete(frame.id);
    const reader = new PayloadReader(frame.payload);
    if (frame.type === frameTypes.error) pending.reject(refusalError(reader, pending.onRefusal));
    else pending.resolve(reader);
  }

  #end(reason: string): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    for (const { reject } of this.#pending.values()) reject(new RuntimeError('unavailable', `shim: ${reason}`));
    this.#pending.clear();
    this.#listener?.onEnd(reason);
  }
}

function cancelled(signal: AbortSignal | undefined): Error {
  if (signal?.reason instanceof RuntimeError) return signal.reason;
  return new RuntimeError('cancelled', 'shim: the caller went away', { cause: signal?.reason });
}

function refusalError(reader: PayloadReader, onRefusal: Pending['onRefusal']): Error {
  const refusal = {
    kind: reader.u32(),
    step: reader.u32(),
    errno: reader.u32(),
    detail: reader.u32(),
    what: reader.string(),
  };
  return onRefusal?.(refusal) ?? defaultError(refusal);
}

function defaultError({ kind, errno, what }: ShimRefusal): Error {
  const message = `shim: ${what}: ${errnoSymbol(errno)}`;
  if (kind === errorKinds.notFound) return new RuntimeError('not-found', message);
  if (kind === errorKinds.exists) return new RuntimeError('already-exists', message);
  if (kind === errorKinds.wrongState) return new RuntimeError('wrong-state', message);
  return new RuntimeError('internal', message);
}
