/** A client of both CRI services with promises, for tests. */
import { Client, Metadata, credentials } from '@grpc/grpc-js';
import type { CallOptions, MethodDefinition, ServiceError } from '@grpc/grpc-js';
import * as api from '../../api/cri/v1/generated/api.js';

export interface CriCallOptions {
  /** Milliseconds from now. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

interface Method {
  readonly path: string;
  readonly responseStream: boolean;
  readonly requestSerialize: (value: never) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => unknown;
}

type RequestOf<M extends Method> = Parameters<M['requestSerialize']>[0];
type ResponseOf<M extends Method> = ReturnType<M['responseDeserialize']>;

/** Fields of a request may be left out at any depth. Server streams are collected into an array. */
export type Promised<Service extends Readonly<Record<string, Method>>> = {
  readonly [Name in keyof Service]: (
    request?: api.DeepPartial<RequestOf<Service[Name]>>,
    options?: CriCallOptions,
  ) => Promise<Service[Name]['responseStream'] extends true ? ResponseOf<Service[Name]>[] : ResponseOf<Service[Name]>>;
};

export interface CriClient {
  readonly runtime: Promised<typeof api.RuntimeServiceService>;
  readonly images: Promised<typeof api.ImageServiceService>;
  close(): void;
}

const longestMessage = 80 * 1024 * 1024;

/** Connects on the first call. `target` is a socket path or a gRPC target. */
export function criClient(target: string): CriClient {
  const address = target.startsWith('/') ? `unix://${target}` : target;
  const client = new Client(address, credentials.createInsecure(), {
    'grpc.max_receive_message_length': longestMessage,
    'grpc.max_send_message_length': longestMessage,
    'grpc.enable_channelz': 0,
    'grpc.use_local_subchannel_pool': 1,
  });
  return {
    runtime: promised(client, api.RuntimeServiceService),
    images: promised(client, api.ImageServiceService),
    close: () => client.close(),
  };
}

function promised<Service extends Readonly<Record<string, Method>>>(client: Client, service: Service) {
  const methods = Object.entries(service).map(([name, method]) => [
    name,
    (request: object = {}, options: CriCallOptions = {}) => send(client, method, request, options),
  ]);
  return Object.fromEntries(methods) as Promised<Service>;
}

type AnyDefinition = MethodDefinition<unknown, unknown>;

async function send(client: Client, method: Method, request: object, options: CriCallOptions): Promise<unknown> {
  const definition = method as unknown as AnyDefinition;
  const message = filledIn(method.path, request);
  return method.responseStream
    ? collect(client, definition, message, options)
    : unary(client, definition, message, options);
}

/** The generated encoder wants every field present. */
function filledIn(path: string, request: object): unknown {
  const rpc = path.slice(path.lastIndexOf('/') + 1);
  const name = rpc === 'GetContainerEvents' ? 'GetEventsRequest' : `${rpc}Request`;
  const messages = api as unknown as Readonly<Record<string, { fromPartial(fields: object): unknown } | undefined>>;
  const message = messages[name];
  if (message === undefined) throw new Error(`no message ${name}`);
  return message.fromPartial(request);
}

const callOptions = ({ timeoutMs }: CriCallOptions): Partial<CallOptions> =>
  timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };

function unary(client: Client, method: AnyDefinition, request: unknown, options: CriCallOptions): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      new Metadata(),
      callOptions(options),
      (error: ServiceError | null, response: unknown) => (error === null ? resolve(response) : reject(error)),
    );
    options.signal?.addEventListener('abort', () => call.cancel(), { once: true });
  });
}

async function collect(
  client: Client,
  method: AnyDefinition,
  request: unknown,
  options: CriCallOptions,
): Promise<unknown[]> {
  const stream = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    request,
    new Metadata(),
    callOptions(options),
  );
  options.signal?.addEventListener('abort', () => stream.cancel(), { once: true });
  const items: unknown[] = [];
  for await (const item of stream) items.push(item);
  return items;
}
