import { setMaxListeners } from 'node:events';
import { chmod, chown, open, stat, utimes, type FileHandle } from 'node:fs/promises';
import { isErrno, isKind, RuntimeError } from '../../kit/errors.js';
import { SharedWork } from '../../kit/shared-work.js';
import type { Layer, LayerStage, Snapshotter } from '../snapshots/snapshotter.js';
import type { ContentStore } from './content.js';
import type { Downloads, Growth } from './download.js';
import { chainIds, type Descriptor } from './manifest.js';
import type { PullProgress } from './progress.js';
import type { RegistrySession } from './registry.js';
import type { Unpacked, Unpacker } from './unpack.js';

/**
 * Brings the layers of an image onto disk. All of them are downloaded and unpacked at the same time, each alone in a
 * stage of its own and while its bytes still arrive; then, base first, each gets what it owes to the ones below
 * (metadata of directories it took for granted, hard links into them) and becomes a layer. One chain is under way
 * once, however many images and callers want it.
 */
export interface Layers {
  ensure(image: LayeredImage, session: RegistrySession | undefined, signal: AbortSignal, report: Report): Promise<void>;
  settled(): Promise<void>;
}

export interface LayeredImage {
  readonly layers: readonly Descriptor[];
  readonly diffIds: readonly string[];
}

export type Report = (progress: PullProgress) => void;

export interface LayersDeps {
  readonly content: ContentStore;
  readonly snapshotter: Snapshotter;
  readonly downloads: Downloads;
  readonly unpacker: Unpacker;
}

interface Work {
  readonly chainId: string;
  readonly parent: Work | undefined;
  readonly diffId: string;
  readonly blob: Descriptor;
  readonly session: RegistrySession | undefined;
}

export function createLayers(deps: LayersDeps): Layers {
  const shared = new SharedWork<PullProgress, Layer>();
  return {
    async ensure(image, session, signal, report) {
      const chains = chainIds(image.diffIds);
      /* One layer's failure ends the others' work: nobody else may be waiting for it. */
      const controller = new AbortController();
      const all = AbortSignal.any([signal, controller.signal]);
      setMaxListeners(0, all); // one listener for each layer
      let parent: Work | undefined;
      const underway = image.layers.map((blob, i) => {
        const work: Work = { chainId: chains[i] ?? '', parent, diffId: image.diffIds[i] ?? '', blob, session };
        parent = work;
        const layer = ensureOne(deps, shared, work, all, report);
        layer.catch((error: unknown) => controller.abort(error));
        return layer;
      });
      const outcomes = await Promise.allSettled(underway);
      throwFirst(outcomes, controller.signal);
    },
    settled: async () => await shared.settled(),
  };
}

/** The failure that came first in time is the cause; the others were only aborted by it. */
function throwFirst(outcomes: readonly PromiseSettledResult<unknown>[], failed: AbortSignal): void {
  if (outcomes.every((outcome) => outcome.status === 'fulfilled')) return;
  throw failed.reason;
}

async function ensureOne(
  deps: LayersDeps,
  shared: SharedWork<PullProgress, Layer>,
  work: Work,
  signal: AbortSignal,
  report: Report,
): Promise<Layer> {
  const { digest, size: total } = work.blob;
  const existing = deps.snapshotter.layer(work.chainId);
  if (existing !== undefined) {
    report({ digest, phase: 'exists', bytes: total, total });
    return existing;
  }
  return await shared.join(work.chainId, signal, report, async (inner, tell) => {
    tell({ digest, phase: 'waiting', bytes: 0, total });
    const wasHere = deps.content.has(digest);
    try {
      return await attempt(deps, shared, work, inner, tell);
    } catch (error) {
      if (inner.aborted || !mayRetry(deps, work, wasHere, error)) throw error;
      return await attempt(deps, shared, work, inner, tell);
    }
  });
}

/** One more time: from another endpoint, or from the registry when the copy we had is damaged (a power failure). */
function mayRetry(deps: LayersDeps, work: Work, wasHere: boolean, error: unknown): boolean {
  if (work.session === undefined) return false;
  if (!wasHere) return isKind(error, 'unavailable') && isKind(error.cause, 'corrupt');
  if (!isKind(error, 'corrupt')) return false;
  deps.content.remove(work.blob.digest);
  return true;
}

async function attempt(
  deps: LayersDeps,
  shared: SharedWork<PullProgress, Layer>,
  work: Work,
  signal: AbortSignal,
  report: Report,
): Promise<Layer> {
  const stage = await deps.snapshotter.stage();
  try {
    const layer = await buildLayer(deps, shared, work, stage, signal, report);
    report({ digest: work.blob.digest, phase: 'done', bytes: work.blob.size, total: work.blob.size });
    return layer;
  } catch (error) {
    await stage.discard();
    throw error;
  }
}

