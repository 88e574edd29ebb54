import type { Call } from '../../kit/call.js';
import { RuntimeError } from '../../kit/errors.js';
import type { Image, RegistryAuth, StringMap } from '../model.js';
import type { ContentStore } from './content.js';
import type { Downloads } from './download.js';
import type { Layers } from './layers.js';
import type { Leases } from './leases.js';
import {
  canRun,
  chainIds,
  digestOf,
  formatPlatform,
  maxDocumentBytes,
  mediaTypes,
  parseConfig,
  parseManifest,
  selectManifest,
  type Descriptor,
  type ImageConfig,
  type Manifest,
  type Platform,
} from './manifest.js';
import type { OnProgress } from './progress.js';
import { formatReference, parseReference, type Reference } from './reference.js';
import type { Registry, RegistrySession, RemoteDocument } from './registry.js';
import { namesFor, type ImageRecord, type ImageStore } from './store.js';

export interface PullDeps {
  readonly registry: Registry;
  readonly content: ContentStore;
  readonly downloads: Downloads;
  readonly layers: Layers;
  readonly store: ImageStore;
  readonly leases: Leases;
  readonly platform: Platform;
}

export interface PullInput {
  readonly reference: string;
  readonly auth: RegistryAuth | undefined;
  readonly annotations: StringMap;
}

/** What a name stands for on this platform. */
interface Found {
  readonly manifest: Manifest;
  readonly descriptor: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>;
  /** The index or manifest the name itself points to, first, and what lies between. */
  readonly documents: readonly RemoteDocument[];
}

const maxIndexDepth = 4;

/**
 * Pulls an image: resolve · manifest · configuration · layers · record. Until the record is written, a lease keeps what
 * has arrived from being collected.
 */
export async function pullImage(input: PullInput, deps: PullDeps, call: Call, onProgress: OnProgress): Promise<Image> {
  const reference = parseReference(input.reference);
  const { observer, signal } = call;
  const session = await deps.registry.session(reference, input.auth);
  const current = await observer.step('compare with the local image', () =>
    unchanged(reference, input.annotations, session, deps, signal),
  );
  if (current !== undefined) return current;
  const found = await observer.step('resolve manifest', () => findManifest(reference, session, deps, signal));
  return await deps.leases.during(async (lease) => {
    lease.blobs(blobsOf(found));
    const config = await observer.step('fetch configuration', () => fetchConfig(found, session, deps, signal));
    lease.chains(chainIds(config.diffIds));
    await observer.step('store manifests', async () => {
      for (const document of found.documents) await deps.content.put(document.bytes);
    });
    const image = { layers: found.manifest.layers, diffIds: config.diffIds };
    await observer.step('fetch and unpack layers', () => deps.layers.ensure(image, session, signal, onProgress));
    return await observer.step('record image', () =>
      deps.store.add(recordOf(reference, found, config, input.annotations)),
    );
  });
}

/**
 * The image that is here already, when the registry says that the tag has not moved since. What is found and what is
 * recorded belong to one turn: the image may have been removed while the registry was asked.
 */
async function unchanged(
  reference: Reference,
  annotations: StringMap,
  session: RegistrySession,
  deps: PullDeps,
  signal: AbortSignal,
): Promise<Image | undefined> {
  const id = deps.store.resolve(formatReference(reference))?.id;
  if (id === undefined) return undefined;
  const digest = await session.head(reference.digest ?? reference.tag ?? 'latest', signal);
  const record = deps.store.get(id);
  const [name = ''] = digest === undefined ? [] : namesFor(reference, digest).digests;
  return record?.digests.includes(name) === true ? deps.store.add({ ...record, annotations }) : undefined;
}

async function findManifest(
  reference: Reference,
  session: RegistrySession,
  deps: PullDeps,
  signal: AbortSignal,
): Promise<Found> {
  const what = `manifest of ${formatReference(reference)}`;
  const documents: RemoteDocument[] = [];
  let next = reference.digest ?? reference.tag ?? 'latest';
  let mediaType: string | undefined;
  for (let depth = 0; depth < maxIndexDepth; depth++) {
    const document = await session.manifest(next, signal);
    documents.push(document);
    const parsed = parseManifest(document.bytes, document.mediaType ?? mediaType, what);
    if (parsed.kind === 'manifest') {
      const { digest, bytes } = document;
      const type = document.mediaType?.split(';')[0] ?? mediaType ?? mediaTypes.ociManifest;
      return { manifest: parsed, descriptor: { mediaType: type, digest, size: bytes.length }, documents };
    }
    ({ digest: next, mediaType } = selectManifest(parsed, deps.platform, what));
  }
  throw new RuntimeError('corrupt', `${what}: more than ${maxIndexDepth} levels of indexes`);
}

async function fetchConfig(
  found: Found,
  session: RegistrySession,
  deps: PullDeps,
  signal: AbortSignal,
): Promise<ImageConfig> {
  const { config } = found.manifest;
  if (config.size > maxDocumentBytes) {
    throw new RuntimeError('corrupt', `image configuration ${config.digest} is larger than ${maxDocumentBytes} bytes`);
  }
  if (!deps.content.has(config.digest)) await deps.downloads.fetchDocument(config, session, signal);
  return checkConfig(await deps.content.read(config.digest, maxDocumentBytes), found.manifest, deps.platform);
}

/** Reads a configuration and checks that it is for this platform and speaks of the manifest's layers. */
export function checkConfig(bytes: Uint8Array, manifest: Manifest, platform: Platform): ImageConfig {
  const config = parseConfig(bytes, `image configuration ${manifest.config.digest}`);
  if (!canRun(platform, config.platform)) {
    const [own, here] = [config.platform, platform].map(formatPlatform);
    throw new RuntimeError('not-found', `image configuration ${manifest.config.digest} is for ${own}, not ${here}`);
  }
  if (config.diffIds.length !== manifest.layers.length) {
    throw new RuntimeError(
      'corrupt',
      `image configuration ${manifest.config.digest} names ${config.diffIds.length} layers, the manifest ${manifest.layers.length}`,
    );
  }
  return config;
}

const blobsOf = (found: Found): readonly string[] => [
  ...found.documents.map((document) => digestOf(document.bytes)),
  found.manifest.config.digest,
  ...found.manifest.layers.map((layer) => layer.digest),
];

function recordOf(reference: Reference, found: Found, config: ImageConfig, annotations: StringMap): ImageRecord {
  const [top] = found.documents;
  return {
    id: found.manifest.config.digest,
    ...namesFor(reference, top?.digest ?? found.descriptor.digest),
    blobs: blobsOf(found),
    manifest: found.descriptor,
    size: imageSize(found.manifest, found.descriptor.size),
    config,
    chainId: chainIds(config.diffIds).at(-1) ?? '',
    annotations,
  };
}

/** Bytes of content: a layer that occurs twice is stored once. */
export function imageSize(manifest: Manifest, manifestSize: number): number {
  const blobs = new Map([manifest.config, ...manifest.layers].map((each) => [each.digest, each.size]));
  return [...blobs.values()].reduce((sum, size) => sum + size, manifestSize);
}
