/**
 * Stand-ins for the images that critest names, pushed to a plain-HTTP registry under their names without the host:
 *
 *     tsx test/conformance/images.ts REGISTRY WORK_DIRECTORY
 *
 * A runtime reaches them through a mirror. Every name that a test removes has an image id of its own.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TarEntry } from '../support/tar-builder.js';
import { testImageParts, type TestImageOptions, type TestImageParts } from '../support/test-image.js';

interface StandIn {
  readonly names: readonly string[];
  readonly image: Omit<TestImageOptions, 'name' | 'bare' | 'layers'>;
  /** Above the base; every image of its own has one. */
  readonly extra?: readonly TarEntry[];
  /** Without busybox. */
  readonly alone?: boolean;
}

const busybox = '/bin/busybox';

function standIns(program: Buffer): readonly StandIn[] {
  const file = (path: string, mode = 0o755): TarEntry => ({ path, content: program, mode });
  const marker = (name: string): readonly TarEntry[] => [{ path: name, content: '' }];
  const plain = (name: string, ...names: string[]): StandIn => ({ names, image: {}, extra: marker(name) });
  const user = (name: string, asUser: string): StandIn => ({
    names: [`k8s-staging-cri-tools/test-image-${name}:latest`],
    image: { user: asUser },
  });
  const nginx = (port: number): TestImageOptions['entrypoint'] => [
    '/usr/sbin/nginx',
    String(port),
    'nginx: master process nginx -g daemon off;',
    '',
  ];
  const busyboxTags = ['1', '1-glibc', '1-musl', '1-uclibc', '1.35.0-glibc', 'latest'];
  return [
    {
      names: ['3.6', '3.8', '3.9', '3.10'].map((tag) => `pause:${tag}`),
      image: { entrypoint: ['/pause'], cmd: [], user: '65535:65535' },
      extra: [file('pause')],
      alone: true,
    },
    { names: ['e2e-test-images/busybox:1.29-2', 'e2e-test-images/busybox:1.29-4'], image: {} },
    plain('lib', ...['library', 'docker/library'].flatMap((at) => busyboxTags.map((tag) => `${at}/busybox:${tag}`))),
    {
      names: ['e2e-test-images/nginx:1.14-2', 'e2e-test-images/nginx:1.14-4', 'library/nginx:latest'],
      image: { entrypoint: nginx(80) ?? [], cmd: [], stopSignal: 'SIGQUIT' },
      extra: [file('usr/sbin/nginx')],
    },
    {
      names: ['k8s-staging-cri-tools/hostnet-nginx-amd64:latest', 'k8s-staging-cri-tools/hostnet-nginx:latest'],
      image: { entrypoint: nginx(12003) ?? [], cmd: [], stopSignal: 'SIGQUIT' },
      extra: [file('usr/sbin/nginx')],
    },
    {
      names: ['e2e-test-images/httpd:2.4.39-4'],
      image: {
        entrypoint: ['/usr/local/bin/httpd', '80', 'httpd -DFOREGROUND', "Command line: 'httpd -D FOREGROUND'"],
        cmd: [],
        stopSignal: 'SIGWINCH',
      },
      extra: [file('usr/local/bin/httpd')],
    },
    { names: ['e2e-test-images/nonewprivs:1.3'], image: { cmd: ['/nnp'] }, extra: [file('nnp', 0o4755)] },
    ...['1', '2', '3', 'latest', 'digest'].map((name) =>
      plain(`image-${name}`, `k8s-staging-cri-tools/test-image-${name}:latest`),
    ),
    plain('tags', ...['1', '2', '3'].map((tag) => `k8s-staging-cri-tools/test-image-tags:${tag}`)),
    plain('test', 'k8s-staging-cri-tools/test-image-tag:test'),
    plain('all', 'k8s-staging-cri-tools/test-image-tag:all'),
    user('user-uid', '1002'),
    user('user-username', 'www-data'),
    user('user-uid-group', '1003:1004'),
    user('user-username-group', 'www-data:1004'),
    {
      names: ['k8s-staging-cri-tools/test-image-predefined-group:latest'],
      image: { user: '1000' },
      extra: [
        { path: 'etc/passwd', content: `${passwd}default-user:x:1000:1000::/home/default-user:/bin/sh\n` },
        { path: 'etc/group', content: `${group}group-defined-in-image:x:50000:default-user\n` },
      ],
    },
  ];
}

