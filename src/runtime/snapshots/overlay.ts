import { createHash, randomUUID } from 'node:crypto';
import { chmod, chown, mkdir, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno, messageOf, notFound, RuntimeError } from '../../kit/errors.js';
import { KeyedLock } from '../../kit/keyed-lock.js';
import type { Observer } from '../../kit/observer.js';
import type { IdMapping } from '../model.js';
import type { IdMappings, Layer, LayerStage, PrepareOptions, Snapshot, Snapshotter } from './snapshotter.js';
import { bootId, createFlusher, isTrusted } from './flush.js';
import { mountsBelow, removeTree } from './tree.js';
import { usageCache } from './usage.js';

/**
 * The snapshotter over overlayfs. On disk, below its root:
 *
 * | path | what |
 * |---|---|
 * | `layers/ID/fs`, `layers/ID/layer.json` | a layer; ID is the first half of its chain id's digest |
 * | `active/ID/fs`, `…/work`, `…/snapshot.json` | a snapshot; ID is the hash of its key |
 * | `tmp/` | stages, and what is being deleted; purged at start |
 * | `empty` | the lower directory of a stack of nothing |
 *
 * The directories themselves are the records: a rename makes and unmakes them, and no second book can disagree.
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

type LayerRecord = Omit<Layer, 'dir'> & { readonly version: 1; readonly bootId?: string };

/** Opens the store, purges what a crash left, and reads what is there. Unreadable entries are set aside with a note. */
export async function openOverlaySnapshotter(options: OverlayOptions): Promise<Snapshotter> {
  const paths = {
    layers: join(options.root, 'layers'),
    active: join(options.root, 'active'),
    tmp: join(options.root, 'tmp'),
    empty: join(options.root, 'empty'),
  };
  for (const dir of [options.root, ...Object.values(paths)]) await mkdir(dir, { recursive: true, mode: 0o700 });
  await chmod(paths.empty, 0o755);
  const layers = new Map<string, Layer>();
  const snapshots = new Map<string, SnapshotRecord>();
  const doomed = new Set<Promise<void>>();
  const locks = new KeyedLock();
  const usage = usageCache();
  const boot = await bootId();
  const flusher =
    options.syncFs === undefined ? undefined : createFlusher(options.root, options.syncFs, options.observer);

  const deleteLater = (path: string): void => {
    const work = removeTree(path)
      .catch((error: unknown) => options.observer.note('warn', `delete ${path}: ${messageOf(error)}`))
      .finally(() => doomed.delete(work));
    doomed.add(work);
  };
  const setAside = async (path: string): Promise<void> => {
    const aside = join(paths.tmp, `removed-${randomUUID()}`);
    await rename(path, aside).then(
      () => deleteLater(aside),
      (error: unknown) => {
        if (!isErrno(error, 'ENOENT')) throw error;
      },
    );
  };

  for (const name of await readdir(paths.tmp)) await purge(join(paths.tmp, name), options.observer);
  for (const name of await readdir(paths.layers)) {
    const dir = join(paths.layers, name);
    const record = await readRecord<LayerRecord>(join(dir, 'layer.json'));
    if (record === undefined || layerId(record.chainId) !== name) {
      options.observer.note('warn', `layer ${name} has no readable record and is removed`);
      await setAside(dir);
    } else if (flusher !== undefined && !(await isTrusted(dir, record.bootId, boot))) {
      options.observer.note('warn', `layer ${name} was not on disk yet when the machine went down and is removed`);
      await setAside(dir);
    } else layers.set(record.chainId, layerOf(record, join(dir, 'fs')));
  }
  for (const name of await readdir(paths.active)) {
    const record = await readRecord<SnapshotRecord>(join(paths.active, name, 'snapshot.json'));
    if (record === undefined || snapshotId(record.key) !== name) {
      options.observer.note('warn', `snapshot ${name} has no readable record and is removed`);
      await setAside(join(paths.active, name));
    } else snapshots.set(record.key, record);
  }

  const lowerDirs = (chainId: string): readonly string[] => {
    if (chainId === '') return [paths.empty];
    return stackOf(layers, chainId).map((layer) => layer.dir);
  };

  const describe = (record: SnapshotRecord): Snapshot => ({
    key: record.key,
    chainId: record.chainId,
    lowerDirs: lowerDirs(record.chainId),
    upperDir: join(paths.active, snapshotId(record.key), 'fs'),
    workDir: join(paths.active, snapshotId(record.key), 'work'),
    idmapLower: record.idmapLower,
  });

  const commit = async (stage: string, given: Omit<Layer, 'dir'>): Promise<Layer> =>
    await locks.hold(`layer ${given.chainId}`, async () => {
      const existing = layers.get(given.chainId);
      if (existing !== undefined) {
        await setAside(stage);
        return existing;
      }
      if (given.parent !== undefined) stackOf(layers, given.parent);
      const record: LayerRecord = { version: 1, ...given, ...(flusher !== undefined && { bootId: boot }) };
      await writeFile(join(stage, 'layer.json'), JSON.stringify(record), { mode: 0o600 });
      const dir = join(paths.layers, layerId(given.chainId));
      await setAside(dir); /* released a moment ago and not yet gone */
      await rename(stage, dir);
      flusher?.add(dir);
      const layer = layerOf(record, join(dir, 'fs'));
      layers.set(given.chainId, layer);
      return layer;
    });

  const newStage = async (): Promise<LayerStage> => {
    const stage = join(paths.tmp, `stage-${randomUUID()}`);
    await mkdir(join(stage, 'fs'), { recursive: true, mode: 0o700 });
    await chmod(join(stage, 'fs'), 0o755);
    return {
      dir: join(stage, 'fs'),
      commit: async (layer) => await commit(stage, layer),
      async discard() {
        await setAside(stage).catch((error: unknown) =>
          options.observer.note('warn', `discard ${stage}: ${messageOf(error)}`),
        );
      },
    };
  };

  const prepare = async (key: string, wanted: PrepareOptions): Promise<Snapshot> => {
    if (snapshots.has(key)) throw new RuntimeError('already-exists', `snapshot "${key}" exists already`);
    const [topmost = paths.empty] = lowerDirs(wanted.chainId);
    const record: SnapshotRecord = {
      version: 1,
      key,
      chainId: wanted.chainId,
      idmapLower: wanted.mappings !== undefined,
    };
    /* Recorded before the first await, so that the stack cannot be released under our feet. */
    snapshots.set(key, record);
    const making = join(paths.tmp, `snapshot-${randomUUID()}`);
    try {
      await makeUpper(making, topmost, wanted.mappings);
      await writeFile(join(making, 'snapshot.json'), JSON.stringify(record), { mode: 0o600 });
      await rename(making, join(paths.active, snapshotId(key)));
    } catch (error) {
      snapshots.delete(key);
      deleteLater(making);
      throw error;
    }
    return describe(record);
  };

  const remove = async (key: string): Promise<void> => {
    const dir = join(paths.active, snapshotId(key));
    const [mounted] = await mountsBelow(dir);
    if (mounted !== undefined) {
      throw new RuntimeError('wrong-state', `remove snapshot "${key}": ${mounted} is still mounted`);
    }
    await setAside(dir);
    snapshots.delete(key);
    usage.forget(key);
  };

  const releaseLayers = (keep: Iterable<string>): readonly Layer[] => {
    const needed = new Set<string>();
    const chains = [...keep, ...[...snapshots.values()].map((record) => record.chainId)];
    for (const chainId of chains) {
      for (let at = layers.get(chainId); at !== undefined && !needed.has(at.chainId);) {
        needed.add(at.chainId);
        at = at.parent === undefined ? undefined : layers.get(at.parent);
      }
    }
    const released = [...layers.values()].filter((layer) => !needed.has(layer.chainId));
    for (const layer of released) layers.delete(layer.chainId);
    const work = renameAside(released).finally(() => doomed.delete(work));
    doomed.add(work);
    return released;
  };

  /* Under the layer's lock: a pull may be committing the same chain anew. */
  const renameAside = async (released: readonly Layer[]): Promise<void> => {
    for (const { chainId } of released) {
      await locks
        .hold(`layer ${chainId}`, async () => {
          if (!layers.has(chainId)) await setAside(join(paths.layers, layerId(chainId)));
        })
        .catch((error: unknown) => options.observer.note('warn', `release layer ${chainId}: ${messageOf(error)}`));
    }
  };

  return {
    stage: newStage,
    layer: (chainId) => layers.get(chainId),
    layers: () => [...layers.values()],
    lowerDirs,
    releaseLayers,
    prepare,
    snapshot(key) {
      const record = snapshots.get(key);
      return record === undefined ? undefined : describe(record);
    },
    list: () => [...snapshots.values()].map(describe),
    remove: async (key) => await locks.hold(`snapshot ${key}`, async () => await remove(key)),
    async usage(key) {
      if (!snapshots.has(key)) throw notFound('snapshot', key);
      return await usage.of(key, join(paths.active, snapshotId(key), 'fs'));
    },
    async close() {
      await flusher?.flush();
      while (doomed.size > 0) await Promise.all(doomed);
    },
  };
}

const layerId = (chainId: string): string => chainId.replace(/^sha256:/, '').slice(0, 32);
const snapshotId = (key: string): string => createHash('sha256').update(key).digest('hex').slice(0, 32);

function layerOf(record: LayerRecord, dir: string): Layer {
  const { version: _version, bootId: _bootId, ...rest } = record;
  return { ...rest, dir };
}

function stackOf(layers: ReadonlyMap<string, Layer>, chainId: string): readonly Layer[] {
  const stack: Layer[] = [];
  for (let at: string | undefined = chainId; at !== undefined;) {
    const layer = layers.get(at);
    if (layer === undefined) throw notFound('layer', at);
    stack.push(layer);
    at = layer.parent;
  }
  return stack;
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

async function readRecord<T extends { readonly version: 1 }>(path: string): Promise<T | undefined> {
  try {
    const record = JSON.parse(await readFile(path, 'utf8')) as T;
    return record.version === 1 ? record : undefined;
  } catch {
    return undefined;
  }
}

async function purge(path: string, observer: Observer): Promise<void> {
  try {
    await removeTree(path);
  } catch (error) {
    observer.note('warn', `purge ${path}: ${messageOf(error)}`);
  }
}
