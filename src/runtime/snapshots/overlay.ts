import { createHash } from 'node:crypto';
import { chmod, chown, mkdir, readdir, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Call } from '../../kit/call.js';
import { notFound, RuntimeError } from '../../kit/errors.js';
import { KeyedLock } from '../../kit/keyed-lock.js';
import { silentObserver, type Observer } from '../../kit/observer.js';
import { toHost, type IdMappings } from '../idmap/mapping.js';
import type { IdMapping } from '../model.js';
import { createFlusher } from './flush.js';
import { createIdCheck, type CheckIds, type IdCheck } from './id-check.js';
import { openLayerStore, type LayerStore } from './layer-store.js';
import { openRemapStore, remapId, type MakeRemap, type RemapOrder, type RemapStore } from './remap-store.js';
import type { PrepareOptions, Snapshot, Snapshotter } from './snapshotter.js';
import { mountsBelow } from './tree.js';
import { usageCache } from './usage.js';
import { openWorkshop, readRecord, type Workshop } from './workshop.js';

/**
 * The snapshotter over overlayfs. On disk, below its root:
 *
 * | path | what |
 * |---|---|
 * | `layers/` | the layers; see `layer-store.ts` |
 * | `remaps/` | remapped layers; see `remap-store.ts` |
 * | `active/ID/fs`, `…/work`, `…/snapshot.json` | a snapshot; ID is the hash of its key |
 * | `tmp/` | stages, and what is being deleted; purged at start |
 * | `empty` | the lower directory of a stack of nothing |
 */
export interface OverlayOptions {
  /** Made when missing, 0700. */
  readonly root: string;
  /** Flushes the file system of a descriptor; without it layers do not outlive a power failure for certain. */
  readonly syncFs?: (fd: number) => Promise<void>;
  /** Makes a remapped layer; without it only the way `idmapped` is there. */
  readonly remap?: MakeRemap;
  /** Looks for ids that are not mapped; without it the way `idmapped` takes any. */
  readonly checkIds?: CheckIds;
  /** Remapped layers kept that no snapshot uses; default 0. */
  readonly keepRemaps?: number;
  readonly observer: Observer;
}

type SnapshotRecord = Pick<Snapshot, 'key' | 'chainId' | 'way' | 'remap'> & { readonly version: 1 };

interface State {
  /** Directory of the snapshots. */
  readonly active: string;
  readonly empty: string;
  readonly workshop: Workshop;
  readonly layers: LayerStore;
  readonly remaps: RemapStore;
  readonly idCheck: IdCheck;
  readonly records: Map<string, SnapshotRecord>;
}

