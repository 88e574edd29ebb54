import { createHash } from 'node:crypto';
import { RuntimeError } from '../../kit/errors.js';
import type { ImageRunConfig } from '../model.js';
import { isDigest } from './reference.js';

/** Manifests, indexes and configurations of images: OCI image-spec 1.1 and Docker's schema 2, checked field by field. */

/** Bytes. What a registry or an archive may make us read as JSON. */
export const maxDocumentBytes = 8 << 20;

export const mediaTypes = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
} as const;

const indexTypes: readonly string[] = [mediaTypes.ociIndex, mediaTypes.dockerIndex];
const manifestTypes: readonly string[] = [mediaTypes.ociManifest, mediaTypes.dockerManifest];
const configTypes: readonly string[] = [mediaTypes.ociConfig, mediaTypes.dockerConfig];
const layerTypes: readonly RegExp[] = [
  /^application\/vnd\.oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?$/,
  /^application\/vnd\.docker\.image\.rootfs\.diff\.tar(\.gzip|\.zstd)?$/,
  /^application\/vnd\.docker\.image\.rootfs\.foreign\.diff\.tar(\.gzip)?$/,
];

/** What to send as `Accept` when asking for a manifest. */
export const acceptManifests = [...manifestTypes, ...indexTypes];

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: Platform;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface Manifest {
  readonly kind: 'manifest';
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

export interface Index {
  readonly kind: 'index';
  readonly manifests: readonly Descriptor[];
}

export interface ImageConfig {
  readonly platform: Platform;
  readonly diffIds: readonly string[];
  readonly run: ImageRunConfig;
}

type Json = Readonly<Record<string, unknown>>;

const corrupt = (what: string, why: string): RuntimeError => new RuntimeError('corrupt', `${what}: ${why}`);

export function digestOf(bytes: Uint8Array | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export function parseJson(bytes: Uint8Array, what: string): Json {
  if (bytes.byteLength > maxDocumentBytes) throw corrupt(what, `is larger than ${maxDocumentBytes} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw corrupt(what, 'is not JSON');
  }
  return asObject(value, what);
}

/**
 * Reads a manifest or an index. `mediaType` is what the registry or the descriptor says; the document's own field must
 * not contradict it. Errors: corrupt; unimplemented for a known kind of document that Berth does not run.
 */
export function parseManifest(bytes: Uint8Array, mediaType: string | undefined, what: string): Manifest | Index {
  const json = parseJson(bytes, what);
  const own = optionalString(json['mediaType'], `${what}: mediaType`);
  const outer = mediaType?.split(';')[0]?.trim().toLowerCase();
  if (json['schemaVersion'] === 1) throw new RuntimeError('unimplemented', `${what}: Docker schema 1 is not supported`);
  if (json['schemaVersion'] !== 2) throw corrupt(what, 'schemaVersion is not 2');
  const type = decideType(own, outer, json, what);
  if ('manifests' in json && ('layers' in json || 'config' in json)) {
    throw corrupt(what, 'is a manifest and an index at once');
  }
  return indexTypes.includes(type) ? parseIndex(json, what) : parseImageManifest(json, what);
}

function decideType(own: string | undefined, outer: string | undefined, json: Json, what: string): string {
  const known = [...indexTypes, ...manifestTypes];
  if (own !== undefined && !known.includes(own)) throw unknownType(what, own);
  if (own !== undefined && outer !== undefined && known.includes(outer) && own !== outer) {
    throw corrupt(what, `is called ${outer} and calls itself ${own}`);
  }
  if (own !== undefined) return own;
  if (outer !== undefined && known.includes(outer)) return outer;
  /* Some servers say application/json or nothing: OCI documents may leave the field out. */
  if (outer === undefined || outer === 'application/json' || outer === 'application/octet-stream') {
    return 'manifests' in json ? mediaTypes.ociIndex : mediaTypes.ociManifest;
  }
  throw unknownType(what, outer);
}

const unknownType = (what: string, type: string): RuntimeError =>
  new RuntimeError('unimplemented', `${what}: media type ${JSON.stringify(type.slice(0, 200))} is not supported`);

function parseIndex(json: Json, what: string): Index {
  const manifests = asArray(json['manifests'], `${what}: manifests`, 10_000);
  return { kind: 'index', manifests: manifests.map((each, i) => parseDescriptor(each, `${what}: manifests[${i}]`)) };
}

function parseImageManifest(json: Json, what: string): Manifest {
  const config = parseDescriptor(json['config'], `${what}: config`);
  if (!configTypes.includes(config.mediaType)) throw unknownType(`${what}: config`, config.mediaType);
  const layers = asArray(json['layers'], `${what}: layers`, 1000).map((each, i) => {
    const layer = parseDescriptor(each, `${what}: layers[${i}]`);
    if (!layerTypes.some((type) => type.test(layer.mediaType))) {
      throw unknownType(`${what}: layers[${i}]`, layer.mediaType);
    }
    return layer;
  });
  return { kind: 'manifest', config, layers };
}

export function parseDescriptor(value: unknown, what: string): Descriptor {
  const json = asObject(value, what);
  const digest = asString(json['digest'], `${what}.digest`);
  if (!isDigest(digest)) throw corrupt(what, 'digest must be sha256: and 64 hex digits');
  const size = json['size'];
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw corrupt(what, 'size is no byte count');
  const platform = json['platform'] === undefined ? undefined : parsePlatform(json['platform'], `${what}.platform`);
  return {
    mediaType: optionalString(json['mediaType'], `${what}.mediaType`) ?? '',
    digest,
    size,
    annotations: stringMap(json['annotations'], `${what}.annotations`),
    ...(platform !== undefined && { platform }),
  };
}

function parsePlatform(value: unknown, what: string): Platform {
  const json = asObject(value, what);
  const variant = optionalString(json['variant'], `${what}.variant`);
  return normalPlatform({
    os: optionalString(json['os'], `${what}.os`) ?? '',
    architecture: optionalString(json['architecture'], `${what}.architecture`) ?? '',
    ...(variant !== undefined && variant !== '' && { variant }),
  });
}

/** The configuration of an image. Errors: corrupt. */
export function parseConfig(bytes: Uint8Array, what: string): ImageConfig {
  const json = parseJson(bytes, what);
  const rootfs = asObject(json['rootfs'] ?? {}, `${what}: rootfs`);
  const diffIds = asArray(rootfs['diff_ids'] ?? [], `${what}: rootfs.diff_ids`, 1000).map((each, i) => {
    const id = asString(each, `${what}: rootfs.diff_ids[${i}]`);
    if (!isDigest(id)) throw corrupt(what, `rootfs.diff_ids[${i}] must be sha256: and 64 hex digits`);
    return id;
  });
  return { platform: parsePlatform(json, what), diffIds, run: runConfig(json['config'], `${what}: config`) };
}

function runConfig(value: unknown, what: string): ImageRunConfig {
  const json = value === undefined || value === null ? {} : asObject(value, what);
  return {
    env: stringList(json['Env'], `${what}.Env`),
    entrypoint: stringList(json['Entrypoint'], `${what}.Entrypoint`),
    cmd: stringList(json['Cmd'], `${what}.Cmd`),
    user: optionalString(json['User'], `${what}.User`) ?? '',
    workingDir: optionalString(json['WorkingDir'], `${what}.WorkingDir`) ?? '',
    stopSignal: optionalString(json['StopSignal'], `${what}.StopSignal`) ?? '',
    volumes: Object.keys(
      json['Volumes'] === undefined || json['Volumes'] === null ? {} : asObject(json['Volumes'], `${what}.Volumes`),
    ),
    labels: stringMap(json['Labels'], `${what}.Labels`),
  };
}

// ------------------------------------------------------------------------------------------------- platforms

/** `x86_64` and `aarch64` under their Go names; the variants every machine of that kind has are left out. */
export function normalPlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase();
  const given = platform.architecture.toLowerCase();
  const variant = platform.variant?.toLowerCase();
  if (given === 'x86_64' || given === 'x86-64') return { os, architecture: 'amd64' };
  if (given === 'aarch64' || given === 'arm64') {
    return {
      os,
      architecture: 'arm64',
      ...(variant !== undefined && variant !== 'v8' && variant !== '8' && { variant }),
    };
  }
  if (given === 'amd64' && variant === 'v1') return { os, architecture: 'amd64' };
  if (given === 'armhf') return { os, architecture: 'arm', variant: 'v7' };
  if (given === 'armel') return { os, architecture: 'arm', variant: 'v6' };
  return { os, architecture: given, ...(variant !== undefined && { variant }) };
}

export const formatPlatform = ({ os, architecture, variant }: Platform): string =>
  [os, architecture, ...(variant === undefined ? [] : [variant])].join('/');

/** What a machine of this platform can run, best first. */
function preferences(platform: Platform): readonly Platform[] {
  const { os, architecture, variant } = normalPlatform(platform);
  const versions = (from: number, to: number): (string | undefined)[] =>
    Array.from({ length: Math.max(from - to + 1, 0) }, (_, i) => `v${from - i}`);
  const level = variant === undefined ? Number.NaN : Number(variant.replace(/^v/, ''));
  if (architecture === 'arm64')
    return [{ os, architecture }, ...preferences({ os, architecture: 'arm', variant: 'v8' })];
  const variants =
    architecture === 'arm'
      ? [...versions(Number.isNaN(level) ? 7 : level, 5), undefined]
      : architecture === 'amd64' && !Number.isNaN(level)
        ? [...versions(level, 2), undefined]
        : [variant];
  return variants.map((each) => ({ os, architecture, ...(each !== undefined && { variant: each }) }));
}

/**
 * The entry of an index that fits a platform best; among equals the first. Entries that are no image (attestations and
 * other artifacts) never fit; an entry without a platform is taken when it is the only one.
 */
export function selectManifest(index: Index, platform: Platform, what: string): Descriptor {
  const usable = index.manifests.filter(
    (each) =>
      [...manifestTypes, ...indexTypes].includes(each.mediaType) &&
      each.annotations['vnd.docker.reference.type'] === undefined,
  );
  for (const wanted of preferences(platform)) {
    const found = usable.find(
      (each) => each.platform !== undefined && formatPlatform(each.platform) === formatPlatform(wanted),
    );
    if (found !== undefined) return found;
  }
  const [only] = usable;
  if (usable.length === 1 && only !== undefined && only.platform === undefined) return only;
  const offered = usable.map((each) => (each.platform === undefined ? 'unknown' : formatPlatform(each.platform)));
  throw new RuntimeError(
    'not-found',
    `${what}: no image for ${formatPlatform(normalPlatform(platform))}; there is ${offered.slice(0, 20).join(', ') || 'none'}`,
  );
}

/** Whether a machine of this platform can run an image that says it is for `offered`; saying nothing is for all. */
export function canRun(platform: Platform, offered: Platform): boolean {
  if (offered.os === '' && offered.architecture === '') return true;
  return preferences(platform).some((each) => formatPlatform(each) === formatPlatform(offered));
}

/** Chain ids of a stack of diff ids, base first (OCI image-spec, "Layer ChainID"). */
export function chainIds(diffIds: readonly string[]): readonly string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : digestOf(`${below} ${diffId}`));
  }
  return chain;
}

// ------------------------------------------------------------------------------------------------- fields

function asObject(value: unknown, what: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw corrupt(what, 'is no object');
  return value as Json;
}

function asArray(value: unknown, what: string, limit: number): readonly unknown[] {
  if (!Array.isArray(value)) throw corrupt(what, 'is no list');
  if (value.length > limit) throw corrupt(what, `has more than ${limit} entries`);
  return value;
}

function asString(value: unknown, what: string): string {
  if (typeof value !== 'string') throw corrupt(what, 'is no string');
  return value;
}

const optionalString = (value: unknown, what: string): string | undefined =>
  value === undefined || value === null ? undefined : asString(value, what);

const stringList = (value: unknown, what: string): readonly string[] =>
  value === undefined || value === null ? [] : asArray(value, what, 10_000).map((each) => asString(each, what));

function stringMap(value: unknown, what: string): Readonly<Record<string, string>> {
  if (value === undefined || value === null) return {};
  const entries = Object.entries(asObject(value, what)).map(([key, each]) => [key, asString(each, `${what}.${key}`)]);
  return Object.fromEntries(entries) as Readonly<Record<string, string>>;
}
