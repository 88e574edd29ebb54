import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openDurableImages } from '../support/durable-images.js';
import { buildUnpackHelper, testCall } from '../support/image-store.js';
import { startRegistry, type TestRegistry } from '../support/registry.js';
import type { TarEntry } from '../support/tar-builder.js';
import { testImageParts } from '../support/test-image.js';

const layer = (label: string): readonly TarEntry[] => [
  { path: `${label}/`, mode: 0o700 },
  ...Array.from({ length: 200 }, (_, i) => ({ path: `${label}/f${i}`, content: randomBytes(20_000) })),
];

describe('a pull that is killed', function () {
  this.timeout(120_000);
  const parts = testImageParts({ name: 'x', bare: true, layers: ['a', 'b', 'c', 'd'].map(layer) });
  let registry: TestRegistry;
  let root: string;
  before(async () => {
    buildUnpackHelper();
    registry = await startRegistry();
    await registry.push('some/thing', '1', parts);
  });
  after(async () => await registry.close());
  beforeEach(() => (root = mkdtempSync(join(tmpdir(), 'berth-crash-'))));
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  /** Starts a pull in a process of its own and kills it so many milliseconds after it has begun. */
  const pullAndKill = async (afterMs: number): Promise<void> => {
    const args = ['--import=tsx', 'test/support/pull-process.ts', root, `${registry.host}/some/thing:1`];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const gone = new Promise((resolve) => child.once('exit', resolve));
    await new Promise((resolve) => child.stdout.once('data', resolve));
    await sleep(afterMs);
    child.kill('SIGKILL');
    await gone;
  };

  /** Everything that is visible is whole: blobs by their digests, layers by their files. */
  const checkWhole = (): void => {
    const blobs = join(root, 'content/blobs/sha256');
    for (const name of readdirSync(blobs)) {
      assert.equal(
        createHash('sha256')
          .update(readFileSync(join(blobs, name)))
          .digest('hex'),
        name,
      );
    }
    assert.deepEqual(readdirSync(join(root, 'content/ingest')), []);
    assert.deepEqual(readdirSync(join(root, 'snapshots/tmp')), []);
    for (const id of readdirSync(join(root, 'snapshots/layers'))) {
      const fs = join(root, 'snapshots/layers', id, 'fs');
      for (const dir of readdirSync(fs)) {
        assert.equal(readdirSync(join(fs, dir)).length, 200);
        assert.equal(lstatSync(join(fs, dir)).mode & 0o777, 0o700);
        for (const file of readdirSync(join(fs, dir))) assert.equal(lstatSync(join(fs, dir, file)).size, 20_000);
      }
    }
  };

  it('leaves nothing half made, whenever it is', async () => {
    for (const afterMs of [0, 60, 150, 300, 500, 700, 900]) {
      await pullAndKill(afterMs);
      const { images, snapshotter, store } = await openDurableImages(root);
      await snapshotter.close();
      await images.close();
      await sleep(50);
      checkWhole();
      const [image] = images.list();
      if (image !== undefined) assert.equal(snapshotter.lowerDirs(image.chainId).length, 4);
      await store.close();
    }
    const { images, snapshotter, store } = await openDurableImages(root);
    const image = await images.pull(`${registry.host}/some/thing:1`, undefined, {}, testCall());
    assert.equal(snapshotter.lowerDirs(image.chainId).length, 4);
    checkWhole();
    await images.close();
    await snapshotter.close();
    await store.close();
  });
});