/** Opens the store, purges what a crash left, and reads what is there. Unreadable entries are removed with a note. */
export async function openOverlaySnapshotter(options: OverlayOptions): Promise<Snapshotter> {
  const { root, observer, syncFs } = options;
  await mkdir(root, { recursive: true, mode: 0o700 });
  const workshop = await openWorkshop(join(root, 'tmp'), observer);
  const flusher = syncFs === undefined ? undefined : createFlusher(root, syncFs, observer);
  const records = new Map<string, SnapshotRecord>();
  const remaps = await openRemapStore({
    dir: join(root, 'remaps'),
    make: options.remap ?? noRemap,
    isUsed: (id) => [...records.values()].some(({ remap }) => remap?.id === id),
    keepUnused: options.keepRemaps ?? 0,
    workshop,
    flusher,
    observer,
  });
  const layers = await openLayerStore({ dir: join(root, 'layers'), workshop, flusher, observer });
  const idCheck = createIdCheck(options.checkIds ?? noCheck);
  const places = { active: join(root, 'active'), empty: join(root, 'empty') };
  const state: State = { ...places, workshop, layers, remaps, idCheck, records };
  await mkdir(state.active, { recursive: true, mode: 0o700 });
  await mkdir(state.empty, { recursive: true });
  await chmod(state.empty, 0o755);
  for (const name of await readdir(state.active)) await loadSnapshot(state, name, observer);
  const usage = usageCache();
  const locks = new KeyedLock();
  return {
    stage: layers.stage,
    layer: layers.layer,
    layers: layers.layers,
    lowerDirs: (chainId) => lowerDirs(state, chainId),
    releaseLayers(keep) {
      const kept = new Set(keep);
      remaps.release((chainId) => kept.has(chainId));
      return layers.release([...kept, ...[...records.values()].map(({ chainId }) => chainId)]);
    },
    prepare: async (key, wanted, call = { signal: new AbortController().signal, observer: silentObserver }) =>
      await prepare(state, key, wanted, call),
    snapshot(key) {
      const record = state.records.get(key);
      return record === undefined ? undefined : describe(state, record);
    },
    remaps: remaps.remaps,
    list: () => [...state.records.values()].map((record) => describe(state, record)),
    async remove(key) {
      await locks.hold(key, async () => await remove(state, key));
      usage.forget(key);
    },
    async usage(key) {
      if (!records.has(key)) throw notFound('snapshot', key);
      return await usage.of(key, join(snapshotDir(state, key), 'fs'));
    },
    async close() {
      await Promise.all([remaps.close(), idCheck.close()]);
      await flusher?.flush();
      await workshop.settled();
    },
  };
}

const snapshotId = (key: string): string => createHash('sha256').update(key).digest('hex').slice(0, 32);

const snapshotDir = (state: State, key: string): string => join(state.active, snapshotId(key));

function lowerDirs(state: State, chainId: string): readonly string[] {
  return chainId === '' ? [state.empty] : state.layers.stack(chainId).map((layer) => layer.dir);
}

async function loadSnapshot(state: State, name: string, observer: Observer): Promise<void> {
  const dir = join(state.active, name);
  const record = await readRecord<SnapshotRecord>(join(dir, 'snapshot.json'));
  const isWhole = record !== undefined && snapshotId(record.key) === name && hasStack(state, record);
  if (isWhole) {
    state.records.set(record.key, record);
    return;
  }
  observer.note('warn', `snapshot ${record?.key ?? name} has no readable record or no layers and is removed`);
  await state.workshop.setAside(dir);
}

/** Layers may have been lost to a power failure, which ended the container too. */
function hasStack(state: State, { chainId, remap }: SnapshotRecord): boolean {
  try {
    return lowerDirs(state, chainId).length > 0 && (remap === undefined || state.remaps.remap(remap.id) !== undefined);
  } catch {
    return false;
  }
}

function describe(state: State, record: SnapshotRecord): Snapshot {
  const { key, chainId, way, remap } = record;
  const dir = snapshotDir(state, key);
  return {
    key,
    chainId,
    lowerDirs: lowerDirsOf(state, record),
    upperDir: join(dir, 'fs'),
    workDir: join(dir, 'work'),
    way,
    ...(remap === undefined ? {} : { remap }),
  };
}

function lowerDirsOf(state: State, { chainId, way, remap }: SnapshotRecord): readonly string[] {
  const stack = lowerDirs(state, chainId);
  if (remap === undefined) return stack;
  const remapped = state.remaps.dirOf(remap.id);
  return way === 'metacopy' ? [remapped, ...stack] : [remapped];
}

