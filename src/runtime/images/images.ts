import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Call } from '../../kit/call.js';
import { messageOf } from '../../kit/errors.js';
import type { Observer } from '../../kit/observer.js';
import { SharedWork } from '../../kit/shared-work.js';
import type { Image, RegistryAuth, StringMap } from '../model.js';
import type { Snapshotter } from '../snapshots/snapshotter.js';
import { openContentStore, type ContentStore } from './content.js';
import { createDownloads, downloadDefaults } from './download.js';
import { Gate } from './gate.js';
import { importImages, type ImportOptions } from './import.js';
import { createLayers } from './layers.js';
import { createLeases, type Leases } from './leases.js';
import { normalPlatform, type Platform } from './manifest.js';
import type { OnProgress, PullProgress } from './progress.js';
import { pullImage } from './pull.js';
import { formatReference, parseReference } from './reference.js';
import { createRegistry } from './registry.js';
import { findRootPath, readRootFile } from './root-file.js';
import { openImageStore, type ImageStore, type MetadataStore } from './store.js';
import { createUnpacker } from './unpack.js';

export interface ImagesOptions {
  /** Directory of the content store (`<root>/content`); made when missing. */
  readonly root: string;
  /** Directory of hosts.toml files, one directory per host; absent: every registry is reached directly. */
  readonly certsDir?: string;
  /** Default: this machine's. */
  readonly platform?: Platform;
  /** Layers downloaded at a time, over all pulls. */
  readonly maxConcurrentDownloads: number;
  /** Layers unpacked at a time, over all pulls. */
  readonly maxConcurrentUnpacks?: number;
  /** Globs over names; matching images say they are pinned. */
  readonly pinned: readonly string[];
  readonly tables: MetadataStore;
  readonly snapshotter: Snapshotter;
  /** Path of the berth-unpack executable. */
  readonly unpackHelper: string;
  /** Reads an extended attribute of a path without following links; undefined when there is none. */
  readonly getXattr: (path: string, name: string) => Uint8Array | undefined;
  /** Marks opaque directories with user.overlay.*, for mounts inside a user namespace. */
  readonly userXattrs?: boolean;
  /** Milliseconds a registry may take to accept a connection, where hosts.toml does not say; default 30 000. */
  readonly connectTimeoutMs?: number;
  /** Milliseconds of silence after which a download is tried again; default 30 000. */
  readonly stallTimeoutMs?: number;
  /** Bytes one layer may unpack to; default 256 GiB. */
  readonly maxLayerBytes?: number;
  readonly observer: Observer;
}

/** The image service: what is here, and how it comes and goes. Reads are served from memory. */
export interface Images {
  /**
   * Brings an image here, or finds that it is. Requests for the same reference with the same credentials share one
   * pull. Errors: invalid-argument, not-found, unauthenticated, unavailable, corrupt, unimplemented, exhausted,
   * cancelled.
   */
  pull(
    reference: string,
    auth: RegistryAuth | undefined,
    annotations: StringMap,
    call: Call,
    onProgress?: OnProgress,
  ): Promise<Image>;
  /** From an OCI layout (directory or archive) or a docker-save archive. Errors: as `pull`, without the registry's. */
  import(path: string, options: ImportOptions, call: Call, onProgress?: OnProgress): Promise<Image[]>;
  /** By tag, digest reference, id, or a unique prefix of one (at least 4 digits). */
  resolve(refOrId: string): Image | undefined;
  list(): readonly Image[];
  /** Removes all names of the image and frees what nothing else holds. A missing image is success. */
  remove(refOrId: string, call: Call): Promise<void>;
  /** Keeps an image's layers until `unhold`, which frees those of one removed meanwhile. Both may be repeated. */
  hold(imageId: string, holder: string): void;
  unhold(imageId: string, holder: string): void;
  /** Content, layers, and layers remapped for user namespaces; from memory. */
  fsInfo(): Promise<{ readonly mountpoint: string; readonly usedBytes: number; readonly inodesUsed: number }>;
  /** A regular file of the merged layers, nothing mounted. Errors: exhausted when larger than `maxBytes` or 10 MiB. */
  rootFile(image: Image, path: string, maxBytes: number): Promise<Buffer | undefined>;
  /** What a path of the merged layers leads to, links followed inside the image; undefined when that is neither. */
  rootEntry(image: Image, path: string): Promise<'directory' | 'file' | undefined>;
  /** Aborts what is under way and waits for its end. */
  close(): Promise<void>;
}

const maxRootFile = 10 << 20;

