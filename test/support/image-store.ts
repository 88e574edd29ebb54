import { execFileSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { silentObserver } from '../../src/kit/observer.js';
import type { Call } from '../../src/kit/call.js';
import { openNative } from '../../src/native/native.js';
import { openImages, type Images, type ImagesOptions } from '../../src/runtime/images/images.js';
import type { MetadataStore } from '../../src/runtime/images/store.js';
import { openOverlaySnapshotter } from '../../src/runtime/snapshots/overlay.js';
import type { Snapshotter } from '../../src/runtime/snapshots/snapshotter.js';
import { memoryMetadata } from './memory-table.js';

export const unpackHelper = resolve('build/unpack/berth-unpack');

/** Builds the helper when its sources are newer; needs a C compiler. */
export function buildUnpackHelper(): string {
  execFileSync('make', ['-s', '-C', 'src/native/unpack'], { stdio: ['ignore', 'ignore', 'inherit'] });
  return unpackHelper;
}

export const testCall = (signal: AbortSignal = new AbortController().signal): Call => ({
  signal,
  observer: silentObserver,
});

/** An image service and a snapshotter in a temporary place; `reopen` is a restart of the process. */
export interface TestImageStore {
  readonly root: string;
  readonly certsDir: string;
  readonly tables: MetadataStore;
  images: Images;
  snapshotter: Snapshotter;
  /** Writes hosts.toml of a registry host. */
  hosts(host: string, toml: string): void;
  reopen(): Promise<void>;
  close(): Promise<void>;
}

export async function openTestImageStore(options: Partial<ImagesOptions> = {}): Promise<TestImageStore> {
  const root = mkdtempSync(join(tmpdir(), 'berth-images-'));
  const certsDir = join(root, 'certs.d');
  const tables = memoryMetadata();
  buildUnpackHelper();
  const native = openNative();
  const open = async (): Promise<{ images: Images; snapshotter: Snapshotter }> => {
    const snapshotter = await openOverlaySnapshotter({ root: join(root, 'snapshots'), observer: silentObserver });
    const images = await openImages({
      root,
      certsDir,
      maxConcurrentDownloads: 3,
      pinned: [],
      tables,
      snapshotter,
      unpackHelper,
      getXattr: (path, name) => native.files.getXattr(path, name),
      observer: silentObserver,
      ...options,
    });
    return { images, snapshotter };
  };
  const store: TestImageStore = {
    root,
    certsDir,
    tables,
    ...(await open()),
    hosts(host, toml) {
      mkdirSync(join(certsDir, host), { recursive: true });
      writeFileSync(join(certsDir, host, 'hosts.toml'), toml);
    },
    async reopen() {
      await store.images.close();
      await store.snapshotter.close();
      Object.assign(store, await open());
    },
    async close() {
      await store.images.close();
      await store.snapshotter.close();
      rmSync(root, { recursive: true, force: true });
    },
  };
  return store;
}