async function prepare(state: State, key: string, wanted: PrepareOptions, call: Call): Promise<Snapshot> {
  const { records, workshop } = state;
  if (records.has(key)) throw new RuntimeError('already-exists', `snapshot "${key}" exists already`);
  const order = remapOrder(state, wanted);
  /* Known before the first await, so that neither stack nor remapped layer can be released under our feet. */
  let record = firstRecord(key, wanted, order);
  records.set(key, record);
  const making = workshop.place('snapshot');
  try {
    if (order !== undefined) {
      const origin = await call.observer.step('remap snapshot', () => state.remaps.ensure(order, call));
      record = { ...record, remap: { id: remapId(order), origin } };
      records.set(key, record);
    } else await checkIds(state, wanted, call);
    const [topmost = state.empty] = lowerDirsOf(state, record);
    await makeUpper(making, topmost, order === undefined ? wanted.mappings : undefined);
    await writeFile(join(making, 'snapshot.json'), JSON.stringify(record), { mode: 0o600 });
    await rename(making, snapshotDir(state, key));
  } catch (error) {
    records.delete(key);
    workshop.deleteLater(making);
    throw error;
  }
  call.observer.measure?.('snapshot', { way: record.way, remap: record.remap?.origin ?? 'none' });
  return describe(state, record);
}

/** Lower directories that overlayfs takes (OVL_MAX_STACK of fs/overlayfs). */
const maxLowerDirs = 500;

/** What has to be remapped, if anything has: a snapshot of nothing is just its upper directory. */
function remapOrder(state: State, { chainId, mappings, way = 'idmapped' }: PrepareOptions): RemapOrder | undefined {
  const stack = lowerDirs(state, chainId);
  const most = mappings !== undefined && way === 'metacopy' ? maxLowerDirs - 1 : maxLowerDirs;
  if (stack.length > most) {
    const by = most === maxLowerDirs ? 'overlayfs takes' : 'overlayfs takes below a remapped layer';
    throw new RuntimeError('invalid-argument', `the image has ${stack.length} layers, more than the ${most} ${by}`);
  }
  if (mappings === undefined || way === 'idmapped' || chainId === '') return undefined;
  return { way, chainId, mappings, lowerDirs: stack };
}

function firstRecord(key: string, wanted: PrepareOptions, order: RemapOrder | undefined): SnapshotRecord {
  const { chainId, mappings } = wanted;
  if (order !== undefined)
    return { version: 1, key, chainId, way: order.way, remap: { id: remapId(order), origin: 'joined' } };
  return { version: 1, key, chainId, way: mappings === undefined ? 'plain' : 'idmapped' };
}

async function checkIds({ idCheck, layers }: State, { chainId, mappings }: PrepareOptions, call: Call): Promise<void> {
  if (mappings === undefined || chainId === '') return;
  await idCheck.ensure({ chainId, mappings, layers: layers.stack(chainId) }, call);
}

const noCheck: CheckIds = () => Promise.resolve();

const noRemap: MakeRemap = () =>
  Promise.reject(new RuntimeError('unimplemented', 'this snapshotter makes no remapped layers'));

async function remove(state: State, key: string): Promise<void> {
  const dir = snapshotDir(state, key);
  const [mounted] = await mountsBelow(dir);
  if (mounted !== undefined) {
    throw new RuntimeError('wrong-state', `remove snapshot "${key}": ${mounted} is still mounted`);
  }
  await state.workshop.setAside(dir);
  const remap = state.records.get(key)?.remap;
  state.records.delete(key);
  if (remap !== undefined) state.remaps.unused(remap.id);
}

/** The upper directory stands for the root in the merged view: it takes mode and owner from the root below. */
async function makeUpper(dir: string, topmost: string, mappings: IdMappings | undefined): Promise<void> {
  const root = await stat(topmost);
  await mkdir(dir, { mode: 0o700 });
  await mkdir(join(dir, 'work'), { mode: 0o700 });
  const upper = join(dir, 'fs');
  await mkdir(upper, { mode: 0o700 });
  const uid = hostId(root.uid, mappings?.uids);
  const gid = hostId(root.gid, mappings?.gids);
  if (uid !== 0 || gid !== 0) await chown(upper, uid, gid);
  await chmod(upper, root.mode & 0o7777);
}

function hostId(id: number, mappings: readonly IdMapping[] | undefined): number {
  const found = mappings === undefined ? id : toHost(mappings, id);
  if (found === undefined) throw new RuntimeError('invalid-argument', `id ${id} of the image's root is not mapped`);
  return found;
}
