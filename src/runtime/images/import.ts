import type { Call } from '../../kit/call.js';
import { invalid, RuntimeError } from '../../kit/errors.js';
import type { Image } from '../model.js';
import { openArchive, type Archive } from './archive.js';
import type { ContentStore } from './content.js';
import type { Layers } from './layers.js';
import type { Leases } from './leases.js';
import {
  chainIds,
  maxDocumentBytes,
  mediaTypes,
  parseDescriptor,
  parseJson,
  parseManifest,
  selectManifest,
  type Descriptor,
  type ImageConfig,
  type Manifest,
  type Platform,
} from './manifest.js';
import type { OnProgress } from './progress.js';
import { checkConfig, imageSize } from './pull.js';
import { formatReference, parseReference, type Reference } from './reference.js';
import { namesFor, type ImageRecord, type ImageStore } from './store.js';

export interface ImportDeps {
  readonly content: ContentStore;
  readonly layers: Layers;
  readonly store: ImageStore;
  readonly leases: Leases;
  readonly platform: Platform;
}

export interface ImportOptions {
  /** In the place of the names in the archive; needs an archive of one image. */
  readonly name?: string;
}

/** One image of an archive, before its layers are unpacked. */
interface Candidate {
  readonly names: readonly Reference[];
  readonly manifest: Manifest;
  readonly descriptor: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>;
  readonly config: ImageConfig;
  readonly documents: readonly string[];
  /** False for a manifest that was made here and that no registry knows. */
  readonly hasOwnDigest: boolean;
}

/**
 * Imports images from an OCI image layout (a directory or a tar archive of one) or from what `docker save` writes.
 * Names are those in the archive, or the one given. Errors: not-found, invalid-argument, corrupt.
 */
export async function importImages(
  path: string,
  options: ImportOptions,
  deps: ImportDeps,
  call: Call,
  onProgress: OnProgress,
): Promise<Image[]> {
  const given = options.name === undefined ? undefined : parseReference(options.name);
  return await deps.leases.during(async (lease) => {
    const archive = await call.observer.step('read archive', () =>
      openArchive(path, { content: deps.content, lease, signal: call.signal }),
    );
    const candidates = await call.observer.step('resolve images', () => findCandidates(archive, deps));
    if (candidates.length === 0) throw new RuntimeError('corrupt', `${path}: holds no image`);
    if (given !== undefined && candidates.length > 1) {
      throw invalid('name', `${path} holds ${candidates.length} images: a name can be given for one only`);
    }
    const images: Image[] = [];
    for (const candidate of candidates) {
      const { layers } = candidate.manifest;
      const { diffIds } = candidate.config;
      lease.blobs([...candidate.documents, ...layers.map((layer) => layer.digest)]);
      lease.chains(chainIds(diffIds));
      await call.observer.step('unpack layers', () =>
        deps.layers.ensure({ layers, diffIds }, undefined, call.signal, onProgress),
      );
      images.push(deps.store.add(recordOf(candidate, given)));
    }
    return images;
  });
}

async function findCandidates(archive: Archive, deps: ImportDeps): Promise<readonly Candidate[]> {
  /* docker save writes both kinds since version 25; the OCI one keeps the digests that registries know. */
  const index = await archive.document('index.json');
  if (index !== undefined) return await layoutCandidates(archive, index, deps);
  const saved = await archive.document('manifest.json');
  if (saved !== undefined) return await savedCandidates(archive, saved, deps);
  throw new RuntimeError('corrupt', 'archive: neither index.json nor manifest.json is in it');
}

// ------------------------------------------------------------------------------------------------- OCI layout

const blobName = (digest: string): string => `blobs/sha256/${digest.slice('sha256:'.length)}`;

/** Brings a blob in and checks that it is what its name promises. */
async function takeBlob(archive: Archive, wanted: Descriptor): Promise<void> {
  const { digest, size } = await archive.blob(blobName(wanted.digest));
  if (digest !== wanted.digest)
    throw new RuntimeError('corrupt', `archive: blob ${wanted.digest} is in truth ${digest}`);
  if (size !== wanted.size) {
    throw new RuntimeError('corrupt', `archive: blob ${wanted.digest} has ${size} bytes, not ${wanted.size}`);
  }
}

async function layoutCandidates(archive: Archive, bytes: Buffer, deps: ImportDeps): Promise<readonly Candidate[]> {
  const json = parseJson(bytes, 'index.json');
  const list = Array.isArray(json['manifests']) ? (json['manifests'] as unknown[]) : [];
  if (list.length > 1000) throw new RuntimeError('corrupt', 'index.json: more than 1000 manifests');
  const groups = new Map<string, Descriptor[]>();
  for (const [i, each] of list.entries()) {
    const descriptor = parseDescriptor(each, `index.json: manifests[${i}]`);
    const name = nameIn(descriptor) ?? `@${descriptor.platform === undefined ? descriptor.digest : ''}`;
    groups.set(name, [...(groups.get(name) ?? []), descriptor]);
  }
  const candidates: Candidate[] = [];
  for (const [name, manifests] of groups) {
    const names = name.startsWith('@') ? [] : [parseReference(name)];
    candidates.push(await layoutCandidate(archive, manifests, names, deps));
  }
  return candidates;
}

