import assert from 'node:assert/strict';
import { fstatSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLayers, type LayersDeps } from './layers.js';
import type { RegistrySession } from './registry.js';

describe('the layers of an image', () => {
  it('are unpacked although a small blob is whole before it was opened', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'berth-layers-'));
    const blob = join(dir, 'blob');
    writeFileSync(blob, 'layer');
    const [digest, diffId] = ['a', 'b'].map((digit) => `sha256:${digit.repeat(64)}`) as [string, string];
    let unpacked = 0;
    const deps = {
      content: { has: () => false, pathOf: () => blob },
      // The first word of the file that grew comes when it has got its name already.
      downloads: {
        fetch: (_blob: unknown, _session: unknown, _signal: unknown, grow: (growth: object) => void) =>
          Promise.resolve(grow({ path: join(dir, 'gone'), available: 5 })),
      },
      unpacker: {
        unpack({ fd }: { fd: number }) {
          unpacked = fstatSync(fd).ino;
          return Promise.resolve({ diffId, bytes: 0, inodes: 0, report: undefined, impliedRoot: false });
        },
      },
      snapshotter: {
        layer: () => undefined,
        stage: () => Promise.resolve({ dir, commit: () => Promise.resolve({}), discard: () => Promise.resolve() }),
      },
    } as unknown as LayersDeps;
    try {
      const image = { layers: [{ mediaType: '', digest, size: 5, annotations: {} }], diffIds: [diffId] };
      const session = {} as unknown as RegistrySession;
      await createLayers(deps).ensure(image, session, new AbortController().signal, () => undefined);
      assert.equal(unpacked, statSync(blob).ino);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
