import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { tar, type TarEntry } from './tar-builder.js';

/**
 * Small images made from nothing but a static binary, without network or foreign tools, for every test that needs
 * something to run.
 */

export interface TestFile {
  readonly content?: string | Buffer;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Makes the entry a symbolic link. */
  readonly linkTo?: string;
  /** Makes the entry a directory. */
  readonly directory?: boolean;
}

export interface TestImageOptions {
  /** Full reference, `docker.io/library/test:1`; recorded as the name an import finds. */
  readonly name: string;
  /** A static executable; default /bin/busybox of Debian's busybox-static, with a link per applet. */
  readonly binary?: string;
  /** Path of the binary inside; default `/bin/` and its base name. */
  readonly binaryPath?: string;
  readonly entrypoint?: readonly string[];
  /** Default `['sh']` when neither entrypoint nor cmd is given. */
  readonly cmd?: readonly string[];
  readonly user?: string;
  readonly env?: readonly string[];
  readonly workingDir?: string;
  readonly stopSignal?: string;
  readonly volumes?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  /** Absolute path → content or description; a second layer. */
  readonly files?: Readonly<Record<string, string | TestFile>>;
  /** Further layers as raw tar entries, above the others. */
  readonly layers?: readonly (readonly TarEntry[])[];
  /** Leaves out the base layer (binary, /etc/passwd …): only `files` and `layers`. */
  readonly bare?: boolean;
  readonly compression?: 'gzip' | 'none';
  /** Default `amd64` or `arm64`, as this machine. */
  readonly architecture?: string;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface TestImageParts {
  readonly manifest: Descriptor;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly diffIds: readonly string[];
  /** Every blob by digest, the manifest included. */
  readonly blobs: ReadonlyMap<string, Buffer>;
}

export const digestOf = (bytes: Buffer | string): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Writes an OCI image layout with one image below `dir` (created when missing) and returns `dir`. */
export function buildTestImage(dir: string, options: TestImageOptions): string {
  const parts = testImageParts(options);
  const blobs = join(dir, 'blobs', 'sha256');
  mkdirSync(blobs, { recursive: true });
  for (const [digest, bytes] of parts.blobs) writeFileSync(join(blobs, digest.slice('sha256:'.length)), bytes);
  const annotations = {
    'io.containerd.image.name': options.name,
    'org.opencontainers.image.ref.name': /:([^:/]+)$/.exec(options.name)?.[1] ?? 'latest',
  };
  const index = { schemaVersion: 2, mediaType: mediaTypes.index, manifests: [{ ...parts.manifest, annotations }] };
  writeFileSync(join(dir, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  writeFileSync(join(dir, 'index.json'), JSON.stringify(index));
  return dir;
}

const mediaTypes = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar',
};

/** The same image in memory, for tests that serve it themselves. */
export function testImageParts(options: TestImageOptions): TestImageParts {
  const blobs = new Map<string, Buffer>();
  const add = (mediaType: string, bytes: Buffer): Descriptor => {
    const digest = digestOf(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const archives = layerEntries(options).map(tar);
  const diffIds = archives.map(digestOf);
  const layers = archives.map((archive) =>
    options.compression === 'none'
      ? add(mediaTypes.layer, archive)
      : add(`${mediaTypes.layer}+gzip`, gzipSync(archive, { level: 1 })),
  );
  const config = add(mediaTypes.config, Buffer.from(JSON.stringify(imageConfig(options, diffIds))));
  const body = { schemaVersion: 2, mediaType: mediaTypes.manifest, config, layers };
  const manifest = add(mediaTypes.manifest, Buffer.from(JSON.stringify(body)));
  return { manifest, config, layers, diffIds, blobs };
}

function imageConfig(options: TestImageOptions, diffIds: readonly string[]): unknown {
  const cmd = options.cmd ?? (options.entrypoint === undefined ? ['sh'] : undefined);
  return {
    architecture: options.architecture ?? (process.arch === 'x64' ? 'amd64' : process.arch),
    os: 'linux',
    created: '2024-01-01T00:00:00Z',
    config: {
      Env: options.env ?? ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      ...(options.entrypoint && { Entrypoint: options.entrypoint }),
      ...(cmd && { Cmd: cmd }),
      ...(options.user !== undefined && { User: options.user }),
      ...(options.workingDir !== undefined && { WorkingDir: options.workingDir }),
      ...(options.stopSignal !== undefined && { StopSignal: options.stopSignal }),
      ...(options.volumes && { Volumes: Object.fromEntries(options.volumes.map((path) => [path, {}])) }),
      ...(options.labels && { Labels: options.labels }),
    },
    rootfs: { type: 'layers', diff_ids: diffIds },
    history: diffIds.map(() => ({ created: '2024-01-01T00:00:00Z', created_by: 'test' })),
  };
}

function layerEntries(options: TestImageOptions): (readonly TarEntry[])[] {
  const layers: (readonly TarEntry[])[] = [];
  if (options.bare !== true) layers.push(baseLayer(options));
  if (options.files !== undefined) layers.push(Object.entries(options.files).map(fileEntry));
  return [...layers, ...(options.layers ?? [])];
}

function fileEntry([path, given]: [string, string | TestFile]): TarEntry {
  const file: TestFile = typeof given === 'string' ? { content: given } : given;
  const name = path.replace(/^\/+/, '');
  const owner = { uid: file.uid ?? 0, gid: file.gid ?? 0 };
  if (file.directory === true) return { path: `${name.replace(/\/+$/, '')}/`, mode: file.mode ?? 0o755, ...owner };
  if (file.linkTo !== undefined) return { path: name, type: 'symlink', linkTo: file.linkTo, mode: 0o777, ...owner };
  return { path: name, content: file.content ?? '', mode: file.mode ?? 0o644, ...owner };
}

const directories = ['bin', 'dev', 'etc', 'home', 'proc', 'run', 'sys', 'usr', 'usr/bin', 'var'];

const passwd = [
  'root:x:0:0:root:/root:/bin/sh',
  'daemon:x:1:1:daemon:/usr/sbin:/bin/false',
  'app:x:1000:1000:app:/home:/bin/sh',
  'nobody:x:65534:65534:nobody:/nonexistent:/bin/false',
];
const group = ['root:x:0:', 'daemon:x:1:', 'tty:x:5:', 'app:x:1000:', 'extra:x:50000:app', 'nogroup:x:65534:'];

function baseLayer(options: TestImageOptions): readonly TarEntry[] {
  const binary = options.binary ?? '/bin/busybox';
  const inside = (options.binaryPath ?? `/bin/${binary.slice(binary.lastIndexOf('/') + 1)}`).replace(/^\/+/, '');
  const entries: TarEntry[] = directories.map((path) => ({ path: `${path}/` }));
  entries.push({ path: 'root/', mode: 0o700 }, { path: 'tmp/', mode: 0o1777 });
  entries.push({ path: 'etc/passwd', content: `${passwd.join('\n')}\n` });
  entries.push({ path: 'etc/group', content: `${group.join('\n')}\n` });
  entries.push({ path: inside, content: readFileSync(binary), mode: 0o755 });
  if (options.binary === undefined) entries.push(...appletLinks(binary));
  return entries;
}

function appletLinks(binary: string): TarEntry[] {
  const applets = execFileSync(binary, ['--list'], { encoding: 'utf8' }).split('\n');
  return applets
    .filter((name) => name !== '' && name !== 'busybox')
    .map((name) => ({ path: `bin/${name}`, type: 'symlink', linkTo: 'busybox', mode: 0o777 }));
}
