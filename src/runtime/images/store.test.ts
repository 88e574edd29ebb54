import assert from 'node:assert/strict';
import { digestOf } from './manifest.js';
import { globPattern, openImageStore, type ImageRecord, type MetadataStore } from './store.js';

function memory(): MetadataStore & { readonly values: Map<string, ImageRecord> } {
  const values = new Map<string, ImageRecord>();
  return {
    values,
    images: {
      get: (key) => values.get(key),
      put: (key, value) => void values.set(key, value),
      delete: (key) => void values.delete(key),
      entries: () => values.entries(),
    },
    transaction: (work) => work(),
  };
}

const record = (label: string, tags: readonly string[], digests: readonly string[] = []): ImageRecord => ({
  id: digestOf(label),
  tags,
  digests,
  blobs: [digestOf(`${label} manifest`)],
  manifest: { mediaType: 'x', digest: digestOf(`${label} manifest`), size: 1 },
  size: 1,
  config: {
    platform: { os: 'linux', architecture: 'amd64' },
    diffIds: [],
    run: { env: [], entrypoint: [], cmd: [], user: '', workingDir: '', stopSignal: '', volumes: [], labels: {} },
  },
  chainId: '',
  annotations: {},
});

describe('image store', () => {
  const one = 'docker.io/library/one:latest';
  const manyDigest = `docker.io/library/one@${digestOf('m')}`;

  it('finds an image by tag, digest reference, id and prefix', () => {
    const store = openImageStore(memory(), []);
    const { id } = store.add(record('a', [one], [manyDigest]));
    for (const name of [
      'one',
      'one:latest',
      'docker.io/library/one',
      `one@${digestOf('m')}`,
      id,
      id.slice(7),
      id.slice(7, 12),
      id.slice(0, 14),
    ]) {
      assert.equal(store.resolve(name)?.id, id, name);
    }
    for (const name of ['two', 'one:other', digestOf('b'), '', 'sha256:', id.slice(7, 10), 'NOT/a:name:x']) {
      assert.equal(store.resolve(name), undefined, name);
    }
  });

  it('finds nothing by a prefix that two images share', () => {
    const store = openImageStore(memory(), []);
    const ids = Array.from({ length: 3000 }, (_, i) => store.add(record(String(i), [])).id.slice(7));
    const prefix = ids.map((id) => id.slice(0, 4)).find((each, i, all) => all.indexOf(each) !== i);
    assert.ok(prefix !== undefined);
    assert.equal(store.resolve(prefix), undefined);
  });

  it('gathers the names of an image, and moves a tag from one to the other', () => {
    const tables = memory();
    const store = openImageStore(tables, []);
    store.add(record('a', [one]));
    store.add(record('a', ['docker.io/library/two:1'], [manyDigest]));
    assert.deepEqual(store.resolve('one')?.repoTags, [one, 'docker.io/library/two:1']);
    store.add(record('b', [one]));
    assert.deepEqual(store.resolve(digestOf('a'))?.repoTags, ['docker.io/library/two:1']);
    const again = openImageStore(tables, []);
    assert.deepEqual(new Set(again.list().map((image) => image.id)), new Set([digestOf('a'), digestOf('b')]));
    assert.equal(again.resolve('one')?.id, digestOf('b'));
    again.delete(digestOf('b'));
    again.delete(digestOf('b'));
    assert.equal(again.resolve('one'), undefined);
    assert.equal(tables.values.size, 1);
  });

  it('says what is pinned', () => {
    const store = openImageStore(memory(), ['registry.k8s.io/pause', 'docker.io/*/agent:v?']);
    const pinned = (tag: string): boolean => store.add(record(tag, [tag])).pinned;
    assert.ok(pinned('registry.k8s.io/pause:3.10'));
    assert.ok(!pinned('registry.k8s.io/pause-extra:1'));
    assert.ok(pinned('docker.io/any/agent:v1'));
    assert.ok(!pinned('docker.io/any/agent:v12'));
    assert.ok(globPattern('a.b/c').test('a.b/c@sha256:00') && !globPattern('a.b/c').test('axb/c:1'));
  });
});