/** A name that says more than a tag. */
function nameIn(descriptor: Descriptor): string | undefined {
  const full = descriptor.annotations['io.containerd.image.name'];
  const short = descriptor.annotations['org.opencontainers.image.ref.name'];
  if (full !== undefined) return full;
  return short !== undefined && /[/:]/.test(short) ? short : undefined;
}

async function layoutCandidate(
  archive: Archive,
  manifests: readonly Descriptor[],
  names: readonly Reference[],
  deps: ImportDeps,
): Promise<Candidate> {
  const [first] = manifests;
  const documents: string[] = [];
  let next =
    manifests.length === 1 && first !== undefined
      ? first
      : selectManifest({ kind: 'index', manifests }, deps.platform, 'index.json');
  for (let depth = 0; depth < 4; depth++) {
    if (next.size > maxDocumentBytes)
      throw new RuntimeError('corrupt', `archive: manifest ${next.digest} is too large`);
    await takeBlob(archive, next);
    documents.push(next.digest);
    const what = `manifest ${next.digest}`;
    const parsed = parseManifest(await deps.content.read(next.digest, maxDocumentBytes), next.mediaType, what);
    if (parsed.kind === 'index') next = selectManifest(parsed, deps.platform, what);
    else {
      await takeBlob(archive, parsed.config);
      const config = await readConfig(parsed, deps);
      for (const layer of parsed.layers) await takeLayer(archive, layer, deps);
      return { names, manifest: parsed, descriptor: next, config, documents, hasOwnDigest: true };
    }
  }
  throw new RuntimeError('corrupt', 'archive: too many levels of indexes');
}

const takeLayer = async (archive: Archive, layer: Descriptor, deps: ImportDeps): Promise<void> => {
  if (!deps.content.has(layer.digest)) await takeBlob(archive, layer);
};

const readConfig = async (manifest: Manifest, deps: ImportDeps): Promise<ImageConfig> =>
  checkConfig(await deps.content.read(manifest.config.digest, maxDocumentBytes), manifest, deps.platform);

// ------------------------------------------------------------------------------------------------- docker save

async function savedCandidates(archive: Archive, bytes: Buffer, deps: ImportDeps): Promise<readonly Candidate[]> {
  const list: unknown = parseJson(Buffer.concat([Buffer.from('{"list":'), bytes, Buffer.from('}')]), 'manifest.json')[
    'list'
  ];
  if (!Array.isArray(list) || list.length > 1000)
    throw new RuntimeError('corrupt', 'manifest.json: is no list of images');
  const candidates: Candidate[] = [];
  for (const each of list as unknown[]) candidates.push(await savedCandidate(archive, each, deps));
  return candidates;
}

async function savedCandidate(archive: Archive, value: unknown, deps: ImportDeps): Promise<Candidate> {
  const { config: configName, layers: layerNames, tags } = savedEntry(value);
  const none = { annotations: {} };
  const config = { ...(await archive.blob(configName)), mediaType: mediaTypes.dockerConfig, ...none };
  const layers: Descriptor[] = [];
  for (const name of layerNames) {
    const mediaType = 'application/vnd.docker.image.rootfs.diff.tar.gzip';
    layers.push({ ...(await archive.blob(name)), mediaType, ...none });
  }
  const manifest: Manifest = { kind: 'manifest', config, layers };
  const mediaType = mediaTypes.dockerManifest;
  const plain = ({ digest, size, mediaType: type }: Descriptor): unknown => ({ mediaType: type, digest, size });
  const body = { schemaVersion: 2, mediaType, config: plain(config), layers: layers.map(plain) };
  const bytes = Buffer.from(JSON.stringify(body));
  const digest = await deps.content.put(bytes);
  return {
    names: tags.map(parseReference),
    manifest,
    descriptor: { mediaType, digest, size: bytes.length },
    config: await readConfig(manifest, deps),
    documents: [digest],
    hasOwnDigest: false,
  };
}

function savedEntry(value: unknown): { config: string; layers: readonly string[]; tags: readonly string[] } {
  const bad = (): RuntimeError => new RuntimeError('corrupt', 'manifest.json: an entry is malformed');
  if (typeof value !== 'object' || value === null) throw bad();
  const { Config: config, Layers: layers, RepoTags: tags } = value as Record<string, unknown>;
  const isList = (each: unknown): each is string[] =>
    Array.isArray(each) && each.length <= 1000 && each.every((item) => typeof item === 'string');
  if (typeof config !== 'string' || !isList(layers) || !(isList(tags) || tags === null || tags === undefined))
    throw bad();
  return { config, layers, tags: tags ?? [] };
}

// ------------------------------------------------------------------------------------------------- record

function recordOf(candidate: Candidate, given: Reference | undefined): ImageRecord {
  const { manifest, descriptor, config, documents, hasOwnDigest } = candidate;
  const names = given === undefined ? candidate.names : [given];
  const [top = descriptor.digest] = documents;
  return {
    id: manifest.config.digest,
    tags: names.filter((name) => name.tag !== undefined).map(formatReference),
    digests: hasOwnDigest ? [...new Set(names.flatMap((name) => namesFor(name, top).digests))] : [],
    blobs: [...new Set([...documents, manifest.config.digest, ...manifest.layers.map((layer) => layer.digest)])],
    manifest: { mediaType: descriptor.mediaType, digest: descriptor.digest, size: descriptor.size },
    size: imageSize(manifest, descriptor.size),
    config,
    chainId: chainIds(config.diffIds).at(-1) ?? '',
    annotations: {},
  };
}
