import { chmod, mkdir, readdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, notFound } from '../../kit/errors.js';
import { KeyedLock } from '../../kit/keyed-lock.js';
import type { Observer } from '../../kit/observer.js';
import { bootId, createFlusher, isTrusted, type Flusher } from './flush.js';
import type { Layer, LayerStage } from './snapshotter.js';
import { readRecord, type Workshop } from './workshop.js';

/**
 * Layers on disk: `ID/fs` and `ID/layer.json`, ID being the first half of the chain id's digest. The directories are
 * the records: a rename makes and unmakes them, and no second book can disagree.
 */
export interface LayerStore {
  stage(): Promise<LayerStage>;
  layer(chainId: string): Layer | undefined;
  layers(): readonly Layer[];
  /** Topmost first. Errors: not-found. */
  stack(chainId: string): readonly Layer[];
  /** Takes away all but these and what they stand on. */
  release(keep: Iterable<string>): readonly Layer[];
  flush(): Promise<void>;
}

export interface LayerStoreOptions {
  readonly dir: string;
  readonly workshop: Workshop;
  readonly observer: Observer;
  readonly syncFs: ((fd: number) => Promise<void>) | undefined;
}

type LayerRecord = Omit<Layer, 'dir'> & { readonly version: 1; readonly bootId?: string };

interface State extends LayerStoreOptions {
  readonly layers: Map<string, Layer>;
  readonly locks: KeyedLock;
  readonly boot: string;
  readonly flusher: Flusher | undefined;
}

export async function openLayerStore(options: LayerStoreOptions): Promise<LayerStore> {
  const { dir, syncFs, observer } = options;
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const state: State = {
    ...options,
    layers: new Map(),
    locks: new KeyedLock(),
    boot: await bootId(),
    flusher: syncFs === undefined ? undefined : createFlusher(dir, syncFs, observer),
  };
  for (const name of await readdir(dir)) await loadLayer(state, name);
  return {
    stage: async () => await newStage(state),
    layer: (chainId) => state.layers.get(chainId),
    layers: () => [...state.layers.values()],
    stack: (chainId) => stackOf(state.layers, chainId),
    release: (keep) => release(state, keep),
    flush: async () => await state.flusher?.flush(),
  };
}

const layerId = (chainId: string): string => chainId.replace(/^sha256:/, '').slice(0, 32);

async function loadLayer(state: State, name: string): Promise<void> {
  const dir = join(state.dir, name);
  const record = await readRecord<LayerRecord>(join(dir, 'layer.json'));
  const why =
    record === undefined || layerId(record.chainId) !== name
      ? 'has no readable record'
      : state.flusher !== undefined && !(await isTrusted(dir, record.bootId, state.boot))
        ? 'was not on disk yet when the machine went down'
        : undefined;
  if (record !== undefined && why === undefined) {
    state.layers.set(record.chainId, layerOf(record, dir));
    return;
  }
  state.observer.note('warn', `layer ${name} ${why} and is removed`);
  await state.workshop.setAside(dir);
}

function layerOf(record: LayerRecord, dir: string): Layer {
  const { version: _version, bootId: _bootId, ...rest } = record;
  return { ...rest, dir: join(dir, 'fs') };
}

function stackOf(layers: ReadonlyMap<string, Layer>, chainId: string): readonly Layer[] {
  const stack: Layer[] = [];
  for (let at: string | undefined = chainId; at !== undefined; at = stack.at(-1)?.parent) {
    const layer = layers.get(at);
    if (layer === undefined) throw notFound('layer', at);
    stack.push(layer);
  }
  return stack;
}

async function newStage(state: State): Promise<LayerStage> {
  const { workshop, observer } = state;
  const stage = workshop.place('stage');
  const dir = join(stage, 'fs');
  await mkdir(dir, { recursive: true, mode: 0o700 });
  await chmod(dir, 0o755);
  return {
    dir,
    commit: async (layer) => await state.locks.hold(layer.chainId, async () => await commit(state, stage, layer)),
    async discard() {
      await workshop
        .setAside(stage)
        .catch((error: unknown) => observer.note('warn', `discard ${stage}: ${messageOf(error)}`));
    },
  };
}

async function commit(state: State, stage: string, given: Omit<Layer, 'dir'>): Promise<Layer> {
  const { layers, workshop, flusher, boot } = state;
  const existing = layers.get(given.chainId);
  if (existing !== undefined) {
    await workshop.setAside(stage);
    return existing;
  }
  if (given.parent !== undefined) stackOf(layers, given.parent);
  const record: LayerRecord = { version: 1, ...given, ...(flusher !== undefined && { bootId: boot }) };
  await writeFile(join(stage, 'layer.json'), JSON.stringify(record), { mode: 0o600 });
  const dir = join(state.dir, layerId(given.chainId));
  await workshop.setAside(dir); /* released a moment ago and not yet gone */
  await rename(stage, dir);
  flusher?.add(dir);
  const layer = layerOf(record, dir);
  layers.set(given.chainId, layer);
  return layer;
}

function release(state: State, keep: Iterable<string>): readonly Layer[] {
  const { layers } = state;
  const needed = new Set<string>();
  for (const chainId of keep) {
    for (let at = layers.get(chainId); at !== undefined && !needed.has(at.chainId);) {
      needed.add(at.chainId);
      at = at.parent === undefined ? undefined : layers.get(at.parent);
    }
  }
  const released = [...layers.values()].filter((layer) => !needed.has(layer.chainId));
  for (const layer of released) layers.delete(layer.chainId);
  state.workshop.track(renameAside(state, released));
  return released;
}

/** Under the layer's lock: a pull may be committing the same chain anew. */
async function renameAside(state: State, released: readonly Layer[]): Promise<void> {
  for (const { chainId } of released) {
    await state.locks
      .hold(chainId, async () => {
        if (!state.layers.has(chainId)) await state.workshop.setAside(join(state.dir, layerId(chainId)));
      })
      .catch((error: unknown) => state.observer.note('warn', `release layer ${chainId}: ${messageOf(error)}`));
  }
}
