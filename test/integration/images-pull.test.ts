import assert from 'node:assert/strict';
import { existsSync, lstatSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { isKind } from '../../src/kit/errors.js';
import type { PullProgress } from '../../src/runtime/images/progress.js';
import { openTestImageStore, testCall, type TestImageStore } from '../support/image-store.js';
import { startRegistry, type TestRegistry } from '../support/registry.js';
import { testImageParts } from '../support/test-image.js';

const auth = { username: '', password: '', auth: '', serverAddress: '', identityToken: '', registryToken: '' };

describe('pull from a registry', () => {
  let registry: TestRegistry;
  let store: TestImageStore;
  const parts = testImageParts({ name: 'x', files: { '/hello': 'hello world', '/etc/motd': 'good day' } });

  before(async function () {
    this.timeout(60_000);
    registry = await startRegistry();
    await registry.push('library/test', '1', parts);
  });
  after(async () => await registry.close());
  beforeEach(async () => {
    store = await openTestImageStore();
  });
  afterEach(async () => await store.close());

  it('pulls and unpacks an image', async function () {
    this.timeout(20_000);
    const progress: PullProgress[] = [];
    const name = `${registry.host}/library/test:1`;
    const image = await store.images.pull(name, undefined, { a: 'b' }, testCall(), (each) => void progress.push(each));
    assert.equal(image.id, parts.config.digest);
    assert.deepEqual(image.repoTags, [name]);
    assert.deepEqual(image.repoDigests, [`${registry.host}/library/test@${parts.manifest.digest}`]);
    assert.deepEqual(image.annotations, { a: 'b' });
    assert.deepEqual(image.run.cmd, ['sh']);
    const [top = '', base = ''] = store.snapshotter.lowerDirs(image.chainId);
    assert.equal(readFileSync(join(top, 'hello'), 'utf8'), 'hello world');
    assert.equal(readlinkSync(join(base, 'bin/sh')), 'busybox');
    assert.equal(lstatSync(join(base, 'tmp')).mode & 0o7777, 0o1777);
    assert.equal(lstatSync(join(base, 'tmp')).mtimeMs, 1_600_000_000_000);
    assert.equal(lstatSync(join(top, 'etc')).mtimeMs, 1_600_000_000_000);
    for (const layer of parts.layers) {
      const phases = progress.filter((each) => each.digest === layer.digest).map((each) => each.phase);
      assert.equal(phases.at(0), 'waiting');
      assert.equal(phases.at(-1), 'done');
    }
    for (const digest of parts.blobs.keys()) {
      assert.ok(existsSync(join(store.root, 'content/blobs/sha256', digest.slice(7))));
    }
    const passwd = await store.images.rootFile(image, '/etc/passwd', 1 << 20);
    assert.match(passwd?.toString() ?? '', /^root:x:0:0/);
    const again = await store.images.pull(name, undefined, {}, testCall());
    assert.equal(again.id, image.id);
    await store.reopen();
    assert.equal(store.images.resolve(name)?.id, image.id);
    assert.equal(store.images.resolve(image.id.slice(7, 17))?.id, image.id);
    assert.ok((await store.images.fsInfo()).usedBytes > 2_000_000);
    await store.images.remove(image.id, testCall());
    await store.snapshotter.close();
    assert.equal(store.images.resolve(name), undefined);
    assert.equal((await store.images.fsInfo()).usedBytes, 0);
    assert.ok(!existsSync(top));
  });

  it('says that a missing image is missing', async () => {
    await assert.rejects(store.images.pull(`${registry.host}/library/none:1`, auth, {}, testCall()), (error) =>
      isKind(error, 'not-found'),
    );
  });
});
