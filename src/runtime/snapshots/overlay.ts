import { createHash } from 'node:crypto';
import { chmod, chown, mkdir, readdir, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { notFound, RuntimeError } from '../../kit/errors.js';
import { KeyedLock } from '../../kit/keyed-lock.js';
import type { Observer } from '../../kit/observer.js';
import type { IdMapping } from '../model.js';
import { openLayerStore, type LayerStore } from './layer-store.js';
import type { IdMappings, PrepareOptions, Snapshot, Snapshotter } from './snapshotter.js';
import { mountsBelow } from './tree.js';
import { usageCache } from './usage.js';
import { openWorkshop, readRecord, type Workshop } from './workshop.js';

/**
 * The snapshotter over overlayfs. On disk, below its root:
 *
 * | path | what |
 * |---|---|
 * | `layers/` | the layers; see `layer-store.ts` |
 * | `active/ID/fs`, `…/work`, `…/snapshot.json` | a snapshot; ID is the hash of its key |
 * | `tmp/` | stages, and what is being deleted; purged at start |
 * | `empty` | the lower directory of a stack of nothing |
 */
export interface OverlayOptions {
  /** Made when missing, 0700. */
  readonly root: string;
  /** Flushes the file system of a descriptor; without it layers do not outlive a power failure for certain. */
  readonly syncFs?: (fd: number) => Promise<void>;
  readonly observer: Observer;
}

interface SnapshotRecord {
  readonly version: 1;
  readonly key: string;
  readonly chainId: string;
  readonly idmapLower: boolean;
}

interface State {
  /** Directory of the snapshots. */
  readonly active: string;
  readonly empty: string;
  readonly workshop: Workshop;
  readonly layers: LayerStore;
  readonly records: Map<string, SnapshotRecord>;
}

/** Opens the store, purges what a crash left, and reads what is there. Unreadable entries are removed with a note. */
export async function openOverlaySnapshotter(options: OverlayOptions): Promise<Snapshotter> {
  const { root, observer, syncFs } = options;
  await mkdir(root, { recursive: true, mode: 0o700 });
  const workshop = await openWorkshop(join(root, 'tmp'), observer);
  const layers = await openLayerStore({ dir: join(root, 'layers'), workshop, observer, syncFs });
  const state: State = {
    active: join(root, 'active'),
    empty: join(root, 'empty'),
    workshop,
    layers,
    records: new Map(),
  };
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
    releaseLayers: (keep) => layers.release([...keep, ...[...state.records.values()].map((record) => record.chainId)]),
    prepare: async (key, wanted) => await prepare(state, key, wanted),
    snapshot(key) {
      const record = state.records.get(key);
      return record === undefined ? undefined : describe(state, record);
    },
    list: () => [...state.records.values()].map((record) => describe(state, record)),
    async remove(key) {
      await locks.hold(key, async () => await remove(state, key));
      usage.forget(key);
    },
    async usage(key) {
      if (!state.records.has(key)) throw notFound('snapshot', key);
      return await usage.of(key, join(snapshotDir(state, key), 'fs'));
    },
    async close() {
      await layers.flush();
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
  const isWhole = record !== undefined && snapshotId(record.key) === name && hasStack(state, record.chainId);
  if (isWhole) {
    state.records.set(record.key, record);
    return;
  }
  observer.note('warn', `snapshot ${record?.key ?? name} has no readable record or no layers and is removed`);
  await state.workshop.setAside(dir);
}

/** Layers may have been lost to a power failure, which ended the container too. */
function hasStack(state: State, chainId: string): boolean {
  try {
    return lowerDirs(state, chainId).length > 0;
  } catch {
    return false;
  }
}

function describe(state: State, record: SnapshotRecord): Snapshot {
  const dir = snapshotDir(state, record.key);
  return {
    key: record.key,
    chainId: record.chainId,
    lowerDirs: lowerDirs(state, record.chainId),
    upperDir: join(dir, 'fs'),
    workDir: join(dir, 'work'),
    idmapLower: record.idmapLower,
  };
}

async function prepare(state: State, key: string, wanted: PrepareOptions): Promise<Snapshot> {
  if (state.records.has(key)) throw new RuntimeError('already-exists', `snapshot "${key}" exists already`);
  const [topmost = state.empty] = lowerDirs(state, wanted.chainId);
  const { chainId, mappings } = wanted;
  const record: SnapshotRecord = { version: 1, key, chainId, idmapLower: mappings !== undefined };
  /* Known before the first await, so that the stack cannot be released under our feet. */
  state.records.set(key, record);
  const making = state.workshop.place('snapshot');
  try {
    await makeUpper(making, topmost, mappings);
    await writeFile(join(making, 'snapshot.json'), JSON.stringify(record), { mode: 0o600 });
    await rename(making, snapshotDir(state, key));
  } catch (error) {
    state.records.delete(key);
    state.workshop.deleteLater(making);
    throw error;
  }
  return describe(state, record);
}

async function remove(state: State, key: string): Promise<void> {
  const dir = snapshotDir(state, key);
  const [mounted] = await mountsBelow(dir);
  if (mounted !== undefined) {
    throw new RuntimeError('wrong-state', `remove snapshot "${key}": ${mounted} is still mounted`);
  }
  await state.workshop.setAside(dir);
  state.records.delete(key);
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
  if (mappings === undefined) return id;
  const line = mappings.find((each) => id >= each.containerId && id - each.containerId < each.size);
  if (line === undefined) throw new RuntimeError('invalid-argument', `id ${id} of the image's root is not mapped`);
  return line.hostId + (id - line.containerId);
}
