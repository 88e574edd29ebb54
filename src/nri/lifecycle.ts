import {
  Container,
  ContainerAdjustment,
  Event,
  LinuxResources,
  PluginDefinition,
  type PodSandbox,
  type ContainerEviction,
  type ContainerUpdate,
  type UpdateContainersRequest,
  type UpdateContainersResponse,
  type ValidateContainerAdjustmentRequest,
} from '../../api/nri/v1alpha1/generated/api.js';
import { RuntimeError, messageOf } from '../kit/errors.js';
import type { Observer } from '../kit/observer.js';
import type { ContainerEvent, Lifecycle, LifecycleHost, PodEvent } from '../runtime/lifecycle.js';
import type * as model from '../runtime/model.js';
import { adjustedResources, type SpecAdjustment } from '../runtime/spec/adjust.js';
import type { OciSpec } from '../runtime/spec/oci.js';
import type { ContainerRecord, SandboxRecord } from '../runtime/state/records.js';
import { adjustmentOf, resourcesOf } from './from-message.js';
import { emptyMerge, mergeAdjustment, mergeUpdates, overlayResources, type Merged } from './merge.js';
import { Owners } from './owners.js';
import type { Plugin } from './plugin.js';
import type { Plugins } from './plugins.js';
import { containerMessage, podMessage, resourcesMessage } from './to-message.js';

const { methods } = PluginDefinition;

/** What is told without an answer. A plugin's refusal fails the request if `mayRefuse`, else it is only noted. */
const podEvents = {
  'run-sandbox': { event: Event.RUN_POD_SANDBOX, method: methods.runPodSandbox, mayRefuse: true },
  'sandbox-updated': { event: Event.POST_UPDATE_POD_SANDBOX, method: methods.postUpdatePodSandbox, mayRefuse: false },
  'stop-sandbox': { event: Event.STOP_POD_SANDBOX, method: methods.stopPodSandbox, mayRefuse: false },
  'remove-sandbox': { event: Event.REMOVE_POD_SANDBOX, method: methods.removePodSandbox, mayRefuse: false },
} as const satisfies Readonly<Record<PodEvent, object>>;

const containerEvents = {
  'container-created': { event: Event.POST_CREATE_CONTAINER, method: methods.postCreateContainer, mayRefuse: false },
  'start-container': { event: Event.START_CONTAINER, method: methods.startContainer, mayRefuse: true },
  'container-started': { event: Event.POST_START_CONTAINER, method: methods.postStartContainer, mayRefuse: false },
  'container-updated': { event: Event.POST_UPDATE_CONTAINER, method: methods.postUpdateContainer, mayRefuse: false },
  'remove-container': { event: Event.REMOVE_CONTAINER, method: methods.removeContainer, mayRefuse: false },
} as const satisfies Readonly<Record<Exclude<ContainerEvent, 'container-stopped'>, object>>;

/** The runtime's side of plugins' say in pods and containers. */
export class PluginLifecycle implements Lifecycle {
  readonly #plugins: Plugins;
  readonly #host: LifecycleHost;
  readonly #note: Observer['note'];

  constructor(plugins: Plugins, host: LifecycleHost, note: Observer['note']) {
    this.#plugins = plugins;
    this.#host = host;
    this.#note = note;
  }

  get active(): boolean {
    return this.#plugins.active;
  }

  participants(): readonly string[] {
    return this.#plugins.all().map(({ fullName }) => fullName);
  }

  keepOut(): Promise<Disposable> {
    return this.#plugins.keepOut();
  }

  async tell(event: PodEvent | ContainerEvent, pod: SandboxRecord, container?: ContainerRecord): Promise<void> {
    // Written down now: it may have changed when its turn comes.
    const podTold = this.#podMessage(pod);
    const told = container === undefined ? undefined : this.#containerMessage(container);
    if (event === 'container-stopped') return await this.#containerStopped(podTold, told);
    const row = isPodEvent(event) ? podEvents[event] : containerEvents[event];
    await this.#plugins.inTurn(async () => {
      for (const plugin of this.#plugins.wanting(row.event)) {
        const telling = plugin.tell(row.event, row.method, { pod: podTold, container: told });
        await (row.mayRefuse ? telling : telling.catch(this.#noteError));
      }
    });
  }