async function buildLayer(
  deps: LayersDeps,
  shared: SharedWork<PullProgress, Layer>,
  work: Work,
  stage: LayerStage,
  signal: AbortSignal,
  report: Report,
): Promise<Layer> {
  const unpacked = await fetchAndUnpack(deps, work, stage, signal, report);
  if (unpacked.diffId !== work.diffId) {
    throw new RuntimeError(
      'corrupt',
      `layer ${work.blob.digest} unpacks to ${unpacked.diffId}; the image's configuration says ${work.diffId}`,
    );
  }
  const { chainId, diffId } = work;
  /* In this work's own right: whoever started the layer below may have given it up. */
  if (work.parent !== undefined) await ensureOne(deps, shared, work.parent, signal, () => undefined);
  const parent = work.parent?.chainId;
  await settle(deps, parent, stage.dir, unpacked, signal);
  const { bytes, inodes, ids } = unpacked;
  return await stage.commit({ chainId, ...(parent !== undefined && { parent }), diffId, bytes, inodes, ids });
}

async function settle(
  deps: LayersDeps,
  parent: string | undefined,
  dir: string,
  unpacked: Unpacked,
  signal: AbortSignal,
): Promise<void> {
  const lowerDirs = parent === undefined ? [] : deps.snapshotter.lowerDirs(parent);
  const { report } = unpacked;
  if (report !== undefined) await deps.unpacker.settle(dir, lowerDirs, report, signal);
  const [below] = lowerDirs;
  if (!unpacked.impliedRoot || below === undefined) return;
  const root = await stat(below);
  await chown(dir, root.uid, root.gid);
  await chmod(dir, root.mode & 0o7777);
  await utimes(dir, root.atime, root.mtime);
}

async function fetchAndUnpack(
  deps: LayersDeps,
  work: Work,
  stage: LayerStage,
  signal: AbortSignal,
  report: Report,
): Promise<Unpacked> {
  const { digest, size } = work.blob;
  if (deps.content.has(digest)) {
    const whole = { path: deps.content.pathOf(digest), available: size };
    return await unpackGrowing(deps, work, stage, signal, report, (grow) => {
      grow(whole);
      return Promise.resolve();
    });
  }
  const { session } = work;
  if (session === undefined) throw new RuntimeError('corrupt', `layer ${digest} is missing`);
  return await unpackGrowing(
    deps,
    work,
    stage,
    signal,
    report,
    async (grow) => await deps.downloads.fetch(work.blob, session, signal, grow),
  );
}

/** Unpacks a file while `supply` makes it grow; both must succeed, and the failure of one ends the other. */
async function unpackGrowing(
  deps: LayersDeps,
  work: Work,
  stage: LayerStage,
  signal: AbortSignal,
  report: Report,
  supply: (grow: (growth: Growth) => void) => Promise<void>,
): Promise<Unpacked> {
  const { digest, size: total } = work.blob;
  const controller = new AbortController();
  const both = AbortSignal.any([signal, controller.signal]);
  const growth = createGrowth();
  const supplied = supply((now) => {
    growth.set(now);
    if (now.available < total) report({ digest, phase: 'downloading', bytes: now.available, total });
  }).then(() => growth.set({ path: deps.content.pathOf(digest), available: total }));
  supplied.catch((error: unknown) => controller.abort(error));
  const unpacked = (async (): Promise<Unpacked> => {
    const file = await openGrowing((await growth.first(both)).path, async () => {
      await supplied;
      return deps.content.pathOf(digest);
    });
    try {
      return await deps.unpacker.unpack(
        {
          fd: file.fd,
          size: total,
          dir: stage.dir,
          watch: growth.watch,
          onProgress: (bytes) => {
            if (growth.complete(total)) report({ digest, phase: 'unpacking', bytes, total });
          },
        },
        both,
      );
    } finally {
      await file.close();
    }
  })();
  const [supply_, unpack] = await Promise.allSettled([supplied, unpacked]);
  if (supply_.status === 'rejected') throw supply_.reason;
  if (unpack.status === 'rejected') throw unpack.reason;
  return unpack.value;
}

/** A small blob may be whole, and have its own name, before the file that grew is open. */
async function openGrowing(path: string, whole: () => Promise<string>): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    return await open(await whole(), 'r');
  }
}

interface GrowthState {
  set(now: Growth): void;
  watch(listener: (available: number) => void): void;
  first(signal: AbortSignal): Promise<Growth>;
  complete(total: number): boolean;
}

function createGrowth(): GrowthState {
  let last: Growth | undefined;
  let listener: ((available: number) => void) | undefined;
  let begin = (_: Growth): void => undefined;
  const begun = new Promise<Growth>((resolve) => (begin = resolve));
  return {
    set(now) {
      last = now;
      begin(now);
      listener?.(now.available);
    },
    watch(wanted) {
      listener = wanted;
      if (last !== undefined) wanted(last.available);
    },
    first: async (signal) =>
      await Promise.race([
        begun,
        new Promise<never>((_, reject) => {
          const fail = (): void => reject(signal.reason);
          if (signal.aborted) fail();
          else signal.addEventListener('abort', fail, { once: true });
        }),
      ]),
    complete: (total) => (last?.available ?? 0) >= total,
  };
}
