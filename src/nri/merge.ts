import {
  ContainerAdjustment,
  ContainerUpdate,
  Field,
  Hooks,
  LinuxContainer,
  LinuxContainerAdjustment,
  LinuxCpu,
  LinuxMemory,
  LinuxRdt,
  LinuxResources,
  type Container,
  type ContainerEviction,
} from '../../api/nri/v1alpha1/generated/api.js';
import { RuntimeError, invalid } from '../kit/errors.js';
import type { Owners } from './owners.js';

/**
 * Brings what several plugins want together: into one adjustment, and into the container as the next plugin is to see
 * it. Entries of lists and maps merge by key, where a '-' before the key takes away what the container or an earlier
 * plugin has.
 */
export interface Merged {
  readonly adjust: ContainerAdjustment;
  /** By container id; of other containers than the request's. */
  readonly updates: Map<string, ContainerUpdate>;
  readonly evictions: ContainerEviction[];
}

export const emptyMerge = (): Merged => ({
  adjust: ContainerAdjustment.fromPartial({ hooks: {}, linux: { resources: { memory: {}, cpu: {} } } }),
  updates: new Map(),
  evictions: [],
});

/** An entry of a field, by its key as it was given. */
type Entry<T> = readonly [string, T];

/** A field whose entries have owners of their own. */
interface KeyedField<T> {
  readonly field: Field;
  readonly read: (adjust: ContainerAdjustment) => readonly Entry<T>[];
  readonly write: (adjust: ContainerAdjustment, entries: readonly Entry<T>[]) => void;
  /** The container's own entries, for the next plugin; absent where a container does not show them. */
  readonly shown?: {
    readonly read: (container: Container) => readonly Entry<T>[];
    readonly write: (container: Container, entries: readonly Entry<T>[]) => void;
  };
}

const removed = (key: string): boolean => key.startsWith('-');
const bare = (key: string): string => (removed(key) ? key.slice(1) : key);
const linuxOf = (adjust: ContainerAdjustment): LinuxContainerAdjustment =>
  (adjust.linux ??= LinuxContainerAdjustment.create());
const resourcesOf = (adjust: ContainerAdjustment): LinuxResources =>
  (linuxOf(adjust).resources ??= LinuxResources.create());
const linuxShown = (container: Container): LinuxContainer => (container.linux ??= LinuxContainer.create());
const resourcesShown = (container: Container): LinuxResources =>
  (linuxShown(container).resources ??= LinuxResources.create());

const byKey = <T>(items: readonly T[], key: (item: T) => string): Entry<T>[] => items.map((item) => [key(item), item]);
const items = <T>(entries: readonly Entry<T>[]): T[] => entries.map(([, item]) => item);
const field = <T>(definition: KeyedField<T>): KeyedField<unknown> => definition as unknown as KeyedField<unknown>;