export async function openImages(options: ImagesOptions): Promise<Images> {
  const { snapshotter, observer } = options;
  const content = await openContentStore(join(options.root, 'content'));
  const store = openImageStore(options.tables, options.pinned);
  const leases = createLeases();
  const silenceMs = options.stallTimeoutMs ?? 30_000;
  const registry = createRegistry({
    ...(options.certsDir !== undefined && { certsDir: options.certsDir }),
    timeouts: { silenceMs, connectMs: options.connectTimeoutMs ?? 30_000 },
  });
  const unpacker = createUnpacker({
    helper: options.unpackHelper,
    maxWorkers: options.maxConcurrentUnpacks ?? 3,
    maxLayerBytes: options.maxLayerBytes ?? 256 * 2 ** 30,
    userXattrs: options.userXattrs ?? false,
  });
  const gate = new Gate(options.maxConcurrentDownloads);
  const downloads = createDownloads({ content, gate, ...downloadDefaults, windowMs: silenceMs });
  const layers = createLayers({ content, snapshotter, downloads, unpacker });
  const platform = normalPlatform(options.platform ?? { os: 'linux', architecture: machine() });
  const deps = { registry, content, downloads, layers, store, leases, platform };
  const pulls = new SharedWork<PullProgress, Image>();
  const imports = new SharedWork<PullProgress, Image[]>();
  const holds = createHolds(store);
  const closing = new AbortController();

  const collect = (): void => collectGarbage(content, snapshotter, store, leases, holds);
  /* For other tools only: an image does not fail for it. */
  const publish = async (): Promise<void> => {
    await content.writeIndex(layoutIndex(store)).catch((error: unknown) => {
      observer.note('warn', `write index.json of the content store: ${messageOf(error)}`);
    });
  };
  const opaque = options.userXattrs === true ? 'user.overlay.opaque' : 'trusted.overlay.opaque';
  const isOpaque = (dir: string): boolean => options.getXattr(dir, opaque)?.[0] === 0x79;
  const signalOf = (call: Call): AbortSignal => AbortSignal.any([call.signal, closing.signal]);
  dropIncomplete(store, snapshotter, observer);
  collect();
  await publish();

  return {
    async pull(reference, auth, annotations, call, onProgress = () => undefined) {
      const key = `${formatReference(parseReference(reference))} ${fingerprint([auth, annotations])}`;
      return await pulls.join(key, signalOf(call), onProgress, async (signal, report) => {
        const image = await pullImage({ reference, auth, annotations }, deps, { ...call, signal }, report);
        await publish();
        return image;
      });
    },
    async import(path, importOptions, call, onProgress = () => undefined) {
      const key = fingerprint([path, importOptions, performance.now()]);
      return await imports.join(key, signalOf(call), onProgress, async (signal, report) => {
        const images = await importImages(path, importOptions, deps, { ...call, signal }, report);
        await publish();
        collect();
        return images;
      });
    },
    resolve: (refOrId) => store.resolve(refOrId),
    list: () => store.list(),
    async remove(refOrId, call) {
      const image = store.resolve(refOrId);
      if (image === undefined) return;
      await call.observer.step('delete image record', () => store.delete(image.id));
      await publish();
      await call.observer.step('free content and layers', collect);
    },
    hold: holds.hold,
    unhold(imageId, holder) {
      holds.unhold(imageId, holder);
      if (store.resolve(imageId) === undefined) collect();
    },
    async fsInfo() {
      const all = [...snapshotter.layers(), ...snapshotter.remaps()];
      return {
        mountpoint: options.root,
        usedBytes: content.usedBytes() + all.reduce((sum, layer) => sum + layer.bytes, 0),
        inodesUsed: content.digests().length + all.reduce((sum, layer) => sum + layer.inodes, 0),
      };
    },
    async rootFile(image, path, maxBytes) {
      const lowerDirs = snapshotter.lowerDirs(image.chainId);
      return await readRootFile(lowerDirs, path, Math.min(maxBytes, maxRootFile), isOpaque);
    },
    async rootEntry(image, path) {
      const found = await findRootPath(snapshotter.lowerDirs(image.chainId), path, isOpaque);
      return found?.kind === 'link' ? undefined : found?.kind;
    },
    async close() {
      closing.abort();
      for (const work of [pulls, imports, layers, downloads]) await work.settled();
      await unpacker.close();
      await registry.close();
    },
  };
}

const machine = (): string => (process.arch === 'x64' ? 'amd64' : process.arch);

/** Credentials are part of what makes two requests the same, without being kept. */
const fingerprint = (value: unknown): string =>
  createHash('sha256')
    .update(JSON.stringify(value) ?? '')
    .digest('hex');

/** A record whose layers are gone (a power failure, a deleted directory) is no image: the next pull makes it one. */
function dropIncomplete(store: ImageStore, snapshotter: Snapshotter, observer: Observer): void {
  for (const { id, chainId } of store.records()) {
    if (chainId === '' || snapshotter.layer(chainId) !== undefined) continue;
    observer.note('warn', `image ${id} has lost its layers and is forgotten`);
    store.delete(id);
  }
}

interface Holds {
  hold(imageId: string, holder: string): void;
  unhold(imageId: string, holder: string): void;
  chains(): Iterable<string>;
}

function createHolds(store: ImageStore): Holds {
  const chains = new Map<string, string>();
  return {
    hold: (imageId, holder) => void chains.set(`${imageId} ${holder}`, store.image(imageId).chainId),
    unhold: (imageId, holder) => void chains.delete(`${imageId} ${holder}`),
    chains: () => chains.values(),
  };
}

/**
 * Frees blobs and layers that no image, pull, import, snapshot or holder needs. In one go, so that nothing can come to
 * need what was just found unneeded.
 */
function collectGarbage(
  content: ContentStore,
  snapshotter: Snapshotter,
  store: ImageStore,
  leases: Leases,
  holds: Holds,
): void {
  const records = store.records();
  snapshotter.releaseLayers([...records.map((record) => record.chainId), ...leases.chains(), ...holds.chains()]);
  const needed = new Set([...records.flatMap((record) => record.blobs), ...leases.blobs()]);
  for (const digest of content.digests()) if (!needed.has(digest)) content.remove(digest);
}

function layoutIndex(store: ImageStore): Parameters<ContentStore['writeIndex']>[0] {
  return store.records().flatMap(({ tags, manifest }) =>
    tags.map((tag) => ({
      ...manifest,
      annotations: { 'io.containerd.image.name': tag, 'org.opencontainers.image.ref.name': tag },
    })),
  );
}
