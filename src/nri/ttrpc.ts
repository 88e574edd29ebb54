import { Request, Response } from '../../api/nri/v1alpha1/generated/ttrpc.js';
import { RuntimeError, messageOf, type ErrorKind } from '../kit/errors.js';
import { cutter, type MuxChannel } from './mux.js';

/**
 * Unary calls of ttrpc, version 1: frames of length, stream id (both 32 bits, big-endian), type and flags, whose data is
 * a protobuf Request or Response. Streams that the calling side opens have odd numbers. Streaming calls are not spoken:
 * NRI has none.
 */
export interface TtrpcFrame {
  readonly stream: number;
  readonly type: number;
  readonly flags: number;
  readonly data: Uint8Array;
}

/** A method of a service as the generated definitions describe it, to whom calls it. */
export interface TtrpcMethod<Q, A> {
  readonly name: string;
  readonly requestType: Encoder<Q>;
  readonly responseType: Decoder<A>;
}

/** The same to whom serves it. */
interface ServedMethod<Q, A> {
  readonly name: string;
  readonly requestType: Decoder<Q>;
  readonly responseType: Encoder<A>;
}

interface Encoder<T> {
  encode(message: T): { finish(): Uint8Array };
}

interface Decoder<T> {
  decode(bytes: Uint8Array): T;
}

const headerBytes = 10;
export const maxMessageBytes = 4 * 2 ** 20;
const requestType = 1;
const responseType = 2;

export function encodeFrame({ stream, type, flags, data }: TtrpcFrame): Buffer {
  const frame = Buffer.allocUnsafe(headerBytes + data.length);
  frame.writeUInt32BE(data.length, 0);
  frame.writeUInt32BE(stream, 4);
  frame.writeUInt8(type, 8);
  frame.writeUInt8(flags, 9);
  frame.set(data, headerBytes);
  return frame;
}

/** Takes a stream in pieces and gives its frames. Throws for a message that is too long. */
export function ttrpcFrames(onFrame: (frame: TtrpcFrame) => void): (chunk: Buffer) => void {
  return cutter(
    headerBytes,
    (header) => {
      const length = header.readUInt32BE(0);
      if (length > maxMessageBytes)
        throw new Error(`a message of ${length} bytes; at most ${maxMessageBytes} are allowed`);
      return length;
    },
    (header, data) =>
      onFrame({ stream: header.readUInt32BE(4), type: header.readUInt8(8), flags: header.readUInt8(9), data }),
  );
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

// ------------------------------------------------------------------------------------------------------------- calls

export interface TtrpcClient {
  /**
   * Throws a RuntimeError: the kind of the status the other side gave, `deadline` without an answer in time,
   * `exhausted` for a message too long to send, `unavailable` when the connection ended.
   */
  call<Q, A>(service: string, method: TtrpcMethod<Q, A>, request: Q, timeoutMs: number): Promise<A>;
  /** What came over the channel. */
  readonly receive: (chunk: Buffer) => void;
  /** Fails every call that waits. */
  fail(reason: Error): void;
}

interface Waiting {
  readonly resolve: (response: Response) => void;
  readonly reject: (error: Error) => void;
}

export function ttrpcClient(channel: () => MuxChannel): TtrpcClient {
  const waiting = new Map<number, Waiting>();
  let next = 1;
  const receive = ttrpcFrames((frame) => {
    if (frame.type !== responseType) return;
    const response = Response.decode(frame.data);
    waiting.get(frame.stream)?.resolve(response);
    waiting.delete(frame.stream);
  });
  return {
    receive,
    async call(service, method, request, timeoutMs) {
      const stream = next;
      // Odd numbers, and from the start again before the field is full.
      next = next >= 0xffff_fffd ? 1 : next + 2;
      const data = Request.encode({
        service,
        method: method.name,
        payload: asBuffer(method.requestType.encode(request).finish()),
        timeoutNano: BigInt(timeoutMs) * 1_000_000n,
        metadata: [],
      }).finish();
      if (data.length > maxMessageBytes)
        throw new RuntimeError('exhausted', `${method.name}: a message of ${data.length} bytes is too long for ttrpc`);
      const response = await answerTo(stream, method.name, timeoutMs, waiting, () =>
        channel().send(encodeFrame({ stream, type: requestType, flags: 0, data })),
      );
      const { status, payload } = response;
      if (status !== undefined && status.code !== 0) throw new RuntimeError(kindOf(status.code), status.message);
      return method.responseType.decode(payload);
    },
    fail(reason) {
      for (const { reject } of waiting.values()) reject(reason);
      waiting.clear();
    },
  };
}

function answerTo(
  stream: number,
  name: string,
  timeoutMs: number,
  waiting: Map<number, Waiting>,
  send: () => void,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      waiting.delete(stream);
      reject(new TtrpcTimeout(`${name}: no answer within ${timeoutMs} ms`));
    }, timeoutMs);
    const settle =
      <T>(then: (value: T) => void) =>
      (value: T): void => {
        clearTimeout(timer);
        then(value);
      };
    waiting.set(stream, { resolve: settle(resolve), reject: settle(reject) });
    try {
      send();
    } catch (error) {
      waiting.delete(stream);
      settle(reject)(error as Error);
    }
  });
}

