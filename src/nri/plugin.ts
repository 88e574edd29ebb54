import type { Duplex } from 'node:stream';
import {
  Event,
  PluginDefinition,
  RuntimeDefinition,
  type ContainerRequest,
  type UpdateContainersRequest,
  type UpdateContainersResponse,
} from '../../api/nri/v1alpha1/generated/api.js';
import { RuntimeError, invalid, isKind, messageOf } from '../kit/errors.js';
import { openMux, pluginChannel, runtimeChannel, type Mux, type MuxChannel } from './mux.js';
import { TtrpcTimeout, ttrpcClient, ttrpcHandler, ttrpcServer, type TtrpcClient, type TtrpcMethod } from './ttrpc.js';

export interface PluginSettings {
  readonly runtimeName: string;
  /** Without a leading v. */
  readonly runtimeVersion: string;
  /** Milliseconds from a connection to its registration, and for taking in what there is. */
  readonly registrationTimeoutMs: number;
  /** Milliseconds a plugin has for one request. */
  readonly requestTimeoutMs: number;
}

/** What a plugin of ours is called; one that comes by itself says so. */
export interface PluginIdentity {
  /** Two digits. Plugins are asked in this order. */
  readonly index: string;
  readonly name: string;
}

/** The release of the protocol that is spoken (`api/nri/v1alpha1`). */
const nriVersion = 'v0.12.2';

const allEvents = (1 << Object.values(Event).filter((value) => typeof value === 'number' && value > 0).length) - 1;
const methods = PluginDefinition.methods;
const service = PluginDefinition.fullName;

/**
 * A connected plugin. It registers, is configured, hears of what there is, and then of what happens. One that does not
 * answer in time, or whose connection ends, is closed and never asked again.
 */
export class Plugin {
  readonly #settings: PluginSettings;
  readonly #mux: Mux;
  readonly #client: TtrpcClient;
  #identity: PluginIdentity | undefined;
  #events = 0;
  #closed = false;
  /** Of before v0.11: has no methods of its own for events that nobody answers. */
  #old = false;

  private constructor(mux: Mux, client: TtrpcClient, settings: PluginSettings) {
    this.#mux = mux;
    this.#client = client;
    this.#settings = settings;
    mux.onClose((reason) => {
      this.#closed = true;
      client.fail(reason);
    });
  }

  /**
   * Takes up a connection until the plugin is registered and configured.
   *
   * @param identity of a plugin we have started; absent for one that names itself
   * @param update answers what the plugin asks of its own accord
   */
  static async connect(
    trunk: Duplex,
    settings: PluginSettings,
    identity: PluginIdentity | undefined,
    config: string,
    update: (plugin: Plugin, request: UpdateContainersRequest) => Promise<UpdateContainersResponse>,
  ): Promise<Plugin> {
    const mux = openMux(trunk);
    const client = ttrpcClient((): MuxChannel => calls);
    const calls = mux.channel(pluginChannel, client.receive);
    const plugin = new Plugin(mux, client, settings);
    const registered = registration(mux, settings.registrationTimeoutMs);
    const handlers = [
      ttrpcHandler(RuntimeDefinition.fullName, RuntimeDefinition.methods.registerPlugin, async (request) => {
        try {
          const own = identity ?? checkedIdentity(request.pluginIdx, request.pluginName);
          registered.resolve(own);
        } catch (error) {
          registered.reject(error as Error);
          throw error;
        }
        return {};
      }),
      ttrpcHandler(RuntimeDefinition.fullName, RuntimeDefinition.methods.updateContainers, (request) =>
        update(plugin, request),
      ),
    ];
    const answers = mux.channel(
      runtimeChannel,
      ttrpcServer(handlers, (): MuxChannel => answers),
    );
    trunk.resume();
    try {
      plugin.#identity = await registered.promise;
      await plugin.#configure(config);
      return plugin;
    } catch (error) {
      plugin.close();
      throw error;
    }
  }

