import assert from 'node:assert/strict';
import { isKind, type ErrorKind } from '../../kit/errors.js';
import {
  canRun,
  chainIds,
  digestOf,
  formatPlatform,
  maxDocumentBytes,
  mediaTypes,
  normalPlatform,
  parseConfig,
  parseManifest,
  selectManifest,
  type Index,
  type Platform,
} from './manifest.js';

const digest = `sha256:${'b'.repeat(64)}`;
const config = { mediaType: mediaTypes.ociConfig, digest, size: 7 };
const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size: 9 };
const bytes = (value: unknown): Buffer => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
const parse = (value: unknown, type?: string) => parseManifest(bytes(value), type, 'x');
const throws = (work: () => unknown, kind: ErrorKind, message: RegExp): void =>
  assert.throws(work, (error: Error) => isKind(error, kind) && message.test(error.message));

describe('manifests', () => {
  it('of OCI and of Docker are read', () => {
    for (const mediaType of [mediaTypes.ociManifest, mediaTypes.dockerManifest]) {
      const manifest = parse({ schemaVersion: 2, mediaType, config, layers: [layer] }, mediaType);
      assert.ok(manifest.kind === 'manifest');
      assert.deepEqual(
        manifest.layers.map((each) => each.size),
        [9],
      );
    }
  });

  it('without a type of their own go by what they were served as, or by their shape', () => {
    assert.equal(
      parse({ schemaVersion: 2, config, layers: [] }, `${mediaTypes.ociManifest}; charset=utf-8`).kind,
      'manifest',
    );
    assert.equal(parse({ schemaVersion: 2, config, layers: [] }).kind, 'manifest');
    assert.equal(parse({ schemaVersion: 2, manifests: [] }, 'application/json').kind, 'index');
  });

  it('that contradict themselves or their server are refused', () => {
    throws(() => parse({ schemaVersion: 2, manifests: [], layers: [] }), 'corrupt', /at once/);
    const body = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [] };
    throws(() => parse(body, mediaTypes.ociIndex), 'corrupt', /calls itself/);
  });

  it('of other kinds are refused by name', () => {
    throws(() => parse({ schemaVersion: 1 }), 'unimplemented', /schema 1/);
    throws(() => parse({ schemaVersion: 2, mediaType: 'application/x' }), 'unimplemented', /application\/x/);
    throws(() => parse({ schemaVersion: 2 }, 'text/html'), 'unimplemented', /text\/html/);
    const other = { ...config, mediaType: 'application/vnd.cncf.helm.config.v1+json' };
    throws(() => parse({ schemaVersion: 2, config: other, layers: [] }), 'unimplemented', /helm/);
    const strange = { ...layer, mediaType: 'application/vnd.oci.image.layer.v1.tar+bzip2' };
    throws(() => parse({ schemaVersion: 2, config, layers: [strange] }), 'unimplemented', /bzip2/);
  });

  const malformed: Readonly<Record<string, unknown>> = {
    'no JSON': 'nonsense',
    'no UTF-8': Buffer.from([0x22, 0xff, 0x22]).toString('latin1'),
    'a list': [],
    'no version': { config, layers: [] },
    'no layers': { schemaVersion: 2, config },
    'layers of another shape': { schemaVersion: 2, config, layers: {} },
    'a digest of another kind': { schemaVersion: 2, config: { ...config, digest: 'md5:00' }, layers: [] },
    'a digest with a path': { schemaVersion: 2, config: { ...config, digest: '../../etc/passwd' }, layers: [] },
    'a negative size': { schemaVersion: 2, config: { ...config, size: -1 }, layers: [] },
    'a fractional size': { schemaVersion: 2, config: { ...config, size: 1.5 }, layers: [] },
    'too many layers': { schemaVersion: 2, config, layers: Array.from({ length: 1001 }, () => layer) },
  };
  for (const [what, body] of Object.entries(malformed)) {
    it(`with ${what} are corrupt`, () => throws(() => parse(body), 'corrupt', /^x/));
  }

  it('larger than a document may be are corrupt', () => {
    throws(() => parseManifest(Buffer.alloc(maxDocumentBytes + 1), undefined, 'x'), 'corrupt', /larger/);
  });
});

