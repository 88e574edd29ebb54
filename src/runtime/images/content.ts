import { createHash, randomUUID, type Hash } from 'node:crypto';
import { renameSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat, unlink, writeFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno, messageOf, notFound, RuntimeError } from '../../kit/errors.js';
import { digestOf, type Descriptor } from './manifest.js';
import { isDigest } from './reference.js';

/**
 * The content store: blobs by digest, in the shape of an OCI image layout, so that other tools can read it. A blob is
 * written to a file of its own in `ingest/`, hashed on the way, and renamed into place when digest and size hold: what
 * is under `blobs/` is whole, at any instant.
 */
export interface ContentStore {
  has(digest: string): boolean;
  /** Bytes, or undefined when the blob is not there. */
  sizeOf(digest: string): number | undefined;
  pathOf(digest: string): string;
  /** A whole small blob. Errors: not-found, corrupt when larger than `limit` bytes or damaged. */
  read(digest: string, limit: number): Promise<Buffer>;
  put(bytes: Uint8Array): Promise<string>;
  ingest(): Promise<Ingest>;
  /** Gone from every answer at once; the disk is freed a little later. */
  remove(digest: string): void;
  digests(): readonly string[];
  /** Bytes of all blobs. */
  usedBytes(): number;
  /** Rewrites index.json: what the layout offers by name. */
  writeIndex(manifests: readonly Descriptor[]): Promise<void>;
}

export interface Ingest {
  readonly path: string;
  /** Bytes written so far. */
  readonly length: number;
  write(chunks: readonly Uint8Array[]): Promise<void>;
  /**
   * Makes the blob visible and gives its digest, which `announce` is told just before. Errors: corrupt when digest or
   * size differ from what is expected; the file is gone then.
   */
  commit(expected: Expected, announce?: (digest: string) => void): Promise<string>;
  /** Never throws; safe after `commit`. */
  discard(): Promise<void>;
}

export interface Expected {
  readonly digest?: string;
  /** Bytes. */
  readonly size?: number;
}

/** Opens the store at `root`; files that an earlier process was writing are removed. */
export async function openContentStore(root: string): Promise<ContentStore> {
  const blobs = join(root, 'blobs', 'sha256');
  const ingests = join(root, 'ingest');
  await rm(ingests, { recursive: true, force: true });
  for (const dir of [root, blobs, ingests]) await mkdir(dir, { recursive: true, mode: 0o700 });
  await writeFile(join(root, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  const sizes = await scan(blobs);
  let used = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  let lastIndex = Promise.resolve();

  const pathOf = (digest: string): string => {
    if (!isDigest(digest)) throw new RuntimeError('invalid-argument', `"${digest}" is no digest`);
    return join(blobs, digest.slice('sha256:'.length));
  };
  const adopt = async (from: string, digest: string, size: number): Promise<void> => {
    await rename(from, pathOf(digest));
    used += size - (sizes.get(digest) ?? 0);
    sizes.set(digest, size);
  };

  return {
    has: (digest) => sizes.has(digest),
    sizeOf: (digest) => sizes.get(digest),
    pathOf,
    async read(digest, limit) {
      const size = sizes.get(digest);
      if (size === undefined) throw notFound('blob', digest);
      if (size > limit) throw new RuntimeError('corrupt', `blob ${digest} is larger than ${limit} bytes`);
      const bytes = await readFile(pathOf(digest));
      if (digestOf(bytes) !== digest) throw new RuntimeError('corrupt', `blob ${digest} is damaged on disk`);
      return bytes;
    },
    async put(bytes) {
      const digest = digestOf(bytes);
      if (sizes.has(digest)) return digest;
      const path = join(ingests, randomUUID());
      await writeFile(path, bytes, { mode: 0o600 });
      await adopt(path, digest, bytes.byteLength);
      return digest;
    },
    ingest: async () => await openIngest(join(ingests, randomUUID()), adopt),
    remove(digest) {
      used -= sizes.get(digest) ?? 0;
      if (!sizes.delete(digest)) return;
      /* Renamed at once: a new blob of that digest must not meet the deletion of the old one. */
      const aside = join(ingests, randomUUID());
      renameSync(pathOf(digest), aside);
      void unlink(aside).catch(() => undefined);
    },
    digests: () => [...sizes.keys()],
    usedBytes: () => used,
    async writeIndex(manifests) {
      const text = JSON.stringify({ schemaVersion: 2, manifests });
      lastIndex = lastIndex.catch(() => undefined).then(async () => await replaceFile(root, ingests, text));
      await lastIndex;
    },
  };
}

async function scan(blobs: string): Promise<Map<string, number>> {
  const sizes = new Map<string, number>();
  for (const name of await readdir(blobs)) {
    const digest = `sha256:${name}`;
    if (isDigest(digest)) sizes.set(digest, (await stat(join(blobs, name))).size);
  }
  return sizes;
}

async function replaceFile(root: string, ingests: string, text: string): Promise<void> {
  const path = join(ingests, randomUUID());
  await writeFile(path, text, { mode: 0o600 });
  await rename(path, join(root, 'index.json'));
}

async function openIngest(
  path: string,
  adopt: (from: string, digest: string, size: number) => Promise<void>,
): Promise<Ingest> {
  const file = await open(path, 'wx', 0o600);
  const hash = createHash('sha256');
  const state = { length: 0, open: true };
  const discard = async (): Promise<void> => {
    if (state.open) {
      state.open = false;
      await file.close().catch(() => undefined);
    }
    await unlink(path).catch(() => undefined);
  };
  return {
    path,
    get length() {
      return state.length;
    },
    async write(chunks) {
      state.length += await append(file, hash, chunks, path);
    },
    async commit(expected, announce) {
      state.open = false;
      await file.close();
      const digest = `sha256:${hash.digest('hex')}`;
      const why = mismatch(expected, state.length, digest);
      if (why !== undefined) {
        await discard();
        throw new RuntimeError('corrupt', `blob ${expected.digest ?? digest}: ${why}`);
      }
      announce?.(digest);
      await adopt(path, digest, state.length);
      return digest;
    },
    discard,
  };
}

function mismatch(expected: Expected, length: number, digest: string): string | undefined {
  if (expected.size !== undefined && expected.size !== length) return `has ${length} bytes, not ${expected.size}`;
  if (expected.digest === undefined || digest === expected.digest) return undefined;
  return `its content has the digest ${digest}`;
}

async function append(file: FileHandle, hash: Hash, chunks: readonly Uint8Array[], path: string): Promise<number> {
  let length = 0;
  for (const chunk of chunks) {
    hash.update(chunk);
    length += chunk.byteLength;
  }
  try {
    const { bytesWritten } = await file.writev(chunks);
    if (bytesWritten !== length) throw new Error(`${bytesWritten} of ${length} bytes were written`);
  } catch (error) {
    const kind = isErrno(error, 'ENOSPC') || isErrno(error, 'EDQUOT') ? 'exhausted' : 'internal';
    throw new RuntimeError(kind, `write ${path}: ${messageOf(error)}`, { cause: error });
  }
  return length;
}