/** Nobody answered, as opposed to an answer that says that something else took too long. */
export class TtrpcTimeout extends RuntimeError {
  constructor(message: string) {
    super('deadline', message);
  }
}

// ------------------------------------------------------------------------------------------------------------ serving

/** What answers the calls of one method: decoded already, encoded afterwards. */
export interface TtrpcHandler {
  readonly service: string;
  readonly method: string;
  handle(payload: Uint8Array): Promise<Uint8Array>;
}

export const ttrpcHandler = <Q, A>(
  service: string,
  method: ServedMethod<Q, A>,
  work: (request: Q) => Promise<A>,
): TtrpcHandler => ({
  service,
  method: method.name,
  handle: async (payload) => method.responseType.encode(await work(method.requestType.decode(payload))).finish(),
});

/** Returns what takes the channel's data. A handler that throws becomes a status; one that is missing UNIMPLEMENTED. */
export function ttrpcServer(handlers: readonly TtrpcHandler[], channel: () => MuxChannel): (chunk: Buffer) => void {
  const answer = (stream: number, response: Partial<Response>): void => {
    const data = Response.encode(Response.fromPartial(response)).finish();
    try {
      channel().send(encodeFrame({ stream, type: responseType, flags: 0, data }));
    } catch {
      // The connection has ended: nobody waits for the answer.
    }
  };
  return ttrpcFrames(({ stream, type, data }) => {
    if (type !== requestType) return;
    const { service, method, payload } = Request.decode(data);
    const handler = handlers.find((each) => each.service === service && each.method === method);
    if (handler === undefined) {
      answer(stream, { status: { code: codes.unimplemented, message: `no method ${service}/${method}` } });
      return;
    }
    handler.handle(payload).then(
      (result) => answer(stream, { payload: asBuffer(result) }),
      (error: unknown) => answer(stream, { status: { code: codeOf(error), message: messageOf(error) } }),
    );
  });
}

/** gRPC status codes, as ttrpc uses them. */
const codes: Readonly<Record<ErrorKind, number>> = {
  cancelled: 1,
  'invalid-argument': 3,
  deadline: 4,
  'not-found': 5,
  'already-exists': 6,
  denied: 7,
  exhausted: 8,
  'wrong-state': 9,
  'in-progress': 10,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  corrupt: 15,
  unauthenticated: 16,
};

const kinds = new Map(Object.entries(codes).map(([kind, code]) => [code, kind as ErrorKind]));

const kindOf = (code: number): ErrorKind => kinds.get(code) ?? 'internal';

const codeOf = (error: unknown): number => (error instanceof RuntimeError ? codes[error.kind] : codes.internal);
