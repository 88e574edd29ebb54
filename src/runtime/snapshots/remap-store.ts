import { createHash } from 'node:crypto';
import { mkdir, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import type { Call } from '../../kit/call.js';
import type { Observer } from '../../kit/observer.js';
import { SharedWork } from '../../kit/shared-work.js';
import { keyOf, type IdMappings } from '../idmap/mapping.js';
import type { Flusher } from './flush.js';
import type { DiskUsage, Remap, RemapOrigin } from './snapshotter.js';
import { openVault, type Vault, type VaultRecord } from './vault.js';
import type { Workshop } from './workshop.js';

/**
 * The cache of remapped layers, for hosts that cannot mount layers idmapped. On disk: `ID/fs` and `ID/remap.json`, ID
 * being the hash of all that makes two of them equal.
 *
 * One is made by a program that walks the whole stack, so callers that want the same at once share one flight; the last
 * of them to leave ends the program. Every pod has ids of its own, and most of them never come again: of those that no
 * snapshot uses, only the ones used last are kept.
 */
export interface RemapStore {
  /** Errors: invalid-argument when a file's id is not mapped, cancelled, exhausted, internal. */
  ensure(order: RemapOrder, call: Call): Promise<RemapOrigin>;
  remap(id: string): Remap | undefined;
  remaps(): readonly Remap[];
  /** Where the remapped layer of that id is, or will be. */
  dirOf(id: string): string;
  /** Takes away what no snapshot uses, of images that `isKept` does not know; and what is too much. */
  release(isKept: (chainId: string) => boolean): void;
  /** A snapshot of it has gone: takes away what is too much. */
  unused(id: string): void;
  /** Ends what is under way and waits for its end. */
  close(): Promise<void>;
}

export interface RemapOrder {
  readonly way: Remap['way'];
  readonly chainId: string;
  readonly mappings: IdMappings;
  /** Of the whole stack, topmost first. */
  readonly lowerDirs: readonly string[];
}

export interface RemapProgress {
  readonly entries: number;
  readonly bytes: number;
}

/** Fills an empty directory. Rejects only when nothing writes there any more. */
export type MakeRemap = (
  order: RemapOrder,
  dir: string,
  signal: AbortSignal,
  report: (progress: RemapProgress) => void,
) => Promise<DiskUsage>;

export interface RemapStoreOptions {
  readonly dir: string;
  readonly make: MakeRemap;
  /** Whether a snapshot uses it. */
  readonly isUsed: (id: string) => boolean;
  readonly keepUnused: number;
  readonly workshop: Workshop;
  readonly flusher: Flusher | undefined;
  readonly observer: Observer;
}

interface RemapRecord extends VaultRecord, DiskUsage {
  readonly way: Remap['way'];
  readonly chainId: string;
  readonly uids: string;
  readonly gids: string;
}

interface State extends RemapStoreOptions {
  readonly all: Map<string, Remap>;
  /** When each was used last, in milliseconds since the epoch. */
  readonly used: Map<string, number>;
  readonly vault: Vault<RemapRecord>;
  readonly flights: SharedWork<RemapProgress, void>;
  readonly closing: AbortController;
}

export async function openRemapStore(options: RemapStoreOptions): Promise<RemapStore> {
  const vault = await openVault<RemapRecord>({ ...options, what: 'remap', nameOf: idOfRecord });
  const flights = new SharedWork<RemapProgress, void>();
  const state: State = { ...options, all: new Map(), used: new Map(), vault, flights, closing: new AbortController() };
  for (const { record, dir } of await vault.load()) {
    const id = idOfRecord(record);
    state.all.set(id, remapOf(id, record, dir));
    state.used.set(id, (await stat(join(dir, recordName))).mtimeMs);
  }
  return {
    ensure: async (order, call) => await ensure(state, order, call),
    remap: (id) => state.all.get(id),
    remaps: () => [...state.all.values()],
    dirOf: (id) => join(vault.pathOf(id), 'fs'),
    release(isKept) {
      for (const { id, chainId } of state.all.values()) {
        if (!isKept(chainId) && !state.isUsed(id)) drop(state, id);
      }
      trim(state);
    },
    unused(id) {
      touch(state, id);
      trim(state);
    },
    async close() {
      state.closing.abort();
      await flights.settled();
    },
  };
}

const recordName = 'remap.json';

/** Maps that say the same have one key, however their lines are ordered and split. */
export const remapId = ({ way, chainId, mappings }: Omit<RemapOrder, 'lowerDirs'>): string =>
  hash([way, chainId, keyOf(mappings.uids), keyOf(mappings.gids)]);

const idOfRecord = ({ way, chainId, uids, gids }: RemapRecord): string => hash([way, chainId, uids, gids]);

const hash = (parts: readonly string[]): string =>
  createHash('sha256').update(parts.join('\n')).digest('hex').slice(0, 32);

const remapOf = (id: string, { way, chainId, bytes, inodes }: RemapRecord, dir: string): Remap => ({
  id,
  way,
  chainId,
  bytes,
  inodes,
  dir: join(dir, 'fs'),
});

async function ensure(state: State, order: RemapOrder, { signal, observer }: Call): Promise<RemapOrigin> {
  const id = remapId(order);
  touch(state, id);
  if (state.all.has(id)) return 'cached';
  let origin: RemapOrigin = 'joined';
  const until = AbortSignal.any([signal, state.closing.signal]);
  const onProgress = ({ entries, bytes }: RemapProgress): void => observer.progress?.({ entries, bytes });
  await state.flights.join(id, until, onProgress, async (own, report) => {
    origin = 'made';
    const begin = performance.now();
    await make(state, id, order, own, report);
    observer.measure?.('remap', { way: order.way }, (performance.now() - begin) / 1000);
  });
  return origin;
}

async function make(
  state: State,
  id: string,
  order: RemapOrder,
  signal: AbortSignal,
  report: (progress: RemapProgress) => void,
): Promise<void> {
  const { all, workshop, vault } = state;
  const making = workshop.place('remap');
  const dir = join(making, 'fs');
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const usage = await state.make(order, dir, signal, report);
    const { way, chainId, mappings } = order;
    const maps = { uids: keyOf(mappings.uids), gids: keyOf(mappings.gids) };
    const record: RemapRecord = { version: 1, way, chainId, ...maps, ...usage };
    await vault.hold(id, async () => all.set(id, remapOf(id, record, await vault.place(id, making, record))));
  } catch (error) {
    state.used.delete(id);
    workshop.deleteLater(making);
    throw error;
  }
  trim(state);
}

function touch({ used, all, vault, workshop }: State, id: string): void {
  const now = Date.now();
  used.set(id, now);
  if (all.has(id)) workshop.track(utimes(join(vault.pathOf(id), recordName), now / 1000, now / 1000));
}

function trim(state: State): void {
  const lastUse = ({ id }: Remap): number => state.used.get(id) ?? 0;
  const unused = [...state.all.values()].filter(({ id }) => !state.isUsed(id));
  for (const { id } of unused.sort((a, b) => lastUse(b) - lastUse(a)).slice(state.keepUnused)) drop(state, id);
}

function drop({ all, used, vault }: State, id: string): void {
  all.delete(id);
  used.delete(id);
  vault.drop(id, () => all.has(id));
}