const keyedFields: readonly KeyedField<unknown>[] = [
  field({
    field: Field.ANNOTATIONS,
    read: (adjust) => Object.entries(adjust.annotations),
    write: (adjust, entries) => void (adjust.annotations = Object.fromEntries(entries)),
    shown: {
      read: (container) => Object.entries(container.annotations),
      write: (container, entries) => void (container.annotations = Object.fromEntries(entries)),
    },
  }),
  field({
    field: Field.MOUNTS,
    read: (adjust) => byKey(adjust.mounts, (mount) => mount.destination),
    write: (adjust, entries) => void (adjust.mounts = items(entries)),
    shown: {
      read: (container) => byKey(container.mounts, (mount) => mount.destination),
      write: (container, entries) => void (container.mounts = items(entries)),
    },
  }),
  field({
    field: Field.ENV,
    read: (adjust) => byKey(adjust.env, (variable) => variable.key),
    write: (adjust, entries) => void (adjust.env = items(entries)),
    shown: {
      read: (container) =>
        container.env.map((entry) => {
          const [key = '', ...value] = entry.split('=');
          return [key, { key, value: value.join('=') }];
        }),
      write: (container, entries) => void (container.env = items(entries).map(({ key, value }) => `${key}=${value}`)),
    },
  }),
  field({
    field: Field.DEVICES,
    read: (adjust) => byKey(adjust.linux?.devices ?? [], (device) => device.path),
    write: (adjust, entries) => void (linuxOf(adjust).devices = items(entries)),
    shown: {
      read: (container) => byKey(container.linux?.devices ?? [], (device) => device.path),
      write: (container, entries) => void (linuxShown(container).devices = items(entries)),
    },
  }),
  field({
    field: Field.NAMESPACE,
    read: (adjust) => byKey(adjust.linux?.namespaces ?? [], (namespace) => namespace.type),
    write: (adjust, entries) => void (linuxOf(adjust).namespaces = items(entries)),
    shown: {
      read: (container) => byKey(container.linux?.namespaces ?? [], (namespace) => namespace.type),
      write: (container, entries) => void (linuxShown(container).namespaces = items(entries)),
    },
  }),
  field({
    field: Field.SYSCTL,
    read: (adjust) => Object.entries(adjust.linux?.sysctl ?? {}),
    write: (adjust, entries) => void (linuxOf(adjust).sysctl = Object.fromEntries(entries)),
    shown: {
      read: (container) => Object.entries(container.linux?.sysctl ?? {}),
      write: (container, entries) => void (linuxShown(container).sysctl = Object.fromEntries(entries)),
    },
  }),
  field({
    field: Field.LINUX_NET_DEVICES,
    read: (adjust) => Object.entries(adjust.linux?.netDevices ?? {}),
    write: (adjust, entries) => void (linuxOf(adjust).netDevices = Object.fromEntries(entries)),
    shown: {
      read: (container) => Object.entries(container.linux?.netDevices ?? {}),
      write: (container, entries) => void (linuxShown(container).netDevices = Object.fromEntries(entries)),
    },
  }),
  field({
    field: Field.RLIMITS,
    read: (adjust) => byKey(adjust.rlimits, (limit) => limit.type),
    write: (adjust, entries) => void (adjust.rlimits = items(entries)),
    shown: {
      read: (container) => byKey(container.rlimits, (limit) => limit.type),
      write: (container, entries) => void (container.rlimits = items(entries)),
    },
  }),
  field({
    field: Field.CDI_DEVICES,
    read: (adjust) => byKey(adjust.cdiDevices, (device) => device.name),
    write: (adjust, entries) => void (adjust.cdiDevices = items(entries)),
  }),
];

/** A field that one plugin sets whole. */
interface WholeField {
  readonly field: Field;
  /** Takes the value over, if there is one, once `claim` has agreed. */
  readonly take: (from: ContainerAdjustment, to: ContainerAdjustment, shown: Container, claim: () => void) => void;
}

const linuxField = (
  of: Field,
  name: 'oomScoreAdj' | 'ioPriority' | 'seccompPolicy' | 'scheduler' | 'cgroupsPath',
): WholeField => ({
  field: of,
  take: (from, to, shown, claim) => {
    const value = from.linux?.[name];
    if (value === undefined || value === '') return;
    claim();
    Object.assign(linuxOf(to), { [name]: value });
    Object.assign(linuxShown(shown), { [name]: value });
  },
});

const wholeFields: readonly WholeField[] = [
  linuxField(Field.OOM_SCORE_ADJ, 'oomScoreAdj'),
  linuxField(Field.IO_PRIORITY, 'ioPriority'),
  linuxField(Field.SECCOMP_POLICY, 'seccompPolicy'),
  linuxField(Field.LINUX_SCHEDULER, 'scheduler'),
  linuxField(Field.CGROUPS_PATH, 'cgroupsPath'),
  {
    field: Field.MEMORY_POLICY,
    take: (from, to, _shown, claim) => {
      if (from.linux?.memoryPolicy === undefined) return;
      claim();
      linuxOf(to).memoryPolicy = from.linux.memoryPolicy;
    },
  },
];

/**
 * Adds what one plugin wants.
 *
 * @param shown the container as the next plugin is to see it; changed
 */
