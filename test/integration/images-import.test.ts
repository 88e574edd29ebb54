import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { isKind, type ErrorKind } from '../../src/kit/errors.js';
import { openTestImageStore, testCall, type TestImageStore } from '../support/image-store.js';
import { tar, type TarEntry } from '../support/tar-builder.js';
import { buildTestImage, testImageParts } from '../support/test-image.js';
import { skip } from '../support/skip.js';

describe('import', function () {
  this.timeout(20_000);
  let store: TestImageStore;
  let dir: string;
  const name = 'docker.io/library/test:1';

  beforeEach(async () => {
    store = await openTestImageStore();
    dir = mkdtempSync(join(tmpdir(), 'berth-import-'));
  });
  afterEach(async () => {
    await store.close();
    rmSync(dir, { recursive: true, force: true });
  });

  const layout = (): string => buildTestImage(join(dir, 'layout'), { name, bare: true, files: { '/f': 'hello' } });
  const fails = async (path: string, kind: ErrorKind, message: RegExp): Promise<void> => {
    await assert.rejects(store.images.import(path, {}, testCall()), (error: Error) => {
      assert.ok(isKind(error, kind), String(error));
      assert.match(error.message, message);
      return true;
    });
    assert.deepEqual(store.images.list(), []);
    assert.deepEqual(readdirSync(join(store.root, 'content/ingest')), []);
  };
  const file = (content: Buffer): string => {
    const path = join(dir, `archive-${readdirSync(dir).length}`);
    writeFileSync(path, content);
    return path;
  };
  const content = async (): Promise<string> => {
    const [image] = store.images.list();
    assert.ok(image !== undefined);
    return (await store.images.rootFile(image, '/f', 100))?.toString() ?? '';
  };

  it('reads an OCI layout directory, by the name it carries', async () => {
    const images = await store.images.import(layout(), {}, testCall());
    assert.deepEqual(
      images.map((image) => image.repoTags),
      [[name]],
    );
    assert.equal(images[0]?.repoDigests.length, 1);
    assert.equal(await content(), 'hello');
    assert.equal(store.images.resolve('test:1')?.id, images[0]?.id);
    await store.images.import(layout(), {}, testCall());
    assert.equal(store.images.list().length, 1);
  });

  it('takes a name in the place of the one in the archive', async () => {
    const images = await store.images.import(layout(), { name: 'other.example/x' }, testCall());
    assert.deepEqual(images[0]?.repoTags, ['other.example/x:latest']);
  });

  it('reads an OCI archive, compressed or not', async () => {
    const plain = execFileSync('tar', ['-C', layout(), '-cf', '-', '.'], { maxBuffer: 1 << 28 });
    for (const bytes of [plain, gzipSync(plain)]) {
      const [image] = await store.images.import(file(bytes), {}, testCall());
      assert.deepEqual(image?.repoTags, [name]);
      assert.equal(await content(), 'hello');
      await store.images.remove(name, testCall());
      assert.deepEqual(readdirSync(join(store.root, 'content/blobs/sha256')), []);
    }
  });

  it('reads what skopeo writes for docker, links and all', async function () {
    if (!existsSync('/usr/bin/skopeo')) skip(this, 'skopeo is not installed');
    const target = `docker-archive:${join(dir, 'saved.tar')}:library/test:1`;
    const image = buildTestImage(join(dir, 'two'), {
      name,
      bare: true,
      layers: [[{ path: 'f', content: 'low' }], [{ path: 'f', content: 'top' }], [{ path: 'g' }]],
    });
    execFileSync('skopeo', ['--insecure-policy', '--tmpdir', dir, 'copy', '-q', `oci:${image}:1`, target]);
    const [imported] = await store.images.import(join(dir, 'saved.tar'), {}, testCall());
    assert.deepEqual(imported?.repoTags, [name]);
    assert.deepEqual(imported?.repoDigests, []);
    assert.equal(await content(), 'top');
  });

  it('is read by skopeo in turn: the content store is an OCI layout', async function () {
    if (!existsSync('/usr/bin/skopeo')) skip(this, 'skopeo is not installed');
    await store.images.import(layout(), {}, testCall());
    const out = execFileSync('skopeo', ['inspect', `oci:${join(store.root, 'content')}:${name}`], { encoding: 'utf8' });
    assert.equal((JSON.parse(out) as { Os: string }).Os, 'linux');
  });

  it('reads the old docker save format, where layers shared by images are links', async () => {
    const parts = testImageParts({ name, bare: true, compression: 'none', files: { '/f': 'saved' } });
    const layer = parts.blobs.get(parts.layers[0]?.digest ?? '') ?? Buffer.alloc(0);
    const config = parts.blobs.get(parts.config.digest) ?? Buffer.alloc(0);
    const manifest = [
      { Config: 'config.json', RepoTags: ['one:1', 'two/two:2'], Layers: ['aaa/layer.tar'] },
      { Config: 'config2.json', RepoTags: null, Layers: ['bbb/layer.tar'] },
    ];
    const other = Buffer.from(config.toString().replace('"sh"', '"ls"'));
    const entries: TarEntry[] = [
      { path: 'aaa/layer.tar', content: layer },
      { path: 'bbb/layer.tar', type: 'symlink', linkTo: '../aaa/layer.tar' },
      { path: 'config.json', content: config },
      { path: 'config2.json', content: other },
      { path: 'manifest.json', content: JSON.stringify(manifest) },
    ];
    const images = await store.images.import(file(tar(entries)), {}, testCall());
    assert.deepEqual(
      images.map((image) => image.repoTags),
      [['docker.io/library/one:1', 'docker.io/two/two:2'], []],
    );
    assert.equal(await content(), 'saved');
    assert.equal(store.snapshotter.layers().length, 1);
  });

  it('refuses a name for several images', async () => {
    const parts = [1, 2].map((i) => testImageParts({ name, bare: true, files: { '/f': String(i) } }));
    const manifests = parts.map((each, i) => ({
      ...each.manifest,
      annotations: { 'org.opencontainers.image.ref.name': `example.test/x:${i}` },
    }));
    const blobs = parts.flatMap((each) => [...each.blobs]);
    const entries = [
      { path: 'index.json', content: JSON.stringify({ schemaVersion: 2, manifests }) },
      ...blobs.map(([digest, bytes]) => ({ path: `blobs/sha256/${digest.slice(7)}`, content: bytes })),
    ];
    const path = file(tar(entries));
    await assert.rejects(store.images.import(path, { name: 'x' }, testCall()), /holds 2 images/);
    assert.equal((await store.images.import(path, {}, testCall())).length, 2);
  });

  it('never reads outside a directory', async () => {
    const path = layout();
    const [digest = ''] = readdirSync(join(path, 'blobs/sha256'));
    const blob = join(path, 'blobs/sha256', digest);
    writeFileSync(join(dir, 'secret'), readFileSync(blob));
    rmSync(blob);
    symlinkSync(join(dir, 'secret'), blob);
    await fails(path, 'not-found', /blobs\/sha256/);
    const saved = join(dir, 'saved');
    execFileSync('mkdir', [saved]);
    writeFileSync(join(saved, 'manifest.json'), JSON.stringify([{ Config: '../secret', RepoTags: [], Layers: [] }]));
    await fails(saved, 'corrupt', /leads out/);
    writeFileSync(join(saved, 'manifest.json'), JSON.stringify([{ Config: '/etc/passwd', RepoTags: [], Layers: [] }]));
    await fails(saved, 'corrupt', /leads out/);
  });

  it('never reads outside an archive', async () => {
    const manifest = JSON.stringify([{ Config: 'c', RepoTags: [], Layers: [] }]);
    const entries: TarEntry[] = [
      { path: 'c', type: 'symlink', linkTo: '../../../../etc/passwd' },
      { path: 'manifest.json', content: manifest },
    ];
    await fails(file(tar(entries)), 'corrupt', /leads out/);
    await fails(file(tar([{ path: '../escape', content: 'x' }])), 'corrupt', /leads out/);
  });

  it('refuses what is damaged, cut, huge or something else', async () => {
    const path = layout();
    const whole = execFileSync('tar', ['-C', path, '-cf', '-', '.'], { maxBuffer: 1 << 28 });
    await fails(file(whole.subarray(0, 1500)), 'corrupt', /archive/);
    await fails(file(Buffer.alloc(5000, 'x')), 'corrupt', /archive/);
    await fails(file(tar([{ path: 'f' }])), 'corrupt', /neither index.json nor manifest.json/);
    await fails(join(dir, 'none'), 'not-found', /none/);
    await fails('/dev/null', 'invalid-argument', /no file/);
    await fails(file(tar([{ path: 'index.json', content: Buffer.alloc(9 << 20, ' ') }])), 'corrupt', /larger than/);
    const [digest = ''] = readdirSync(join(path, 'blobs/sha256'));
    writeFileSync(join(path, 'blobs/sha256', digest), 'other');
    await fails(path, 'corrupt', /in truth|bytes, not/);
  });
});
