import type { Call } from '../../kit/call.js';
import type { FileIds, IdMappings } from '../idmap/mapping.js';

/**
 * A snapshotter keeps unpacked image layers, and a writable directory for each container on top of them.
 *
 * **Layers.** A layer is known by its chain id (OCI image-spec, "Layer ChainID"): it stands for the whole stack below
 * it. It is made in a stage, a private directory that nobody else sees, and becomes a layer by one rename:
 *
 * ```ts
 * const stage = await snapshotter.stage();
 * try {
 *   const { bytes, inodes } = await unpack(blob, stage.dir);
 *   await stage.commit({ chainId, parent, diffId, bytes, inodes });
 * } catch (error) {
 *   await stage.discard();
 *   throw error;
 * }
 * ```
 *
 * Stages may be filled at the same time and in any order; commits happen base first, since a layer's parent must be
 * there. A committed layer is never changed, and many stacks share it. `releaseLayers` takes away those that neither
 * the caller nor a snapshot needs.
 *
 * **Snapshots.** `prepare` gives a container its own upper directory on a stack. Nothing is mounted: the answer names
 * directories, and the launch plan makes the overlay of them inside the container's own mount namespace.
 *
 * ```ts
 * const snapshot = await snapshotter.prepare(containerId, { chainId: image.chainId });
 * overlay(snapshot.lowerDirs, snapshot.upperDir, snapshot.workDir);
 * await snapshotter.remove(containerId);
 * ```
 *
 * **Crashes.** Whatever instant the process dies at, the next start finds whole layers and whole snapshots, and purges
 * the rest.
 *
 * **Ids.** With mappings the upper directory belongs to the mapped root, and the files below get the pod's ids in one of
 * three ways. `idmapped`: the plan mounts the lower directories idmapped; nothing is made, whatever the mapping. For hosts
 * that cannot, a remapped layer is made once per stack and mapping, kept, and shared: `metacopy` lays one of owners and
 * modes alone over the stack, whose data it shows (overlay mount option metacopy=on); `copy` is a copy of everything, which
 * stands alone. A remapped layer goes with its stack.
 */
export interface Snapshotter {
  /** A private empty directory in which a layer comes to be. */
  stage(): Promise<LayerStage>;
  layer(chainId: string): Layer | undefined;
  layers(): readonly Layer[];
  /** Directories of a stack, topmost first; never empty. Errors: not-found when a layer of it is missing. */
  lowerDirs(chainId: string): readonly string[];
  /**
   * Takes away layers that are neither in `keep`, nor below one of them, nor under a snapshot. They are gone from every
   * answer when this returns; the disk is freed a little later.
   */
  releaseLayers(keep: Iterable<string>): readonly Layer[];

  /**
   * Errors: already-exists when `key` is taken, not-found when the stack is not there; invalid-argument naming the file
   * when one has an id that is not mapped, and for more layers than overlayfs takes. Making a remapped layer may take
   * long, reports its progress, and ends when the call is aborted; so does looking for files whose ids may be missing.
   */
  prepare(key: string, options: PrepareOptions, call?: Call): Promise<Snapshot>;
  snapshot(key: string): Snapshot | undefined;
  list(): readonly Snapshot[];
  /** A missing snapshot is no error. Errors: wrong-state when something is mounted inside. */
  remove(key: string): Promise<void>;
  /** The remapped layers kept. */
  remaps(): readonly Remap[];
  /** What a container has written; at most some seconds old. Errors: not-found. */
  usage(key: string): Promise<DiskUsage>;
  /** Ends remaps under way and waits for deletions. */
  close(): Promise<void>;
}

export interface DiskUsage {
  readonly bytes: number;
  readonly inodes: number;
}

export interface Layer extends DiskUsage {
  readonly chainId: string;
  /** Chain id of the layer below; absent for a base layer. */
  readonly parent?: string;
  readonly diffId: string;
  /** Host path of the layer's content. */
  readonly dir: string;
  /** Of the layer's own files; absent for a layer that an older version made. */
  readonly ids?: FileIds;
}

export interface LayerStage {
  /** Host path; exists, is empty and root's. */
  readonly dir: string;
  /** Makes the content a layer. A layer of that chain id that is there already wins, and the stage is discarded. */
  commit(layer: Omit<Layer, 'dir'>): Promise<Layer>;
  /** Never throws; safe after `commit`. */
  discard(): Promise<void>;
}

export interface PrepareOptions {
  /** '' prepares a snapshot of nothing. */
  readonly chainId: string;
  readonly mappings?: IdMappings;
  /** How the mappings get to the files; default `idmapped`. */
  readonly way?: RemapWay;
}

export type RemapWay = 'idmapped' | 'metacopy' | 'copy';

/** A layer of a whole stack's files as one mapping has them. */
export interface Remap extends DiskUsage {
  readonly id: string;
  readonly chainId: string;
  readonly way: Exclude<RemapWay, 'idmapped'>;
  /** Host path of its content. */
  readonly dir: string;
}

/** Whether a snapshot had to wait for its remapped layer to be made, by itself or with another one, or found it there. */
export type RemapOrigin = 'made' | 'joined' | 'cached';

export interface Snapshot {
  readonly key: string;
  readonly chainId: string;
  /** Topmost first. */
  readonly lowerDirs: readonly string[];
  readonly upperDir: string;
  readonly workDir: string;
  /**
   * How the files get their ids; `plain` without mappings. `idmapped`: mount the lower directories idmapped with the
   * mappings `prepare` was given. `metacopy`: mount the overlay with metacopy=on.
   */
  readonly way: 'plain' | RemapWay;
  /** The remapped layer it stands on. */
  readonly remap?: { readonly id: string; readonly origin: RemapOrigin };
}