export function mergeAdjustment(
  from: ContainerAdjustment | undefined,
  plugin: string,
  to: ContainerAdjustment,
  shown: Container,
  owners: Owners,
): void {
  if (from === undefined) return;
  const { id } = shown;
  for (const each of keyedFields) mergeKeyed(each, from, plugin, to, shown, owners);
  for (const { field: of, take } of wholeFields) take(from, to, shown, () => owners.claim(id, of, plugin));
  mergeArgs(from.args, plugin, to, shown, owners);
  mergeHooks(from.hooks, plugin, to, shown, owners);
  mergeRdt(from.linux?.rdt, plugin, to, shown, owners);
  const resources = from.linux?.resources;
  if (resources === undefined) return;
  mergeResources(resources, resourcesOf(to), plugin, id, owners);
  overlayResources(resources, resourcesShown(shown));
}

function mergeKeyed(
  { field: of, read, write, shown }: KeyedField<unknown>,
  from: ContainerAdjustment,
  plugin: string,
  to: ContainerAdjustment,
  container: Container,
  owners: Owners,
): void {
  const wanted = read(from);
  if (wanted.length === 0) return;
  const clears = new Set(wanted.filter(([key]) => removed(key)).map(([key]) => bare(key)));
  const sets = wanted.filter(([key]) => !removed(key));
  for (const key of clears) owners.clear(container.id, of, plugin, key);
  for (const [key] of sets) owners.claim(container.id, of, plugin, key);
  const touched = new Set(wanted.map(([key]) => bare(key)));
  const setKeys = new Set(sets.map(([key]) => key));
  const others = (entries: readonly Entry<unknown>[]) => entries.filter(([key]) => !touched.has(bare(key)));
  write(to, [...others(read(to)), ...wanted.filter(([key]) => !removed(key) || !setKeys.has(bare(key)))]);
  shown?.write(container, [...others(shown.read(container)), ...sets]);
}

/** A first argument '' gives up what is there. */
function mergeArgs(
  args: readonly string[],
  plugin: string,
  to: ContainerAdjustment,
  shown: Container,
  owners: Owners,
): void {
  if (args.length === 0) return;
  if (args[0] === '') owners.clear(shown.id, Field.ARGS, plugin);
  owners.claim(shown.id, Field.ARGS, plugin);
  to.args = args[0] === '' ? args.slice(1) : [...args];
  shown.args = to.args;
}

/** Hooks add up. */
function mergeHooks(
  hooks: Hooks | undefined,
  plugin: string,
  to: ContainerAdjustment,
  shown: Container,
  owners: Owners,
): void {
  if (hooks === undefined || Object.values(hooks).every((list) => list.length === 0)) return;
  owners.join(shown.id, Field.OCI_HOOKS, plugin);
  for (const target of [(to.hooks ??= Hooks.create()), (shown.hooks ??= Hooks.create())])
    for (const stage of Object.keys(hooks) as (keyof Hooks)[]) target[stage] = [...target[stage], ...hooks[stage]];
}

const rdtFields = [
  ['closId', Field.RDT_CLOS_ID],
  ['schemata', Field.RDT_SCHEMATA],
  ['enableMonitoring', Field.RDT_ENABLE_MONITORING],
] as const;

function mergeRdt(
  rdt: LinuxRdt | undefined,
  plugin: string,
  to: ContainerAdjustment,
  shown: Container,
  owners: Owners,
): void {
  if (rdt === undefined) return;
  if (rdt.remove) for (const [, of] of rdtFields) owners.clear(shown.id, of, plugin);
  for (const [name, of] of rdtFields) if (rdt[name] !== undefined) owners.claim(shown.id, of, plugin);
  linuxOf(to).rdt = rdt.remove ? rdt : overlay(rdt, linuxOf(to).rdt ?? LinuxRdt.create());
  linuxShown(shown).rdt = linuxOf(to).rdt;
}

// --------------------------------------------------------------------------------------------------------- resources

const memoryFields: readonly (readonly [keyof LinuxMemory, Field])[] = [
  ['limit', Field.MEM_LIMIT],
  ['reservation', Field.MEM_RESERVATION],
  ['swap', Field.MEM_SWAP_LIMIT],
  ['kernel', Field.MEM_KERNEL_LIMIT],
  ['kernelTcp', Field.MEM_TCP_LIMIT],
  ['swappiness', Field.MEM_SWAPPINESS],
  ['disableOomKiller', Field.MEM_DISABLE_OOM_KILLER],
  ['useHierarchy', Field.MEM_USE_HIERARCHY],
];

