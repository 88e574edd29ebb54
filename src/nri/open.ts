import type { Server, Socket } from 'node:net';
import { Container, PluginDefinition, PodSandbox, type ContainerUpdate } from '../../api/nri/v1alpha1/generated/api.js';
import { RuntimeError, messageOf } from '../kit/errors.js';
import { listenOn } from '../kit/listen.js';
import type { Observer } from '../kit/observer.js';
import type { Lifecycle, LifecycleHost } from '../runtime/lifecycle.js';
import { installedPlugins, startPlugin, type InstalledPlugin } from './launch.js';
import { PluginLifecycle } from './lifecycle.js';
import { Plugin, type PluginSettings } from './plugin.js';
import { Plugins } from './plugins.js';
import { containerMessage, podMessage } from './to-message.js';
import { maxMessageBytes } from './ttrpc.js';

export interface NriOptions extends Omit<PluginSettings, 'runtimeVersion'> {
  readonly socketPath: string;
  readonly pluginDir: string;
  readonly configDir: string;
  readonly host: LifecycleHost;
  readonly note: Observer['note'];
}

export interface Nri {
  readonly lifecycle: Lifecycle;
  /**
   * Starts the installed plugins, and then lets others connect. A plugin that fails is noted and left out, and so is a
   * socket that cannot be had: pods do not depend on plugins.
   */
  start(runtimeVersion: string): Promise<void>;
  close(): Promise<void>;
}

/** The Node Resource Interface: plugins of the node that follow pods and containers and may change them. */
export function openNri(options: NriOptions): Nri {
  const { note } = options;
  const plugins = new Plugins();
  const lifecycle = new PluginLifecycle(plugins, options.host, note);
  const connections = new Set<Socket>();
  let server: Server | undefined;
  return {
    lifecycle,
    async start(runtimeVersion) {
      const context: Context = { options: { ...options, runtimeVersion }, plugins, lifecycle };
      const installed = installedPlugins(options.pluginDir, options.configDir, note).map((plugin) =>
        launch(plugin, context).catch((error: unknown) =>
          note('warn', `plugin ${plugin.path} is left out: ${messageOf(error)}`),
        ),
      );
      await Promise.all(installed);
      try {
        server = await listenOn(options.socketPath, 'shared', (socket) => {
          connections.add(socket);
          socket.on('close', () => connections.delete(socket));
          admit(socket, context).catch((error: unknown) =>
            note('warn', `a plugin is turned away: ${messageOf(error)}`),
          );
        });
      } catch (error) {
        note('warn', `no plugin can connect: ${messageOf(error)}`);
      }
    },
    async close() {
      server?.close();
      const { requestTimeoutMs } = options;
      await Promise.all(plugins.all().map((plugin) => sayGoodbye(plugin, requestTimeoutMs)));
      for (const socket of connections) socket.destroy();
    },
  };
}

interface Context {
  readonly options: NriOptions & PluginSettings;
  readonly plugins: Plugins;
  readonly lifecycle: PluginLifecycle;
}

async function launch(installed: InstalledPlugin, context: Context): Promise<void> {
  const started = startPlugin(installed, context.options.note);
  started.trunk.on('close', () => started.stop());
  const plugin = await connect(started.trunk, installed, installed.config, context);
  await takeIn(plugin, context);
}

async function admit(socket: Socket, context: Context): Promise<void> {
  await takeIn(await connect(socket, undefined, '', context), context);
}

const connect = (
  trunk: Parameters<typeof Plugin.connect>[0],
  identity: InstalledPlugin | undefined,
  config: string,
  { options, lifecycle }: Context,
): Promise<Plugin> =>
  Plugin.connect(trunk, options, identity, config, (plugin, request) => lifecycle.requested(plugin, request));

/** A configured plugin hears of what there is and takes part from then on. */
async function takeIn(plugin: Plugin, { options, plugins, lifecycle }: Context): Promise<void> {
  const { host, note, registrationTimeoutMs } = options;
  const facts = { plugin: plugin.fullName };
  try {
    await plugins.join(plugin, async () => {
      const updates = await synchronize(plugin, host, registrationTimeoutMs);
      await lifecycle.afterSynchronizing(plugin, updates);
    });
  } catch (error) {
    plugin.close();
    throw error;
  }
  note('info', 'a plugin takes part', facts);
  plugin.onClose((reason) => note('warn', `a plugin has gone: ${reason.message}`, facts));
}

/** In as many messages as it takes; a plugin that does not know of several is refused by its answer. */
async function synchronize(plugin: Plugin, host: LifecycleHost, timeoutMs: number): Promise<ContainerUpdate[]> {
  const pods = host.pods().map((record) => podMessage(record, host.networkNamespace(record)));
  const containers = host.containers().map((record) => containerMessage(record, host.spec(record)));
  const parts = inParts(pods, containers);
  for (const [index, part] of parts.entries()) {
    const more = index < parts.length - 1;
    const answer = await plugin.ask(PluginDefinition.methods.synchronize, { ...part, more }, timeoutMs);
    if (answer === undefined)
      throw new RuntimeError('unavailable', `plugin ${plugin.fullName} went while it was told what there is`);
    if (!more) return answer.update;
    if (!answer.more || answer.update.length > 0)
      throw new RuntimeError('unimplemented', `plugin ${plugin.fullName} cannot take in this many pods at once`);
  }
  return [];
}

interface Part {
  readonly pods: PodSandbox[];
  readonly containers: Container[];
}

/** Leaves room for what surrounds the list in a message. */
const partBytes = maxMessageBytes - 2 ** 16;

/** Never without a part, since a plugin waits for one. */
export function inParts(pods: readonly PodSandbox[], containers: readonly Container[], most = partBytes): Part[] {
  const parts: Part[] = [{ pods: [], containers: [] }];
  let size = 0;
  const room = (bytes: number): Part => {
    // Tag and length of the field come on top.
    size += bytes + 8;
    if (size > most && size > bytes + 8) {
      parts.push({ pods: [], containers: [] });
      size = bytes + 8;
    }
    return parts[parts.length - 1] as Part;
  };
  for (const pod of pods) room(PodSandbox.encode(pod).finish().length).pods.push(pod);
  for (const container of containers) room(Container.encode(container).finish().length).containers.push(container);
  return parts;
}

async function sayGoodbye(plugin: Plugin, timeoutMs: number): Promise<void> {
  await plugin.ask(PluginDefinition.methods.shutdown, {}, timeoutMs).catch(() => undefined);
  plugin.close();
}
