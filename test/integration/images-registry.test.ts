import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isKind, type ErrorKind } from '../../src/kit/errors.js';
import type { RegistryAuth } from '../../src/runtime/model.js';
import { startFakeRegistry, type FakeRegistry, type FakeRegistryOptions } from '../support/fake-registry.js';
import { openTestImageStore, testCall, type TestImageStore } from '../support/image-store.js';
import { startRegistry } from '../support/registry.js';
import { digestOf, testImageParts } from '../support/test-image.js';

const noAuth: RegistryAuth = {
  username: '',
  password: '',
  auth: '',
  serverAddress: '',
  identityToken: '',
  registryToken: '',
};
const big = testImageParts({
  name: 'x',
  bare: true,
  files: { '/big': { content: randomBytes(3 << 20) }, '/small': 'small' },
});

describe('registries', function () {
  this.timeout(30_000);
  let store: TestImageStore;
  const closers: (() => Promise<void>)[] = [];

  beforeEach(async () => {
    store = await openTestImageStore();
    closers.push(() => store.close());
  });
  afterEach(async () => {
    for (let close = closers.pop(); close !== undefined; close = closers.pop()) await close();
  });

  const fake = async (options: FakeRegistryOptions = {}): Promise<FakeRegistry> => {
    const registry = await startFakeRegistry(options);
    closers.push(() => registry.close());
    return registry;
  };
  const pull = async (host: string, auth?: RegistryAuth, signal?: AbortSignal) =>
    await store.images.pull(`${host}/some/thing:1`, auth, {}, testCall(signal));
  const fails = async (work: Promise<unknown>, kind: ErrorKind, message: RegExp): Promise<void> =>
    await assert.rejects(work, (error: Error) => {
      assert.ok(isKind(error, kind), `${kind} expected: ${String(error)}`);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /secret|signature/);
      return true;
    });
  const nothingLeft = async (): Promise<void> => {
    for (let i = 0; i < 100 && readdirSync(join(store.root, 'snapshots/tmp')).length > 0; i++) await sleep(20);
    assert.deepEqual(readdirSync(join(store.root, 'content/ingest')), []);
    assert.deepEqual(readdirSync(join(store.root, 'snapshots/tmp')), []);
    assert.deepEqual(store.images.list(), []);
  };

  describe('credentials', () => {
    it('are sent by Basic where the real registry asks for them', async () => {
      const registry = await startRegistry({ basic: true });
      closers.push(() => registry.close());
      await registry.push('some/thing', '1', big);
      await fails(pull(registry.host), 'unauthenticated', /access denied/);
      await fails(pull(registry.host, { ...noAuth, username: 'me', password: 'wrong' }), 'unauthenticated', /denied/);
      const elsewhere = { ...noAuth, username: 'me', password: 's:ecret', serverAddress: 'other.example' };
      await fails(pull(registry.host, elsewhere), 'unauthenticated', /denied/);
      assert.equal(
        (await pull(registry.host, { ...noAuth, username: 'me', password: 's:ecret' })).id,
        big.config.digest,
      );
      await store.images.remove(big.config.digest, testCall());
      const encoded = Buffer.from('me:s:ecret').toString('base64');
      const auth = { ...noAuth, auth: encoded, serverAddress: `https://${registry.host}/v1/` };
      assert.equal((await pull(registry.host, auth)).id, big.config.digest);
    });

    it('get a token, which all requests then share', async () => {
      const registry = await fake({ bearer: { username: 'me', password: 'secret' } });
      await fails(pull(registry.host), 'unauthenticated', /token/);
      await fails(pull(registry.host, { ...noAuth, username: 'me', password: 'no' }), 'unauthenticated', /token/);
      const before = registry.requests.length;
      await pull(registry.host, { ...noAuth, username: 'me', password: 'secret' });
      const tokens = registry.requests.slice(before).filter((each) => each.path === '/token');
      assert.equal(tokens.length, 1);
    });

    it('may be absent where anonymous tokens are given', async () => {
      const registry = await fake({ bearer: {} });
      await pull(registry.host);
      const token = registry.requests.find((each) => each.path === '/token');
      assert.equal(token?.headers.authorization, undefined);
    });

    it('may be an identity token or a registry token', async () => {
      const registry = await fake({ bearer: { refreshToken: 'refresh' } });
      await pull(registry.host, { ...noAuth, identityToken: 'refresh' });
      assert.equal(registry.requests.find((each) => each.path === '/token')?.method, 'POST');
      await store.images.remove(registry.image.config.digest, testCall());
      await pull(registry.host, { ...noAuth, registryToken: 'good.token-1' });
      await fails(pull(registry.host, { ...noAuth, registryToken: 'secret' }), 'unauthenticated', /denied/);
    });

    it('do not follow a redirect to another host, and signed URLs stay out of errors', async () => {
      const other = await fake();
      const registry = await fake({ bearer: {} });
      registry.intercept = (request, response, path) => {
        if (!path.includes('/blobs/') || request.headers.authorization === undefined) return false;
        const location = `${other.url}${path}?signature=secret`;
        response.writeHead(307, { location }).end();
        return true;
      };
      await pull(registry.host);
      assert.ok(other.requests.length > 0);
      assert.ok(other.requests.every((each) => each.headers.authorization === undefined));
      await store.images.remove(registry.image.config.digest, testCall());
      other.intercept = (_request, response) => {
        response.writeHead(403).end();
        return true;
      };
      await fails(pull(registry.host), 'unauthenticated', /denied/);
    });

    it('are not sent in the clear when the registry speaks TLS', async () => {
      const keys = makeCertificates();
      closers.push(async () => rmSync(keys.dir, { recursive: true }));
      const registry = await fake({ tls: keys });
      store.hosts(registry.host, `server = "${registry.url}"\nca = "${keys.caFile}"\n`);
      registry.intercept = (_request, response) => {
        response.writeHead(401, { 'www-authenticate': 'Bearer realm="http://127.0.0.1:9/token"' }).end();
        return true;
      };
      await fails(pull(registry.host, { ...noAuth, username: 'me', password: 'secret' }), 'denied', /without TLS/);
    });
  });

  describe('hosts.toml', () => {
    it('gives certificate authorities, client certificates, headers, and may skip verification', async () => {
      const keys = makeCertificates();
      closers.push(async () => rmSync(keys.dir, { recursive: true }));
      const registry = await fake({ tls: keys });
      store.hosts(registry.host, `server = "${registry.url}"\n`);
      await fails(pull(registry.host), 'unavailable', /certificate/);
      store.hosts(registry.host, `server = "${registry.url}"\nca = "${keys.caFile}"\n[header]\nx-team = ["blue"]\n`);
      await pull(registry.host);
      assert.equal(registry.requests.at(-1)?.headers['x-team'], 'blue');
      await store.images.remove(registry.image.config.digest, testCall());
      store.hosts(registry.host, `server = "${registry.url}"\nskip_verify = true\n`);
      await pull(registry.host);
      const strict = await fake({ tls: { ...keys, ca: readFileSync(keys.caFile, 'utf8') } });
      await store.images.remove(registry.image.config.digest, testCall());
      store.hosts(strict.host, `server = "${strict.url}"\nca = "${keys.caFile}"\n`);
      await fails(pull(strict.host), 'unavailable', /./);
      const client = `client = [["${keys.certFile}", "${keys.keyFile}"]]`;
      store.hosts(strict.host, `server = "${strict.url}"\nca = "${keys.caFile}"\n${client}\n`);
      await pull(strict.host);
    });

    it('names mirrors, which get no credentials and are told the registry', async () => {
      const mirror = await fake();
      store.hosts('example.test', `server = "http://127.0.0.1:9"\n[host."${mirror.url}"]\n`);
      const image = await pull('example.test', { ...noAuth, username: 'me', password: 'secret' });
      assert.deepEqual(image.repoTags, ['example.test/some/thing:1']);
      assert.ok(mirror.requests.every((each) => each.query === '?ns=example.test'));
      assert.ok(mirror.requests.every((each) => each.headers.authorization === undefined));
    });

    it('is passed through in order: dead, broken and empty mirrors, then the registry', async () => {
      const broken = await fake();
      broken.intercept = (_request, response) => {
        response.writeHead(503).end('overloaded');
        return true;
      };
      const empty = await fake();
      empty.intercept = (_request, response) => {
        response.writeHead(404).end();
        return true;
      };
      const registry = await fake();
      const mirrors = ['http://127.0.0.1:9', broken.url, empty.url].map((url) => `[host."${url}"]\n`).join('');
      store.hosts('example.test', `server = "${registry.url}"\n${mirrors}`);
      await pull('example.test');
      assert.ok(broken.requests.length > 0 && empty.requests.length > 0);
      assert.ok(registry.requests.every((each) => each.query === ''));
    });

    it('falls back to _default, and keeps to capabilities and paths', async () => {
      const resolver = await fake();
      const puller = await fake();
      store.hosts(
        '_default',
        [
          `server = "http://127.0.0.1:9"`,
          `[host."${resolver.url}"]\ncapabilities = ["resolve"]`,
          `[host."${puller.url}/mirror/v2"]\ncapabilities = ["pull"]\noverride_path = true`,
        ].join('\n'),
      );
      await pull('any.example.test');
      assert.ok(resolver.requests.every((each) => /\/manifests\/1$/.test(each.path)));
      assert.ok(puller.requests.every((each) => /^\/mirror\/v2\/some\/thing\/blobs\//.test(each.path)));
    });

    it('with a mistake is refused by file and key', async () => {
      store.hosts('example.test', 'server = 5\n');
      await fails(pull('example.test'), 'invalid-argument', /example\.test\/hosts\.toml: server: must be a string/);
    });
  });

  describe('a proxy of the environment', () => {
    const saved = process.env['http_proxy'];
    afterEach(() => {
      if (saved === undefined) delete process.env['http_proxy'];
      else process.env['http_proxy'] = saved;
    });

    it('is used for other hosts, and not for this one', async () => {
      const registry = await fake();
      const tunnels: string[] = [];
      const proxy = createServer();
      proxy.on('connect', (request, socket: Socket) => {
        tunnels.push(request.url ?? '');
        const upstream = connect(Number(registry.host.split(':')[1]), '127.0.0.1', () => {
          socket.write('HTTP/1.1 200 OK\r\n\r\n');
          socket.pipe(upstream).pipe(socket);
        });
        socket.on('error', () => upstream.destroy());
        upstream.on('error', () => socket.destroy());
      });
      await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
      closers.push(async () => void proxy.close());
      process.env['http_proxy'] = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
      store.hosts('registry.example.test', 'server = "http://registry.example.test"\n');
      await pull('registry.example.test');
      assert.deepEqual(new Set(tunnels), new Set(['registry.example.test:80']));
      const before = tunnels.length;
      await store.images.remove(registry.image.config.digest, testCall());
      await pull(registry.host);
      assert.equal(tunnels.length, before);
    });
  });

  describe('broken transfers', () => {
    const blobOf = (registry: FakeRegistry): string => registry.image.layers[0]?.digest ?? '';
    const isLayer = (registry: FakeRegistry, path: string): boolean => path.endsWith(`/blobs/${blobOf(registry)}`);

    it('go on where they broke', async () => {
      const registry = await fake({ image: big });
      let breaks = 0;
      registry.intercept = (request, response, path) => {
        if (!isLayer(registry, path) || breaks >= 3) return false;
        breaks += 1;
        const bytes = big.blobs.get(blobOf(registry)) ?? Buffer.alloc(0);
        const from = Number(/\d+/.exec(request.headers.range ?? '')?.[0] ?? 0);
        const partial = from > 0 ? { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {};
        response.writeHead(from > 0 ? 206 : 200, { 'content-length': bytes.length - from, ...partial });
        response.write(bytes.subarray(from, from + 700_000), () => response.socket?.destroySoon());
        return true;
      };
      await pull(registry.host);
      const ranges = registry.requests.filter((each) => isLayer(registry, each.path)).map((each) => each.headers.range);
      assert.equal(ranges.length, 4);
      assert.ok(
        ranges.slice(1).every((range) => /^bytes=\d+-$/.test(range ?? '')),
        String(ranges),
      );
    });

    it('start over in the stream where the server knows no ranges', async () => {
      const registry = await fake({ image: big });
      let breaks = 0;
      registry.intercept = (_request, response, path) => {
        if (!isLayer(registry, path)) return false;
        const bytes = big.blobs.get(blobOf(registry)) ?? Buffer.alloc(0);
        response.writeHead(200, { 'content-length': bytes.length });
        if (breaks++ < 2) response.write(bytes.subarray(0, 600_001 * breaks), () => response.socket?.destroySoon());
        else response.end(bytes);
        return true;
      };
      await pull(registry.host);
      assert.equal(breaks, 3);
    });

    it('that fall silent are tried again', async () => {
      await store.close();
      closers.length = 0;
      store = await openTestImageStore({ stallTimeoutMs: 400 });
      closers.push(() => store.close());
      const registry = await fake({ image: big });
      let silent = 0;
      registry.intercept = (_request, response, path) => {
        if (!isLayer(registry, path) || silent++ > 0) return false;
        const bytes = big.blobs.get(blobOf(registry)) ?? Buffer.alloc(0);
        response.writeHead(200, { 'content-length': bytes.length }).write(bytes.subarray(0, 900_000));
        return true;
      };
      await pull(registry.host);
      const ranges = registry.requests.filter((each) => isLayer(registry, each.path)).map((each) => each.headers.range);
      assert.equal(ranges.length, 2);
      assert.match(ranges[1] ?? '', /^bytes=\d+-$/);
    });

    it('that crawl do not hold up other images', async () => {
      await store.close();
      closers.length = 0;
      store = await openTestImageStore({ maxConcurrentDownloads: 1, maxConcurrentUnpacks: 1 });
      closers.push(() => store.close());
      const crawling = await fake({ image: big });
      crawling.intercept = (_request, response, path) => {
        if (!isLayer(crawling, path)) return false;
        const bytes = big.blobs.get(blobOf(crawling)) ?? Buffer.alloc(0);
        response.writeHead(200, { 'content-length': bytes.length }).write(bytes.subarray(0, 100_000));
        return true;
      };
      const controller = new AbortController();
      const first = pull(crawling.host, undefined, controller.signal);
      first.catch(() => undefined);
      const asked = (): boolean => crawling.requests.some((each) => isLayer(crawling, each.path));
      for (let i = 0; i < 1000 && !asked(); i++) await sleep(10);
      const other = await fake();
      await pull(other.host);
      controller.abort();
      await fails(first, 'cancelled', /./);
    });

    it('move to the next endpoint', async () => {
      const bad = await fake({ image: big });
      bad.intercept = (_request, response, path) => {
        if (!isLayer(bad, path)) return false;
        const bytes = big.blobs.get(blobOf(bad)) ?? Buffer.alloc(0);
        response.writeHead(200, { 'content-length': bytes.length });
        response.write(bytes.subarray(0, 100_000), () => response.socket?.destroySoon());
        return true;
      };
      const registry = await fake({ image: big });
      store.hosts('example.test', `server = "${registry.url}"\n[host."${bad.url}"]\n`);
      await pull('example.test');
      assert.equal(bad.requests.filter((each) => isLayer(bad, each.path)).length, 1);
    });

    it('end in an error that says so, and leave nothing', async () => {
      const registry = await fake({ image: big });
      registry.intercept = (_request, response, path) => {
        if (!isLayer(registry, path)) return false;
        response.socket?.destroy();
        return true;
      };
      await fails(pull(registry.host), 'unavailable', /blobs\/sha256/);
      await nothingLeft();
    });

    it('that bring other bytes are refused, and leave nothing', async () => {
      const registry = await fake({ image: big });
      registry.intercept = (_request, response, path) => {
        if (!isLayer(registry, path)) return false;
        const bytes = Buffer.from(big.blobs.get(blobOf(registry)) ?? '');
        bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
        response.writeHead(200).end(bytes);
        return true;
      };
      await fails(pull(registry.host), 'corrupt', /./);
      await nothingLeft();
    });

    it('that bring other bytes are taken from the next endpoint', async () => {
      const bad = await fake({ image: big });
      bad.intercept = (_request, response, path) => {
        if (!isLayer(bad, path)) return false;
        const bytes = Buffer.from(big.blobs.get(blobOf(bad)) ?? '');
        bytes[1_000_000] = (bytes[1_000_000] ?? 0) ^ 1;
        response.writeHead(200).end(bytes);
        return true;
      };
      const registry = await fake({ image: big });
      store.hosts('example.test', `server = "${registry.url}"\n[host."${bad.url}"]\n`);
      await pull('example.test');
      assert.equal(bad.requests.filter((each) => isLayer(bad, each.path)).length, 1);
      assert.equal(registry.requests.filter((each) => isLayer(registry, each.path)).length, 1);
    });

    it('are made good for a blob that was damaged on disk', async () => {
      const registry = await fake({ image: big });
      const digest = blobOf(registry);
      const image = await pull(registry.host);
      store.images.hold(image.id, 'keeper');
      const path = join(store.root, 'content/blobs/sha256', digest.slice(7));
      const bytes = readFileSync(path);
      bytes.fill(0, 1000, 5000);
      writeFileSync(path, bytes);
      store.tables.images.delete(image.id);
      for (const { chainId } of store.snapshotter.layers()) assert.equal(chainId, image.chainId);
      store.images.unhold(image.id, 'keeper');
      store.snapshotter.releaseLayers([]);
      await pull(registry.host.replace('127.0.0.1', 'localhost'));
      assert.ok(store.snapshotter.layer(image.chainId) !== undefined);
    });

    it('that bring too much or too little are refused', async () => {
      const registry = await fake({ image: big });
      registry.intercept = (_request, response, path) => {
        if (!isLayer(registry, path)) return false;
        response
          .writeHead(200)
          .end(Buffer.concat([big.blobs.get(blobOf(registry)) ?? Buffer.alloc(0), Buffer.alloc(9)]));
        return true;
      };
      await fails(pull(registry.host), 'corrupt', /longer than/);
      await nothingLeft();
    });

    it('of a manifest with a wrong digest are refused', async () => {
      const registry = await fake();
      registry.intercept = (_request, response, path) => {
        if (!path.includes('/manifests/')) return false;
        response.writeHead(200, { 'content-type': registry.image.manifest.mediaType }).end('{"schemaVersion":2}');
        return true;
      };
      const byDigest = `${registry.host}/some/thing@${registry.image.manifest.digest}`;
      await fails(store.images.pull(byDigest, undefined, {}, testCall()), 'corrupt', /digest is/);
    });

    it('of endless documents are cut', async () => {
      const registry = await fake();
      registry.intercept = (_request, response, path) => {
        if (!path.includes('/manifests/')) return false;
        response.writeHead(200, { 'content-type': registry.image.manifest.mediaType });
        for (let i = 0; i < 10; i++) response.write(Buffer.alloc(1 << 20, ' '));
        response.end();
        return true;
      };
      await fails(pull(registry.host), 'corrupt', /larger than/);
    });
  });

  describe('callers', () => {
    const slow = (registry: FakeRegistry): { release: () => void } => {
      let release = (): void => undefined;
      const gate = new Promise<void>((resolve) => (release = resolve));
      registry.intercept = (_request, response, path) => {
        const digest = registry.image.layers[0]?.digest ?? '';
        if (!path.endsWith(digest)) return false;
        const bytes = registry.image.blobs.get(digest) ?? Buffer.alloc(0);
        response.writeHead(200, { 'content-length': bytes.length });
        response.write(bytes.subarray(0, 100_000));
        void gate.then(() => response.end(bytes.subarray(100_000)));
        return true;
      };
      return { release };
    };
    const blobRequests = (registry: FakeRegistry): number =>
      registry.requests.filter((each) => each.path.endsWith(registry.image.layers[0]?.digest ?? '')).length;
    const untilAsked = async (registry: FakeRegistry): Promise<void> => {
      for (let i = 0; i < 1000 && blobRequests(registry) === 0; i++) await sleep(10);
      assert.ok(blobRequests(registry) > 0);
    };

    it('who ask for the same share one transfer, under whatever name', async () => {
      const registry = await fake({ image: big });
      const { release } = slow(registry);
      const names = ['some/thing:1', 'some/thing:1', 'some/thing:2', 'other/thing:1'];
      const pulls = names.map((name) => store.images.pull(`${registry.host}/${name}`, undefined, {}, testCall()));
      await untilAsked(registry);
      await sleep(100);
      release();
      const images = await Promise.all(pulls);
      assert.equal(new Set(images.map((image) => image.id)).size, 1);
      assert.equal(blobRequests(registry), 1);
      assert.equal(store.images.list()[0]?.repoTags.length, 3);
      assert.equal(store.images.list()[0]?.repoDigests.length, 2);
    });

    it('who give up end the work, and leave nothing', async () => {
      const registry = await fake({ image: big });
      const { release } = slow(registry);
      const controller = new AbortController();
      const work = pull(registry.host, undefined, controller.signal);
      await untilAsked(registry);
      controller.abort();
      await fails(work, 'cancelled', /./);
      await nothingLeft();
      release();
    });

    it('who give up do not end what others wait for', async () => {
      const registry = await fake({ image: big });
      const { release } = slow(registry);
      const controller = new AbortController();
      const first = pull(registry.host, undefined, controller.signal);
      await untilAsked(registry);
      const second = store.images.pull(`${registry.host}/other/name:1`, undefined, {}, testCall());
      const third = pull(registry.host);
      await sleep(100);
      controller.abort();
      await fails(first, 'cancelled', /./);
      release();
      assert.equal((await second).id, (await third).id);
      assert.equal(blobRequests(registry), 1);
    });

    it('find closing the service ends their pulls', async () => {
      const registry = await fake({ image: big });
      slow(registry);
      const work = pull(registry.host);
      work.catch(() => undefined);
      await untilAsked(registry);
      await store.images.close();
      await fails(work, 'cancelled', /./);
      await nothingLeft();
    });
  });

  describe('images', () => {
    const withLayer = (mediaType: string, bytes: Buffer, diffId: string) => {
      const config = Buffer.from(
        JSON.stringify({
          architecture: 'amd64',
          os: 'linux',
          config: {},
          rootfs: { type: 'layers', diff_ids: [diffId] },
        }),
      );
      const descriptor = (type: string, each: Buffer) => ({
        mediaType: type,
        digest: digestOf(each),
        size: each.length,
      });
      const manifestBody = Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: 'application/vnd.docker.distribution.manifest.v2+json',
          config: descriptor('application/vnd.docker.container.image.v1+json', config),
          layers: [descriptor(mediaType, bytes)],
        }),
      );
      const manifest = descriptor('application/vnd.docker.distribution.manifest.v2+json', manifestBody);
      const all = [config, bytes, manifestBody].map((each) => [digestOf(each), each] as const);
      const layers = [descriptor(mediaType, bytes)];
      const configDescriptor = descriptor('application/vnd.docker.container.image.v1+json', config);
      return { manifest, config: configDescriptor, layers, diffIds: [diffId], blobs: new Map(all) };
    };
    const plain = testImageParts({ name: 'x', bare: true, compression: 'none', files: { '/f': 'z'.repeat(2 << 20) } });
    const plainTar = plain.blobs.get(plain.layers[0]?.digest ?? '') ?? Buffer.alloc(0);
    const diffId = plain.diffIds[0] ?? '';

    it('of Docker schema 2 with plain, mislabelled and zstd layers are unpacked', async function () {
      const kinds: [string, Buffer][] = [['application/vnd.docker.image.rootfs.diff.tar.gzip', plainTar]];
      if (existsSync('/usr/bin/zstd')) {
        const zstd = execFileSync('zstd', ['-c', '-q'], { input: plainTar, maxBuffer: 1 << 28 });
        kinds.push(['application/vnd.oci.image.layer.v1.tar+zstd', zstd]);
        const frames = [plainTar.subarray(0, 1000), plainTar.subarray(1000)].map((input) =>
          execFileSync('zstd', ['-c', '-q', '--check'], { input, maxBuffer: 1 << 28 }),
        );
        const skippable = Buffer.from('502a4d1804000000deadbeef', 'hex');
        kinds.push(['application/vnd.oci.image.layer.v1.tar+zstd', Buffer.concat([skippable, ...frames])]);
      }
      for (const [mediaType, bytes] of kinds) {
        const registry = await fake({ image: withLayer(mediaType, bytes, diffId) });
        const image = await pull(registry.host);
        const [dir = ''] = store.snapshotter.lowerDirs(image.chainId);
        assert.equal(readFileSync(join(dir, 'f')).length, 2 << 20);
        await store.images.remove(image.id, testCall());
      }
    });

    it('whose layer is not what the configuration says are refused, and leave nothing', async () => {
      const wrong = `sha256:${'0'.repeat(64)}`;
      const registry = await fake({ image: withLayer('application/vnd.oci.image.layer.v1.tar', plainTar, wrong) });
      await fails(pull(registry.host), 'corrupt', /unpacks to sha256/);
      await nothingLeft();
    });

    it('with damaged compression are refused, and leave nothing', async () => {
      const gzip = big.blobs.get(big.layers[0]?.digest ?? '') ?? Buffer.alloc(0);
      const damaged = Buffer.concat([gzip.subarray(0, 5000), Buffer.alloc(100), gzip.subarray(5100)]);
      const cut = gzip.subarray(0, 1_000_000);
      for (const bytes of [damaged, cut]) {
        const registry = await fake({ image: withLayer('application/vnd.oci.image.layer.v1.tar+gzip', bytes, diffId) });
        await fails(pull(registry.host), 'corrupt', /./);
        await nothingLeft();
      }
    });

    it('of other kinds are refused by name', async () => {
      const chart = withLayer('application/vnd.cncf.helm.chart.content.v1.tar+gzip', plainTar, diffId);
      await fails(pull((await fake({ image: chart })).host), 'unimplemented', /helm/);
    });

    it('of other machines are refused', async () => {
      const other = testImageParts({ name: 'x', bare: true, files: { '/f': '' }, architecture: 's390x' });
      await fails(pull((await fake({ image: other })).host), 'not-found', /linux\/s390x/);
    });

    it('are chosen from an index by platform', async () => {
      const registry = await startRegistry();
      closers.push(() => registry.close());
      const parts = ['amd64', 'arm64', 's390x'].map((architecture) =>
        testImageParts({ name: 'x', bare: true, files: { '/arch': architecture }, architecture }),
      );
      const manifests = [];
      for (const [i, each] of parts.entries()) {
        await registry.push('some/thing', `part${i}`, each);
        const architecture = ['amd64', 'arm64', 's390x'][i];
        manifests.push({ ...each.manifest, platform: { os: 'linux', architecture } });
      }
      const mediaType = 'application/vnd.oci.image.index.v1+json';
      const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests }));
      const digest = await registry.putManifest('some/thing', '1', mediaType, index);
      const image = await pull(registry.host);
      const own = process.arch === 'x64' ? 0 : 1;
      assert.equal(image.id, parts[own]?.config.digest);
      assert.deepEqual(image.repoDigests, [`${registry.host}/some/thing@${digest}`]);
      const byDigest = `${registry.host}/some/thing@${parts[own]?.manifest.digest}`;
      await store.images.pull(byDigest, undefined, {}, testCall());
      assert.equal(store.images.list().length, 1);
      assert.equal(store.images.resolve(byDigest)?.id, image.id);
      assert.equal(store.images.resolve(image.id)?.repoDigests.length, 2);
    });

    it('that a tag has left keep what else they are called', async () => {
      const registry = await startRegistry();
      closers.push(() => registry.close());
      const old = testImageParts({ name: 'x', bare: true, files: { '/f': 'old' } });
      const fresh = testImageParts({ name: 'x', bare: true, files: { '/f': 'new' } });
      await registry.push('some/thing', '1', old);
      await pull(registry.host);
      await registry.push('some/thing', '1', fresh);
      const image = await pull(registry.host);
      assert.equal(image.id, fresh.config.digest);
      assert.equal(store.images.resolve(`${registry.host}/some/thing:1`)?.id, fresh.config.digest);
      assert.deepEqual(store.images.resolve(old.config.digest)?.repoTags, []);
      await store.reopen();
      assert.deepEqual(store.images.resolve(old.config.digest)?.repoTags, []);
      await store.images.remove(old.config.digest.slice(7, 20), testCall());
      await store.images.remove(old.config.digest, testCall());
      assert.equal(store.images.list().length, 1);
    });

    it('without layers and with repeated layers are fine', async () => {
      const none = testImageParts({ name: 'x', bare: true });
      const image = await pull((await fake({ image: none })).host);
      assert.equal(image.chainId, '');
      const same = [{ path: 'd/' }, { path: 'd/f', content: 'x' }];
      const twice = testImageParts({ name: 'x', bare: true, layers: [same, same, [], same] });
      const second = await pull((await fake({ image: twice })).host);
      assert.equal(store.snapshotter.lowerDirs(second.chainId).length, 4);
    });
  });
});

function makeCertificates() {
  const dir = mkdtempSync(join(tmpdir(), 'berth-tls-'));
  const [keyFile, certFile, caFile] = ['key.pem', 'cert.pem', 'ca.pem'].map((name) => join(dir, name)) as [
    string,
    string,
    string,
  ];
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { stdio: 'ignore' });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...newKey,
    '-keyout',
    join(dir, 'ca.key'),
    '-out',
    caFile,
    '-subj',
    '/CN=test ca',
    '-days',
    '2',
  );
  openssl(
    'req',
    ...newKey,
    '-keyout',
    keyFile,
    '-out',
    join(dir, 'csr'),
    '-subj',
    '/CN=127.0.0.1',
    '-addext',
    'subjectAltName=IP:127.0.0.1',
  );
  openssl(
    'x509',
    '-req',
    '-in',
    join(dir, 'csr'),
    '-CA',
    caFile,
    '-CAkey',
    join(dir, 'ca.key'),
    '-CAcreateserial',
    '-out',
    certFile,
    '-days',
    '2',
    '-copy_extensions',
    'copy',
  );
  return { dir, keyFile, certFile, caFile, key: readFileSync(keyFile, 'utf8'), cert: readFileSync(certFile, 'utf8') };
}
