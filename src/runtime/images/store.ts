import { notFound } from '../../kit/errors.js';
import type { Image, StringMap } from '../model.js';
import { formatPlatform, type Descriptor, type ImageConfig } from './manifest.js';
import { formatReference, isDigest, parseReference, repositoryOf, type Reference } from './reference.js';

/** What the image store needs of a metadata store; `src/runtime/state/` has the durable one. */
export interface Table<T> {
  get(key: string): T | undefined;
  put(key: string, value: T): void;
  delete(key: string): void;
  entries(): Iterable<[string, T]>;
}

export interface MetadataStore {
  readonly images: Table<ImageRecord>;
  /** What `work` puts and deletes is committed together. */
  transaction(work: () => void): void;
}

/** One image: a configuration, the names it goes by, and the content that stands for it. */
export interface ImageRecord {
  /** Digest of the configuration. */
  readonly id: string;
  /** Normal forms, `docker.io/library/busybox:1`. */
  readonly tags: readonly string[];
  /** Normal forms, `docker.io/library/busybox@sha256:…`. */
  readonly digests: readonly string[];
  /** Indexes and manifests of all names, configuration and layers: every blob this image needs. */
  readonly blobs: readonly string[];
  /** The manifest that was chosen for this platform. */
  readonly manifest: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>;
  readonly size: number;
  readonly config: ImageConfig;
  readonly chainId: string;
  readonly annotations: StringMap;
}

export interface ImageStore {
  /** Adds an image, or more names to one. A tag that another image had moves here. */
  add(record: ImageRecord): Image;
  get(id: string): ImageRecord | undefined;
  /** By a tag, a digest reference, a full id, or a unique prefix of one (with or without `sha256:`). */
  resolve(refOrId: string): Image | undefined;
  list(): readonly Image[];
  records(): readonly ImageRecord[];
  delete(id: string): void;
  /** Recomputes what depends on the list of pinned images. */
  image(id: string): Image;
}

/** Reads everything once; all reads after that come from memory. `pinned` are globs over names (`*` and `?`). */
export function openImageStore(tables: MetadataStore, pinned: readonly string[]): ImageStore {
  const records = new Map<string, ImageRecord>();
  const names = new Map<string, string>();
  const images = new Map<string, Image>();
  const globs = pinned.map(globPattern);

  const load = (record: ImageRecord): Image => {
    const image = imageOf(record, globs);
    records.set(record.id, record);
    images.set(record.id, image);
    for (const name of [...record.tags, ...record.digests]) names.set(name, record.id);
    return image;
  };
  const unload = (id: string): void => {
    records.delete(id);
    images.delete(id);
    for (const [name, owner] of names) if (owner === id) names.delete(name);
  };
  for (const [, record] of tables.images.entries()) load(record);

  /** Records of other images without the names that `record` takes over. */
  const losers = (record: ImageRecord): readonly ImageRecord[] => {
    const taken = new Set([...record.tags, ...record.digests]);
    return [...records.values()]
      .filter((other) => other.id !== record.id && [...other.tags, ...other.digests].some((name) => taken.has(name)))
      .map((other) => ({
        ...other,
        tags: other.tags.filter((name) => !taken.has(name)),
        digests: other.digests.filter((name) => !taken.has(name)),
      }));
  };

  return {
    add(record) {
      const merged = mergeRecords(records.get(record.id), record);
      const changed = losers(merged);
      tables.transaction(() => {
        for (const other of changed) tables.images.put(other.id, other);
        tables.images.put(merged.id, merged);
      });
      for (const other of changed) load(other);
      return load(merged);
    },
    get: (id) => records.get(id),
    resolve(refOrId) {
      const id = findId(refOrId, names, images);
      return id === undefined ? undefined : images.get(id);
    },
    list: () => [...images.values()],
    records: () => [...records.values()],
    delete(id) {
      tables.transaction(() => tables.images.delete(id));
      unload(id);
    },
    image(id) {
      const image = images.get(id);
      if (image === undefined) throw notFound('image', id);
      return image;
    },
  };
}

const union = (a: readonly string[], b: readonly string[]): readonly string[] => [...new Set([...a, ...b])];

function mergeRecords(old: ImageRecord | undefined, fresh: ImageRecord): ImageRecord {
  if (old === undefined) return fresh;
  return {
    ...fresh,
    tags: union(old.tags, fresh.tags),
    digests: union(old.digests, fresh.digests),
    blobs: union(old.blobs, fresh.blobs),
  };
}

/** Ids come before names: `deadbeef` may be both, and the kubelet passes ids. */
function findId(
  text: string,
  names: ReadonlyMap<string, string>,
  images: ReadonlyMap<string, Image>,
): string | undefined {
  if (isDigest(text)) return images.has(text) ? text : undefined;
  if (/^[0-9a-f]{64}$/.test(text)) return images.has(`sha256:${text}`) ? `sha256:${text}` : undefined;
  const named = names.get(normalName(text) ?? '');
  if (named !== undefined) return named;
  const prefix = text.replace(/^sha256:/, '');
  if (!/^[0-9a-f]{4,63}$/.test(prefix)) return undefined;
  const matches = [...images.keys()].filter((id) => id.startsWith(`sha256:${prefix}`));
  return matches.length === 1 ? matches[0] : undefined;
}

function normalName(text: string): string | undefined {
  try {
    return formatReference(parseReference(text));
  } catch {
    return undefined;
  }
}

function imageOf(record: ImageRecord, globs: readonly RegExp[]): Image {
  const names = [...record.tags, ...record.digests];
  return {
    id: record.id,
    repoTags: record.tags,
    repoDigests: record.digests,
    size: record.size,
    pinned: globs.some((glob) => names.some((name) => glob.test(name)) || glob.test(record.id)),
    annotations: record.annotations,
    run: record.config.run,
    diffIds: record.config.diffIds,
    chainId: record.chainId,
    platform: formatPlatform(record.config.platform),
  };
}

/** `*` stands for any characters, `?` for one. A glob without a tag also means every tag. */
export function globPattern(glob: string): RegExp {
  const escaped = glob
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*/g, '.*')
    .replace(/\?/g, '.');
  return new RegExp(`^${escaped}(:[^/]*|@.*)?$`);
}

/** The names one reference gives: its tag if it has one, and its repository by the digest that was found there. */
export function namesFor(
  reference: Reference,
  digest: string,
): { tags: readonly string[]; digests: readonly string[] } {
  return {
    tags: reference.tag === undefined ? [] : [formatReference(reference)],
    digests: [`${repositoryOf(reference)}@${digest}`],
  };
}