  get index(): string {
    return this.#identity?.index ?? '';
  }

  get name(): string {
    return this.#identity?.name ?? '';
  }

  /** As in messages and in the ownership of fields: `10-name`. */
  get fullName(): string {
    return `${this.index}-${this.name}`;
  }

  get closed(): boolean {
    return this.#closed;
  }

  wants(event: Event): boolean {
    return !this.#closed && (this.#events & (1 << (event - 1))) !== 0;
  }

  onClose(listener: (reason: Error) => void): void {
    this.#mux.onClose(listener);
  }

  close(reason?: Error): void {
    this.#mux.close(reason);
  }

  /**
   * Asks the plugin. Undefined when it has gone or did not answer in time, which closes it: the request goes on without
   * it. Throws what the plugin itself refused, with its name.
   */
  async ask<Q, A>(
    method: TtrpcMethod<Q, A>,
    request: Q,
    timeoutMs = this.#settings.requestTimeoutMs,
  ): Promise<A | undefined> {
    try {
      return await this.#client.call(service, method, request, timeoutMs);
    } catch (error) {
      if (error instanceof TtrpcTimeout) this.close(error);
      if (this.#closed) return undefined;
      const kind = error instanceof RuntimeError ? error.kind : 'internal';
      throw new RuntimeError(kind, `plugin ${this.fullName}: ${method.name}: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Tells the plugin what nobody answers. Plugins before v0.11 hear it by another method. */
  async tell(event: Event, method: TtrpcMethod<ContainerRequest, object>, request: ContainerRequest): Promise<void> {
    if (!this.#old) {
      try {
        return void (await this.ask(method, request));
      } catch (error) {
        if (!isKind(error, 'unimplemented')) throw error;
        this.#old = true;
      }
    }
    await this.ask(methods.stateChange, { event, ...request });
  }

  async #configure(config: string): Promise<void> {
    const { runtimeName, runtimeVersion, registrationTimeoutMs, requestTimeoutMs } = this.#settings;
    const answer = await this.ask(methods.configure, {
      config,
      runtimeName,
      runtimeVersion: `v${runtimeVersion}`,
      registrationTimeout: BigInt(registrationTimeoutMs),
      requestTimeout: BigInt(requestTimeoutMs),
      nriVersion,
    });
    if (answer === undefined)
      throw new RuntimeError('unavailable', `plugin ${this.fullName} went while being configured`);
    if ((answer.events & ~allEvents) !== 0)
      throw invalid('events', `plugin ${this.fullName} wants events there are not: 0x${answer.events.toString(16)}`);
    this.#events = answer.events === 0 ? allEvents : answer.events;
  }
}

interface Registration {
  readonly promise: Promise<PluginIdentity>;
  readonly resolve: (identity: PluginIdentity) => void;
  readonly reject: (error: Error) => void;
}

function registration(mux: Mux, timeoutMs: number): Registration {
  let settle: Omit<Registration, 'promise'> = { resolve: () => undefined, reject: () => undefined };
  const promise = new Promise<PluginIdentity>((resolve, reject) => (settle = { resolve, reject }));
  const late = new RuntimeError('deadline', `did not register within ${timeoutMs} ms`);
  const timer = setTimeout(() => settle.reject(late), timeoutMs);
  mux.onClose((reason) => settle.reject(reason));
  const settled = promise.finally(() => clearTimeout(timer));
  return { promise: settled, ...settle };
}

/** Throws `invalid-argument` for what cannot be a plugin's index or name. */
export function checkedIdentity(index: string, name: string): PluginIdentity {
  if (!/^\d\d$/.test(index)) throw invalid('plugin_idx', `"${index}" is not two digits`);
  if (!/^[\w.+-]+$/.test(name)) throw invalid('plugin_name', `"${name}" is no name of letters, digits and . _ + -`);
  return { index, name };
}