const cpuFields: readonly (readonly [keyof LinuxCpu, Field])[] = [
  ['shares', Field.CPU_SHARES],
  ['quota', Field.CPU_QUOTA],
  ['period', Field.CPU_PERIOD],
  ['realtimeRuntime', Field.CPU_REALTIME_RUNTIME],
  ['realtimePeriod', Field.CPU_REALTIME_PERIOD],
  ['cpus', Field.CPUSET_CPUS],
  ['mems', Field.CPUSET_MEMS],
];

const otherFields: readonly (readonly [keyof LinuxResources, Field])[] = [
  ['blockioClass', Field.BLOCKIO_CLASS],
  ['rdtClass', Field.RDT_CLASS],
  ['pids', Field.PIDS_LIMIT],
];

/** Adds one plugin's resources for a container to those wanted for it already. */
export function mergeResources(
  from: LinuxResources,
  to: LinuxResources,
  plugin: string,
  containerId: string,
  owners: Owners,
): void {
  const claim = (of: Field, key?: string): void => owners.claim(containerId, of, plugin, key);
  for (const [name, of] of memoryFields) if (isGiven(from.memory?.[name])) claim(of);
  for (const [name, of] of cpuFields) if (isGiven(from.cpu?.[name])) claim(of);
  for (const [name, of] of otherFields) if (isGiven(from[name])) claim(of);
  for (const { pageSize } of from.hugepageLimits) claim(Field.HUGEPAGE_LIMITS, pageSize);
  for (const name of Object.keys(from.unified)) claim(Field.CGROUPS_UNIFIED, name);
  overlayResources(from, to);
}

const isGiven = (value: unknown): boolean => value !== undefined && value !== '';

/** What is given in `from` over what is in `to`. */
export function overlayResources(from: LinuxResources, to: LinuxResources): void {
  to.memory = overlay(from.memory ?? LinuxMemory.create(), to.memory ?? LinuxMemory.create());
  to.cpu = overlay(from.cpu ?? LinuxCpu.create(), to.cpu ?? LinuxCpu.create());
  const pages = new Map([...to.hugepageLimits, ...from.hugepageLimits].map((limit) => [limit.pageSize, limit]));
  to.hugepageLimits = [...pages.values()];
  to.unified = { ...to.unified, ...from.unified };
  to.devices = [...to.devices, ...from.devices];
  to.blockioClass = from.blockioClass ?? to.blockioClass;
  to.rdtClass = from.rdtClass ?? to.rdtClass;
  to.pids = from.pids ?? to.pids;
}

const overlay = <T extends object>(from: T, to: T): T => ({
  ...to,
  ...Object.fromEntries(Object.entries(from).filter(([, value]) => isGiven(value))),
});

/**
 * Adds one plugin's changes of existing containers.
 *
 * @param subject the container the request is about: being created, it cannot be updated as well
 */
export function mergeUpdates(
  updates: readonly ContainerUpdate[],
  plugin: string,
  merged: Merged,
  owners: Owners,
  subject = '',
): void {
  for (const update of updates) {
    const { containerId, ignoreFailure } = update;
    if (containerId === '') throw invalid('update.container_id', `plugin ${plugin} names no container`);
    if (containerId === subject)
      throw new RuntimeError('wrong-state', `plugin ${plugin} wants ${subject} updated while it is being created`);
    const before = merged.updates.get(containerId);
    const sum = before ?? ContainerUpdate.fromPartial({ containerId, linux: { resources: {} }, ignoreFailure: true });
    const resources = update.linux?.resources;
    try {
      if (resources !== undefined && sum.linux?.resources !== undefined)
        mergeResources(resources, sum.linux.resources, plugin, containerId, owners);
    } catch (error) {
      if (ignoreFailure) continue;
      throw error;
    }
    merged.updates.set(containerId, { ...sum, ignoreFailure: sum.ignoreFailure && ignoreFailure });
  }
}