const passwd = [
  'root:x:0:0:root:/root:/bin/sh',
  'www-data:x:33:33:www-data:/var/www:/bin/false',
  'nobody:x:65534:65534:nobody:/home:/bin/false',
  '',
].join('\n');
const group = ['root:x:0:', 'tty:x:5:', 'wheel:x:10:root', 'www-data:x:33:', 'nogroup:x:65534:', ''].join('\n');

/** Hard links, one an applet: masking a symbolic link would mask busybox itself. */
function baseLayer(program: Buffer): readonly TarEntry[] {
  const directories = [
    'bin',
    'dev',
    'etc',
    'home',
    'proc',
    'run',
    'sys',
    'usr',
    'usr/bin',
    'usr/local',
    'usr/local/bin',
  ];
  const own = new Set(['busybox', 'sh', 'pgrep', 'ipcs']);
  const applets = execFileSync(busybox, ['--list'], { encoding: 'utf8' })
    .split('\n')
    .filter((name) => name !== '' && !own.has(name));
  return [
    ...[...directories, 'usr/sbin', 'var', 'var/run', 'var/www'].map((path) => ({ path: `${path}/` })),
    { path: 'root/', mode: 0o700 },
    { path: 'tmp/', mode: 0o1777 },
    { path: 'etc/passwd', content: passwd },
    { path: 'etc/group', content: group },
    { path: 'etc/hosts', content: '127.0.0.1\tlocalhost\n' },
    { path: 'bin/busybox', content: readFileSync(busybox), mode: 0o755 },
    ...applets.map((name): TarEntry => ({ path: `bin/${name}`, type: 'link', linkTo: 'bin/busybox', mode: 0o755 })),
    ...['sh', 'pgrep', 'ipcs'].map((name) => ({ path: `bin/${name}`, content: program, mode: 0o755 })),
  ];
}

async function push(registry: string, name: string, parts: TestImageParts): Promise<void> {
  const colon = name.lastIndexOf(':');
  const base = `http://${registry}/v2/${name.slice(0, colon)}`;
  for (const descriptor of [parts.config, ...parts.layers]) {
    const known = await fetch(`${base}/blobs/${descriptor.digest}`, { method: 'HEAD' });
    if (known.ok) continue;
    const begun = await expectOk(fetch(`${base}/blobs/uploads/`, { method: 'POST' }));
    const target = new URL(begun.headers.get('location') ?? '', base);
    target.searchParams.set('digest', descriptor.digest);
    await expectOk(fetch(target, { method: 'PUT', body: blobOf(parts, descriptor.digest) }));
  }
  const { mediaType, digest } = parts.manifest;
  const headers = { 'content-type': mediaType };
  const body = blobOf(parts, digest);
  await expectOk(fetch(`${base}/manifests/${name.slice(colon + 1)}`, { method: 'PUT', headers, body }));
  process.stdout.write(`${name} ${digest}\n`);
}

const blobOf = (parts: TestImageParts, digest: string): Uint8Array<ArrayBuffer> =>
  new Uint8Array(parts.blobs.get(digest) ?? Buffer.alloc(0));

async function expectOk(answer: Promise<Response>): Promise<Response> {
  const response = await answer;
  if (!response.ok) throw new Error(`${response.url}: ${response.status} ${await response.text()}`);
  return response;
}

async function main([registry = '', work = '']: readonly string[]): Promise<void> {
  mkdirSync(work, { recursive: true });
  const binary = join(work, 'stand-in');
  const source = fileURLToPath(new URL('stand-in.c', import.meta.url));
  execFileSync('musl-gcc', ['-static', '-Os', '-s', '-o', binary, source], { stdio: 'inherit' });
  const program = readFileSync(binary);
  const base = baseLayer(program);
  for (const { names, image, extra = [], alone = false } of standIns(program)) {
    const layers = [...(alone ? [] : [base]), ...(extra.length === 0 ? [] : [extra])];
    const parts = testImageParts({ name: names[0] ?? '', ...image, bare: true, layers });
    for (const name of names) await push(registry, name, parts);
  }
}

await main(process.argv.slice(2));
