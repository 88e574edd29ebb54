import { RuntimeError, notFound } from '../kit/errors.js';
import type { ContainerView, SandboxView } from './facade.js';
import { containerChanges, sandboxChanges, type ChangeType, type StateChange } from './state/changes.js';
import type { ContainerState, ExitRecord, PodSandboxConfig } from './model.js';
import type { Shim } from './launch/shim.js';
import { Names, containerName, sandboxName } from './state/names.js';
import type { ContainerRecord, SandboxRecord } from './state/records.js';
import type { Table } from './state/store.js';

/**
 * Every pod and container that exists, in memory: the truth for reads. A change replaces the record, writes it to the
 * store and makes a new view; views are immutable, so that answers may be cached by them.
 *
 * ```
 *   sandbox     creating ──▶ ready ──▶ stopped ──▶ (removed)
 *                  └─ failed: undone and gone
 *   container   creating ──▶ created ──▶ starting ──▶ started ──▶ started + exit ──▶ (removed)
 *                  └─ failed: undone and gone   └─ failed: created + exit(StartError)
 * ```
 */
export interface SandboxEntry {
  readonly record: SandboxRecord;
  readonly view: SandboxView;
  /** Undefined once the pod has stopped, or when its shim is gone. */
  readonly shim: Shim | undefined;
  readonly containers: ReadonlySet<string>;
}

export interface ContainerEntry {
  readonly record: ContainerRecord;
  readonly view: ContainerView;
}

interface MutableSandboxEntry extends SandboxEntry {
  record: SandboxRecord;
  view: SandboxView;
  shim: Shim | undefined;
  readonly containers: Set<string>;
}

interface MutableContainerEntry extends ContainerEntry {
  record: ContainerRecord;
  view: ContainerView;
}

export interface RegistryTables {
  readonly sandboxes: Table<SandboxRecord>;
  readonly containers: Table<ContainerRecord>;
}

export class Registry {
  readonly #tables: RegistryTables;
  readonly #sandboxes = new Map<string, MutableSandboxEntry>();
  readonly #containers = new Map<string, MutableContainerEntry>();
  readonly #exitWaiters = new Map<string, Set<() => void>>();
  readonly names = new Names();
  #onEvent: ((event: StateChange) => void) | undefined;

  constructor(tables: RegistryTables) {
    this.#tables = tables;
  }

  /** One listener, called within each change of an object's state, so in their order. */
  onEvent(listener: (event: StateChange) => void): void {
    this.#onEvent = listener;
  }

  #tell(types: readonly ChangeType[], objectId: string, sandbox: SandboxView | undefined): void {
    if (this.#onEvent === undefined || types.length === 0) return;
    const containers = sandbox === undefined ? [] : this.containersOf(sandbox.id).map(({ view }) => view);
    for (const type of types) this.#onEvent({ type, objectId, sandbox, containers });
  }

  // ------------------------------------------------------------------------------------------------ sandboxes

  /** Writes a new pod down and takes its name. */
  addSandbox(record: SandboxRecord): void {
    this.names.reserve(sandboxName(record.config.metadata), record.id);
    this.#tables.sandboxes.put(record.id, record);
    this.loadSandbox(record);
  }

  /** Takes up a pod that is on disk already. */
  loadSandbox(record: SandboxRecord): void {
    this.names.reserve(sandboxName(record.config.metadata), record.id);
    this.#sandboxes.set(record.id, { record, view: sandboxView(record), shim: undefined, containers: new Set() });
  }

  updateSandbox(id: string, change: Partial<SandboxRecord>): SandboxEntry {
    const entry = this.#sandbox(id);
    const before = entry.record;
    entry.record = { ...entry.record, ...change };
    entry.view = sandboxView(entry.record);
    this.#tables.sandboxes.put(id, entry.record);
    this.#tell(sandboxChanges(before, entry.record), id, entry.view);
    return entry;
  }

  setShim(id: string, shim: Shim | undefined): void {
    this.#sandbox(id).shim = shim;
  }

  deleteSandbox(id: string): void {
    const entry = this.#sandboxes.get(id);
    if (entry === undefined) return;
    this.#tables.sandboxes.delete(id);
    this.#sandboxes.delete(id);
    this.names.release(sandboxName(entry.record.config.metadata), id);
    this.#tell(sandboxChanges(entry.record, undefined), id, { ...entry.view, state: 'not-ready' });
  }

  sandbox(idOrPrefix: string): SandboxEntry {
    const entry = this.findSandbox(idOrPrefix);
    if (entry === undefined) throw notFound('pod sandbox', idOrPrefix);
    return entry;
  }

  findSandbox(idOrPrefix: string): SandboxEntry | undefined {
    return findByPrefix(this.#sandboxes, 'pod sandbox', idOrPrefix);
  }

  sandboxes(): Iterable<SandboxEntry> {
    return this.#sandboxes.values();
  }

  #sandbox(id: string): MutableSandboxEntry {
    const entry = this.#sandboxes.get(id);
    if (entry === undefined) throw notFound('pod sandbox', id);
    return entry;
  }

  // ----------------------------------------------------------------------------------------------- containers

  addContainer(record: ContainerRecord): void {
    this.names.reserve(containerName(record.sandboxId, record.config.metadata), record.id);
    this.#tables.containers.put(record.id, record);
    this.loadContainer(record);
  }

