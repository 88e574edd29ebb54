import { join } from 'node:path';
import { silentObserver } from '../../src/kit/observer.js';
import { openImages } from '../../src/runtime/images/images.js';
import type { ImageRecord } from '../../src/runtime/images/store.js';
import { openOverlaySnapshotter } from '../../src/runtime/snapshots/overlay.js';
import { openStore } from '../../src/runtime/state/store.js';
import { unpackHelper } from './image-store.js';

/** An image service over the durable metadata store, as the agent opens it. */
export async function openDurableImages(dir: string) {
  const store = openStore({
    path: join(dir, 'meta'),
    quickPath: join(dir, 'meta-quick'),
    onQuarantine: () => undefined,
    onCopyFailed: () => undefined,
  });
  const snapshotter = await openOverlaySnapshotter({ root: join(dir, 'snapshots'), observer: silentObserver });
  const images = await openImages({
    root: dir,
    maxConcurrentDownloads: 3,
    pinned: [],
    tables: { images: store.table<ImageRecord>('images', 1), transaction: (work) => store.transaction(work) },
    snapshotter,
    unpackHelper,
    getXattr: () => undefined,
    observer: silentObserver,
  });
  return { store, snapshotter, images };
}