  async updateSandbox(pod: SandboxRecord, change: Parameters<Lifecycle['updateSandbox']>[1]): Promise<void> {
    const request = {
      pod: this.#podMessage(pod),
      overheadLinuxResources: change.overhead && resourcesMessage(change.overhead),
      linuxResources: change.resources && resourcesMessage(change.resources),
    };
    await this.#plugins.inTurn(async () => {
      for (const plugin of this.#plugins.wanting(Event.UPDATE_POD_SANDBOX))
        await plugin.ask(methods.updatePodSandbox, request);
    });
  }

  createContainer(pod: SandboxRecord, container: ContainerRecord, spec: OciSpec): Promise<SpecAdjustment> {
    return this.#plugins.inTurn(async () => {
      const request = { pod: this.#podMessage(pod), container: containerMessage(container, spec) };
      const pristine = Container.decode(Container.encode(request.container).finish());
      const merged = emptyMerge();
      const owners = new Owners();
      const asked = this.#plugins.wanting(Event.CREATE_CONTAINER);
      for (const plugin of asked) {
        const answer = await plugin.ask(methods.createContainer, request);
        if (answer === undefined) continue;
        mergeAdjustment(answer.adjust, plugin.fullName, merged.adjust, request.container, owners);
        mergeUpdates(answer.update, plugin.fullName, merged, owners, container.id);
        merged.evictions.push(...answer.evict);
      }
      await this.#validate(request.pod, pristine, merged, owners, this.#plugins.all());
      const adjustment = adjustmentOf(merged.adjust, (field, key) => owners.of(container.id, field, key));
      await this.#carryOut(merged, owners);
      return adjustment;
    });
  }

  updateContainer(
    pod: SandboxRecord,
    container: ContainerRecord,
    wanted: model.LinuxResources,
  ): Promise<model.LinuxResources> {
    return this.#plugins.inTurn(async () => {
      const request = {
        pod: this.#podMessage(pod),
        container: this.#containerMessage(container),
        linuxResources: resourcesMessage(wanted),
      };
      const merged = emptyMerge();
      const owners = new Owners();
      for (const plugin of this.#plugins.wanting(Event.UPDATE_CONTAINER)) {
        const answer = await plugin.ask(methods.updateContainer, request);
        if (answer === undefined) continue;
        mergeUpdates(answer.update, plugin.fullName, merged, owners);
        merged.evictions.push(...answer.evict);
        const own = merged.updates.get(container.id)?.linux?.resources;
        if (own !== undefined) overlayResources(own, request.linuxResources);
      }
      const own = merged.updates.get(container.id)?.linux?.resources;
      merged.updates.delete(container.id);
      const change = own === undefined ? {} : resourcesOf(own, (field, key) => owners.of(container.id, field, key));
      await this.#carryOut(merged, owners);
      return adjustedResources(wanted, change);
    });
  }

  /** What a plugin asks of its own accord. */
  async requested(plugin: Plugin, request: UpdateContainersRequest): Promise<UpdateContainersResponse> {
    const failed: ContainerUpdate[] = [];
    for (const update of request.update) {
      try {
        await this.#update(update, () => plugin.fullName);
      } catch (error) {
        this.#note('warn', `plugin ${plugin.fullName}: update of ${update.containerId}: ${messageOf(error)}`);
        if (!update.ignoreFailure) failed.push(update);
      }
    }
    this.#evict(request.evict);
    return { failed };
  }

  /** Changes that a plugin wants of what it has found; those that fail are noted. */
  async afterSynchronizing(plugin: Plugin, updates: readonly ContainerUpdate[]): Promise<void> {
    await this.requested(plugin, { update: [...updates], evict: [] });
  }

  async #containerStopped(pod: PodSandbox, container: Container | undefined): Promise<void> {
    await this.#plugins.inTurn(async () => {
      const merged = emptyMerge();
      const owners = new Owners();
      for (const plugin of this.#plugins.wanting(Event.STOP_CONTAINER)) {
        try {
          const answer = await plugin.ask(methods.stopContainer, { pod, container });
          mergeUpdates(answer?.update ?? [], plugin.fullName, merged, owners);
        } catch (error) {
          this.#noteError(error);
        }
      }
      await this.#carryOut(merged, owners).catch(this.#noteError);
    });
  }

  /** Every validator has to agree; one that does not answer has not. */
  async #validate(
    pod: PodSandbox,
    container: Container,
    merged: Merged,
    owners: Owners,
    asked: readonly Plugin[],
  ): Promise<void> {
    const validators = this.#plugins.wanting(Event.VALIDATE_CONTAINER_ADJUSTMENT);
    if (validators.length === 0) return;
    const request: ValidateContainerAdjustmentRequest = {
      pod,
      container,
      adjust: ContainerAdjustment.fromPartial(merged.adjust),
      update: [...merged.updates.values()],
      owners: owners.message(),
      plugins: asked.map(({ name, index }) => ({ name, index })),
    };
    await Promise.all(
      validators.map(async (plugin) => {
        const answer = await plugin.ask(methods.validateContainerAdjustment, request);
        if (answer === undefined)
          throw new RuntimeError('unavailable', `plugin ${plugin.fullName} did not validate the container`);
        if (!answer.reject) return;
        const reason = answer.reason === '' ? 'no reason given' : answer.reason;
        throw new RuntimeError('denied', `plugin ${plugin.fullName} rejects what plugins want changed: ${reason}`);
      }),
    );
  }

  /** Changes and ends other containers as plugins want it. */
  async #carryOut(merged: Merged, owners: Owners): Promise<void> {
    for (const update of merged.updates.values()) {
      try {
        await this.#update(update, (field, key) => owners.of(update.containerId, field, key));
      } catch (error) {
        if (!update.ignoreFailure) throw error;
        this.#note('warn', `update of ${update.containerId} for plugins: ${messageOf(error)}`);
      }
    }
    this.#evict(merged.evictions);
  }

  async #update({ containerId, linux }: ContainerUpdate, owner: Parameters<typeof resourcesOf>[1]): Promise<void> {
    const resources = resourcesOf(linux?.resources ?? LinuxResources.create(), owner);
    const now = this.#host.container(containerId)?.resources ?? {};
    await this.#host.updateContainer(containerId, adjustedResources(now, resources));
  }

  /** With the container's grace, which no plugin waits for. */
  #evict(evictions: readonly ContainerEviction[]): void {
    for (const { containerId, reason } of evictions) {
      this.#note('warn', `a plugin evicts container ${containerId}: ${reason}`);
      this.#host.stopContainer(containerId).catch(this.#noteError);
    }
  }

  #podMessage(pod: SandboxRecord): PodSandbox {
    return podMessage(pod, this.#host.networkNamespace(pod));
  }

  #containerMessage(container: ContainerRecord): Container {
    return containerMessage(container, this.#host.spec(container));
  }

  readonly #noteError = (error: unknown): void => this.#note('error', messageOf(error));
}

const isPodEvent = (event: PodEvent | Exclude<ContainerEvent, 'container-stopped'>): event is PodEvent =>
  event in podEvents;