  loadContainer(record: ContainerRecord): void {
    this.names.reserve(containerName(record.sandboxId, record.config.metadata), record.id);
    this.#sandbox(record.sandboxId).containers.add(record.id);
    this.#containers.set(record.id, { record, view: containerView(record) });
  }

  updateContainer(id: string, change: Partial<ContainerRecord>): ContainerEntry {
    const entry = this.#container(id);
    const before = entry.record;
    entry.record = { ...entry.record, ...change };
    entry.view = containerView(entry.record);
    this.#tables.containers.put(id, entry.record);
    this.#tell(containerChanges(before, entry.record), id, this.#sandboxes.get(before.sandboxId)?.view);
    if (entry.record.exit !== undefined) this.#wakeExitWaiters(id);
    return entry;
  }

  deleteContainer(id: string): void {
    const entry = this.#containers.get(id);
    if (entry === undefined) return;
    this.#tables.containers.delete(id);
    this.#containers.delete(id);
    this.#sandboxes.get(entry.record.sandboxId)?.containers.delete(id);
    this.names.release(containerName(entry.record.sandboxId, entry.record.config.metadata), id);
    this.#tell(containerChanges(entry.record, undefined), id, this.#sandboxes.get(entry.record.sandboxId)?.view);
    this.#wakeExitWaiters(id);
  }

  container(idOrPrefix: string): ContainerEntry {
    const entry = this.findContainer(idOrPrefix);
    if (entry === undefined) throw notFound('container', idOrPrefix);
    return entry;
  }

  findContainer(idOrPrefix: string): ContainerEntry | undefined {
    return findByPrefix(this.#containers, 'container', idOrPrefix);
  }

  containers(): Iterable<ContainerEntry> {
    return this.#containers.values();
  }

  containersOf(sandboxId: string): ContainerEntry[] {
    const ids = this.#sandboxes.get(sandboxId)?.containers ?? new Set<string>();
    return [...ids].flatMap((id) => this.#containers.get(id) ?? []);
  }

  #container(id: string): MutableContainerEntry {
    const entry = this.#containers.get(id);
    if (entry === undefined) throw notFound('container', id);
    return entry;
  }

  // ----------------------------------------------------------------------------------------------------- exits

  /** True when the container has exited (or is gone) within `ms` milliseconds. */
  async waitForExit(id: string, ms: number, signal?: AbortSignal): Promise<boolean> {
    const ended = (): boolean => {
      const entry = this.#containers.get(id);
      return entry === undefined || entry.record.exit !== undefined;
    };
    if (ended()) return true;
    const waiters = this.#exitWaiters.get(id) ?? new Set();
    this.#exitWaiters.set(id, waiters);
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        waiters.delete(done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal?.addEventListener('abort', done, { once: true });
      waiters.add(done);
      if (signal?.aborted === true) done();
    });
    return ended();
  }

  #wakeExitWaiters(id: string): void {
    for (const wake of [...(this.#exitWaiters.get(id) ?? [])]) wake();
    this.#exitWaiters.delete(id);
  }
}

/** The maps a pod has are told, whoever chose them. */
function effectiveConfig({ config, mappings }: SandboxRecord): PodSandboxConfig {
  if (mappings === undefined) return config;
  const { security } = config;
  const namespaces = { ...security.namespaces, userns: { mode: 'pod' as const, ...mappings } };
  return { ...config, security: { ...security, namespaces } };
}

/** READY while its namespaces and shim serve; everything else is NOTREADY. */
export const sandboxView = (record: SandboxRecord): SandboxView => ({
  id: record.id,
  config: effectiveConfig(record),
  runtimeHandler: record.runtimeHandler,
  state: record.stage === 'ready' ? 'ready' : 'not-ready',
  createdAt: record.createdAt,
  ips: record.ips,
});

export function containerState(record: Pick<ContainerRecord, 'stage' | 'exit'>): ContainerState {
  if (record.exit !== undefined) return 'exited';
  return record.stage === 'started' ? 'running' : 'created';
}

export const containerView = (record: ContainerRecord): ContainerView => ({
  id: record.id,
  sandboxId: record.sandboxId,
  config: record.config,
  imageId: record.imageId,
  imageName: record.imageName,
  state: containerState(record),
  createdAt: record.createdAt,
  startedAt: record.startedAt,
  ...(record.exit === undefined ? {} : { exit: record.exit }),
  logPath: record.logPath,
  mounts: record.mounts,
  resources: record.resources,
  user: record.user,
  stopSignal: record.stopSignal,
});

export const exitReason = (code: number, oomKilled: boolean): ExitRecord['reason'] =>
  oomKilled ? 'OOMKilled' : code === 0 ? 'Completed' : 'Error';

/** By id or by a prefix of it that only one object has. */
function findByPrefix<T>(objects: ReadonlyMap<string, T>, what: string, idOrPrefix: string): T | undefined {
  const exact = objects.get(idOrPrefix);
  if (exact !== undefined || idOrPrefix === '') return exact;
  const matches = [...objects.keys()].filter((id) => id.startsWith(idOrPrefix));
  if (matches.length > 1) {
    throw new RuntimeError('invalid-argument', `${what} id "${idOrPrefix}" is ambiguous: ${matches.length} match`);
  }
  return matches[0] === undefined ? undefined : objects.get(matches[0]);
}