describe('image configurations', () => {
  it('give what running needs', () => {
    const given = parseConfig(
      bytes({
        architecture: 'x86_64',
        os: 'linux',
        rootfs: { type: 'layers', diff_ids: [digest] },
        config: { Env: ['A=b'], Cmd: ['c'], User: '1:2', WorkingDir: '/w', Volumes: { '/v': {} }, Labels: { l: 'm' } },
      }),
      'x',
    );
    assert.deepEqual(given, {
      platform: { os: 'linux', architecture: 'amd64' },
      diffIds: [digest],
      run: {
        env: ['A=b'],
        entrypoint: [],
        cmd: ['c'],
        user: '1:2',
        workingDir: '/w',
        stopSignal: '',
        volumes: ['/v'],
        labels: { l: 'm' },
      },
    });
  });

  it('may leave out nearly everything, also as null', () => {
    assert.deepEqual(parseConfig(bytes({}), 'x').run.cmd, []);
    const nulls = { config: { Env: null, Cmd: null, Volumes: null, Labels: null, User: null } };
    assert.deepEqual(parseConfig(bytes(nulls), 'x').run.env, []);
    assert.deepEqual(parseConfig(bytes({ config: null }), 'x').run.volumes, []);
  });

  it('with fields of another shape are corrupt', () => {
    throws(() => parseConfig(bytes({ config: { Env: 'A=b' } }), 'x'), 'corrupt', /config\.Env/);
    throws(() => parseConfig(bytes({ config: { Cmd: [1] } }), 'x'), 'corrupt', /config\.Cmd/);
    throws(() => parseConfig(bytes({ rootfs: { diff_ids: ['x'] } }), 'x'), 'corrupt', /diff_ids\[0\]/);
  });
});

describe('platforms', () => {
  const platform = (text: string): Platform => {
    const [os = '', architecture = '', variant] = text.split('/');
    return { os, architecture, ...(variant !== undefined && { variant }) };
  };
  const index = (...offers: string[]): Index => ({
    kind: 'index',
    manifests: offers.map((each, i) => ({
      mediaType: mediaTypes.ociManifest,
      digest: `sha256:${String(i).repeat(64)}`,
      size: 1,
      annotations: {},
      platform: normalPlatform(platform(each)),
    })),
  });
  const choice = (own: string, ...offers: string[]): number =>
    Number(selectManifest(index(...offers), platform(own), 'x').digest.at(-1));

  it('have one normal form', () => {
    const forms = ['linux/x86_64', 'Linux/AMD64/v1', 'linux/aarch64', 'linux/arm64/v8', 'linux/armhf', 'linux/armel'];
    assert.deepEqual(
      forms.map((form) => formatPlatform(normalPlatform(platform(form)))),
      ['linux/amd64', 'linux/amd64', 'linux/arm64', 'linux/arm64', 'linux/arm/v7', 'linux/arm/v6'],
    );
  });

  it('choose what fits best', () => {
    assert.equal(choice('linux/amd64', 'linux/arm64', 'linux/amd64', 'linux/amd64'), 1);
    assert.equal(choice('linux/amd64', 'windows/amd64', 'linux/amd64/v1'), 1);
    assert.equal(choice('linux/amd64/v3', 'linux/amd64', 'linux/amd64/v4', 'linux/amd64/v2'), 2);
    assert.equal(choice('linux/arm/v7', 'linux/arm/v5', 'linux/arm/v6', 'linux/arm64'), 1);
    assert.equal(choice('linux/arm64', 'linux/arm/v7', 'linux/arm64/v8'), 1);
    assert.equal(choice('linux/arm64', 'linux/amd64', 'linux/arm/v7'), 1);
  });

  it('that are not offered are named, with what is', () => {
    throws(
      () => choice('linux/riscv64', 'linux/amd64', 'linux/arm64'),
      'not-found',
      /linux\/riscv64.*linux\/amd64, linux\/arm64/,
    );
  });

  it('pass over attestations, and take the only image whose platform is not said', () => {
    const { manifests } = index('linux/amd64', 'unknown/unknown');
    const [image, attestation] = manifests;
    assert.ok(image !== undefined && attestation !== undefined);
    const { platform: _platform, ...bare } = image;
    const marked = { ...attestation, annotations: { 'vnd.docker.reference.type': 'attestation-manifest' } };
    const chosen = selectManifest({ kind: 'index', manifests: [marked, bare] }, platform('linux/amd64'), 'x');
    assert.equal(chosen.digest, bare.digest);
  });

  it('say what can run', () => {
    assert.ok(canRun(platform('linux/amd64'), platform('linux/amd64')));
    assert.ok(canRun(platform('linux/amd64'), platform('/')));
    assert.ok(canRun(platform('linux/arm64'), platform('linux/arm/v7')));
    assert.ok(!canRun(platform('linux/amd64'), platform('linux/arm64')));
    assert.ok(!canRun(platform('linux/amd64'), platform('windows/amd64')));
  });
});

describe('chain ids', () => {
  it('are built as the OCI image specification says', () => {
    const [a, b, c] = ['a', 'b', 'c'].map(digestOf) as [string, string, string];
    const ab = digestOf(`${a} ${b}`);
    assert.deepEqual(chainIds([a, b, c]), [a, ab, digestOf(`${ab} ${c}`)]);
    assert.deepEqual(chainIds([]), []);
  });
});
