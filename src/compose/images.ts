import { join } from 'node:path';
import type { Config } from '../config.js';
import type { Observer } from '../kit/observer.js';
import type { Native } from '../native/native.js';
import { openImages, type Images } from '../runtime/images/images.js';
import type { ImageRecord } from '../runtime/images/store.js';
import { openOverlaySnapshotter } from '../runtime/snapshots/overlay.js';
import { checkIdsBy, remapBy } from '../runtime/snapshots/remap-program.js';
import type { Snapshotter } from '../runtime/snapshots/snapshotter.js';
import { recordVersions } from '../runtime/state/records.js';
import type { Store } from '../runtime/state/store.js';
import { builtPrograms } from './programs.js';

/** Layers and snapshots on disk, and the images over them. */
export async function openImageParts(
  config: Config,
  store: Store,
  native: Native,
  observer: Observer,
  rootless: boolean,
): Promise<{ readonly images: Images; readonly snapshots: Snapshotter }> {
  const snapshots = await openOverlaySnapshotter({
    root: join(config.root, 'snapshots'),
    observer,
    syncFs: (fd) => native.files.syncFs(fd),
    remap: remapBy(builtPrograms().remap, rootless),
    checkIds: checkIdsBy(builtPrograms().remap, rootless),
    keepRemaps: config.userns.unusedRemaps,
  });
  const { certsDir, maxConcurrentDownloads, maxConcurrentUnpacks, connectTimeoutMs, stallTimeoutMs, pinned, platform } =
    config.images;
  const [os, architecture, variant] = platform.split('/');
  const images = await openImages({
    root: config.root,
    certsDir,
    maxConcurrentDownloads,
    maxConcurrentUnpacks,
    connectTimeoutMs,
    stallTimeoutMs,
    pinned,
    ...(os === undefined || architecture === undefined
      ? {}
      : { platform: { os, architecture, ...(variant === undefined ? {} : { variant }) } }),
    tables: {
      images: store.table<ImageRecord>('images', recordVersions.images),
      transaction: (work) => store.transaction(work),
    },
    snapshotter: snapshots,
    unpackHelper: builtPrograms().unpack,
    getXattr: (path, name) => native.files.getXattr(path, name),
    userXattrs: rootless,
    observer,
  });
  return { images, snapshots };
}
