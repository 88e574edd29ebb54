import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import {
  ContainerUpdate,
  PluginDefinition,
  RuntimeDefinition,
  type ConfigureRequest,
  type ContainerRequest,
  type CreateContainerResponse,
  type DeepPartial,
  type Event,
  type MessageFns,
  type SynchronizeRequest,
  type UpdateContainersRequest,
  type UpdateContainersResponse,
} from '../../api/nri/v1alpha1/generated/api.js';
import { sleep } from '../../src/kit/deadline.js';
import { RuntimeError, isKind, type ErrorKind } from '../../src/kit/errors.js';
import { openMux, pluginChannel, runtimeChannel, type MuxChannel } from '../../src/nri/mux.js';
import { ttrpcClient, ttrpcServer, type TtrpcHandler } from '../../src/nri/ttrpc.js';
import type { Pods } from './pods.js';

type Methods = typeof PluginDefinition.methods;
type Decoded<K extends keyof Methods> = ReturnType<Methods[K]['requestType']['decode']>;
type Encoded<K extends keyof Methods> = DeepPartial<ReturnType<Methods[K]['responseType']['decode']>>;

/** What the plugin does when it is called; a method without an entry answers with an empty message. */
export type PluginHandlers = {
  readonly [K in keyof Methods]?: (request: Decoded<K>) => Promise<Encoded<K> | void> | Encoded<K> | void;
};

export interface PluginOptions {
  readonly index?: string;
  readonly name?: string;
  /** Every event without it. */
  readonly events?: readonly Event[];
  readonly on?: PluginHandlers;
  /** Methods that the plugin is too old to know. */
  readonly unknown?: readonly (keyof Methods)[];
}

/** A plugin in this process, over a real connection. */
export interface PluginDouble {
  /** `CreateContainer c-1` and so on, in the order of arrival. */
  readonly calls: readonly string[];
  readonly configured: Promise<ConfigureRequest>;
  /** All parts together. */
  readonly synchronized: Promise<Pick<SynchronizeRequest, 'pods' | 'containers'>>;
  readonly closed: Promise<void>;
  /** Waits until a call of that form has come. */
  seen(call: string): Promise<void>;
  update(request: DeepPartial<UpdateContainersRequest>): Promise<UpdateContainersResponse>;
  close(): void;
}

/** Connects and registers; ready once the runtime has told it what there is. */
export async function connectPlugin(socketPath: string, options: PluginOptions = {}): Promise<PluginDouble> {
  const socket = connect(socketPath);
  await once(socket, 'connect');
  const double = servePlugin(socket, options);
  await Promise.race([
    double.synchronized,
    double.closed.then(() => Promise.reject(new Error('the runtime closed the connection'))),
  ]);
  return double;
}

/** Speaks as a plugin over a connection that is there. */
export function servePlugin(trunk: Duplex, options: PluginOptions = {}): PluginDouble {
  const mux = openMux(trunk);
  const client = ttrpcClient((): MuxChannel => asking);
  const asking = mux.channel(runtimeChannel, client.receive);
  const calls: string[] = [];
  const configured = later<ConfigureRequest>();
  const synchronized = later<Pick<SynchronizeRequest, 'pods' | 'containers'>>();
  const waiting = new Set<() => void>();
  const heard: Pick<SynchronizeRequest, 'pods' | 'containers'> = { pods: [], containers: [] };
  const own: PluginHandlers = {
    configure: async (request) => {
      configured.resolve(request);
      return (await options.on?.configure?.(request)) ?? { events: maskOf(options.events ?? []) };
    },
    synchronize: async (request) => {
      heard.pods.push(...request.pods);
      heard.containers.push(...request.containers);
      const answer = await options.on?.synchronize?.(request);
      if (!request.more) synchronized.resolve(heard);
      return answer ?? { more: request.more };
    },
  };
  const handlers = (Object.keys(PluginDefinition.methods) as (keyof Methods)[])
    .filter((key) => options.unknown?.includes(key) !== true)
    .map((key) =>
      handler(key, own[key] ?? options.on?.[key], (call) => {
        calls.push(call);
        waiting.forEach((look) => look());
      }),
    );
  const answering = mux.channel(
    pluginChannel,
    ttrpcServer(handlers, (): MuxChannel => answering),
  );
  mux.onClose((reason) => client.fail(reason));
  const runtime = RuntimeDefinition;
  const registration = { pluginName: options.name ?? 'double', pluginIdx: options.index ?? '10', nriVersion: '' };
  client.call(runtime.fullName, runtime.methods.registerPlugin, registration, 10_000).catch(() => undefined);
  return {
    calls,
    configured: configured.promise,
    synchronized: synchronized.promise,
    closed: new Promise((resolve) => mux.onClose(() => resolve())),
    seen: (call) =>
      new Promise((resolve) => {
        const look = (): void => {
          if (!calls.includes(call)) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      }),
    update: ({ update = [], evict = [] }) =>
      client.call(
        runtime.fullName,
        runtime.methods.updateContainers,
        {
          update: update.map((each) => ContainerUpdate.fromPartial(each)),
          evict: evict.map(({ containerId = '', reason = '' }) => ({ containerId, reason })),
        },
        10_000,
      ),
    close: () => mux.close(),
  };
}

function handler<K extends keyof Methods>(
  key: K,
  handle: PluginHandlers[K] | undefined,
  note: (call: string) => void,
): TtrpcHandler {
  const { name, requestType, responseType } = PluginDefinition.methods[key];
  return {
    service: PluginDefinition.fullName,
    method: name,
    async handle(payload) {
      const request = requestType.decode(payload) as Decoded<K>;
      note(described(name, request as Subject));
      const answer = (await handle?.(request as never)) ?? {};
      const { encode, fromPartial } = responseType as MessageFns<CreateContainerResponse>;
      return encode(fromPartial(answer as DeepPartial<CreateContainerResponse>)).finish();
    },
  };
}

type Subject = Partial<ContainerRequest & { readonly event: Event }>;

function described(name: string, request: Subject): string {
  const subject = request.container?.name ?? request.pod?.name ?? '';
  const event = name === 'StateChange' ? ` ${request.event}` : '';
  return `${name}${event}${subject === '' ? '' : ` ${subject}`}`;
}

/** 0 stands for every event. */
const maskOf = (events: readonly Event[]): number =>
  events.reduce<number>((mask, event) => mask | (1 << (event - 1)), 0);

/** What a plugin refuses with. */
export const refusal = (message: string): RuntimeError => new RuntimeError('denied', message);

function later<T>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((settle) => (resolve = settle));
  return { promise, resolve };
}

/** Plugins of a runtime's, which are gone after each test before its pods go. Registers its hooks where it is called. */
export function usePlugins(pods: Pods): (options?: PluginOptions) => Promise<PluginDouble> {
  const connected: PluginDouble[] = [];
  afterEach(async () => {
    for (const double of connected.splice(0)) double.close();
    await until(() => !pods.host.parts.lifecycle.active);
  });
  return async (options = {}) => {
    const double = await connectPlugin(pods.testHost.config.nri.socketPath, options);
    connected.push(double);
    await until(() => pods.host.parts.lifecycle.active);
    return double;
  };
}

/** Waits up to 5 s. */
export async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !holds(); i++) await sleep(25);
  assert.ok(holds());
}

export const failsWith = (work: Promise<unknown>, kind: ErrorKind, message: RegExp): Promise<void> =>
  assert.rejects(work, (error) => {
    assert.ok(isKind(error, kind), String(error));
    assert.match(error.message, message);
    return true;
  });
