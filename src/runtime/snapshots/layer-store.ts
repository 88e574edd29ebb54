import { chmod, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, notFound } from '../../kit/errors.js';
import type { Observer } from '../../kit/observer.js';
import type { Flusher } from './flush.js';
import type { Layer, LayerStage } from './snapshotter.js';
import { openVault, type Vault, type VaultRecord } from './vault.js';
import type { Workshop } from './workshop.js';

/** Layers on disk: `ID/fs` and `ID/layer.json`, ID being the first half of the chain id's digest. */
export interface LayerStore {
  stage(): Promise<LayerStage>;
  layer(chainId: string): Layer | undefined;
  layers(): readonly Layer[];
  /** Topmost first. Errors: not-found. */
  stack(chainId: string): readonly Layer[];
  /** Takes away all but these and what they stand on. */
  release(keep: Iterable<string>): readonly Layer[];
}

export interface LayerStoreOptions {
  readonly dir: string;
  readonly workshop: Workshop;
  readonly flusher: Flusher | undefined;
  readonly observer: Observer;
}

type LayerRecord = Omit<Layer, 'dir'> & VaultRecord;

interface State extends LayerStoreOptions {
  readonly layers: Map<string, Layer>;
  readonly vault: Vault<LayerRecord>;
}

export async function openLayerStore(options: LayerStoreOptions): Promise<LayerStore> {
  const nameOf = ({ chainId }: LayerRecord): string => layerId(chainId);
  const vault = await openVault<LayerRecord>({ ...options, what: 'layer', nameOf });
  const loaded = await vault.load();
  const layers = new Map(loaded.map(({ record, dir }) => [record.chainId, layerOf(record, dir)]));
  const state: State = { ...options, layers, vault };
  return {
    stage: async () => await newStage(state),
    layer: (chainId) => layers.get(chainId),
    layers: () => [...layers.values()],
    stack: (chainId) => stackOf(layers, chainId),
    release: (keep) => release(state, keep),
  };
}

const layerId = (chainId: string): string => chainId.replace(/^sha256:/, '').slice(0, 32);

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
  const { workshop, observer, vault } = state;
  const stage = workshop.place('stage');
  const dir = join(stage, 'fs');
  await mkdir(dir, { recursive: true, mode: 0o700 });
  await chmod(dir, 0o755);
  return {
    dir,
    commit: async (layer) => await vault.hold(layerId(layer.chainId), async () => await commit(state, stage, layer)),
    async discard() {
      await workshop
        .setAside(stage)
        .catch((error: unknown) => observer.note('warn', `discard ${stage}: ${messageOf(error)}`));
    },
  };
}

async function commit({ layers, workshop, vault }: State, stage: string, given: Omit<Layer, 'dir'>): Promise<Layer> {
  const existing = layers.get(given.chainId);
  if (existing !== undefined) {
    await workshop.setAside(stage);
    return existing;
  }
  if (given.parent !== undefined) stackOf(layers, given.parent);
  const record: LayerRecord = { version: 1, ...given };
  const layer = layerOf(record, await vault.place(layerId(given.chainId), stage, record));
  layers.set(given.chainId, layer);
  return layer;
}

/** A pull may be committing the same chain anew. */
function release({ layers, vault }: State, keep: Iterable<string>): readonly Layer[] {
  const needed = new Set<string>();
  for (const chainId of keep) {
    for (let at = layers.get(chainId); at !== undefined && !needed.has(at.chainId);) {
      needed.add(at.chainId);
      at = at.parent === undefined ? undefined : layers.get(at.parent);
    }
  }
  const released = [...layers.values()].filter((layer) => !needed.has(layer.chainId));
  for (const { chainId } of released) {
    layers.delete(chainId);
    vault.drop(layerId(chainId), () => layers.has(chainId));
  }
  return released;
}
