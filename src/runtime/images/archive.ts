import { constants, createReadStream } from 'node:fs';
import { lstat, open } from 'node:fs/promises';
import { join, posix } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { extract, type Header } from 'tar-stream';
import { throwIfCancelled } from '../../kit/deadline.js';
import { isErrno, messageOf, notFound, RuntimeError } from '../../kit/errors.js';
import type { ContentStore } from './content.js';
import { decompressor, detectCompression } from './decompress.js';
import type { Lease } from './leases.js';
import { maxDocumentBytes } from './manifest.js';

/**
 * A place to import from: files by name. A directory is read as asked for; a tar archive is read once from front to
 * end, every file of it going into the content store, since what it is about may come last.
 */
export interface Archive {
  /** A small file, or undefined when there is none. Errors: corrupt when it is larger than a document may be. */
  document(name: string): Promise<Buffer | undefined>;
  /** Brings a file into the content store. Errors: not-found. */
  blob(name: string): Promise<{ readonly digest: string; readonly size: number }>;
}

interface ArchiveDeps {
  readonly content: ContentStore;
  readonly lease: Lease;
  readonly signal: AbortSignal;
}

const maxEntries = 100_000;

export async function openArchive(path: string, deps: ArchiveDeps): Promise<Archive> {
  const st = await lstat(path).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) throw notFound('archive', path);
    throw error;
  });
  if (st.isDirectory()) return directoryArchive(path, deps);
  return await tarArchive(path, deps);
}

// ------------------------------------------------------------------------------------------------- directories

function directoryArchive(root: string, deps: ArchiveDeps): Archive {
  const openFile = async (name: string) => {
    const path = await insidePath(root, name);
    if (path === undefined) return undefined;
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    if ((await file.stat()).isFile()) return file;
    await file.close();
    return undefined;
  };
  return {
    async document(name) {
      const file = await openFile(name);
      if (file === undefined) return undefined;
      try {
        if ((await file.stat()).size > maxDocumentBytes) throw tooLarge(name);
        return await file.readFile();
      } finally {
        await file.close();
      }
    },
    async blob(name) {
      const file = await openFile(name);
      if (file === undefined) throw notFound('file of the archive', name);
      return await store(file.createReadStream({ highWaterMark: 1 << 20 }), deps);
    },
  };
}

/** The path of a file below the directory, if every part of it is a real directory: links could lead out. */
async function insidePath(root: string, name: string): Promise<string | undefined> {
  const parts = safeName(name).split('/');
  let path = root;
  for (const [i, part] of parts.entries()) {
    path = join(path, part);
    const st = await lstat(path).catch((error: unknown) => {
      if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
      throw error;
    });
    if (st === undefined) return undefined;
    if (i < parts.length - 1 ? !st.isDirectory() : !st.isFile()) return undefined;
  }
  return path;
}

/** A name as archives hold it, made comparable. Errors: corrupt for a name that leads out. */
function safeName(name: string): string {
  const clean = posix.normalize(name).replace(/^\.\//, '').replace(/\/+$/, '');
  if (clean === '..' || clean.startsWith('../') || clean.startsWith('/') || clean.includes('\0')) {
    throw new RuntimeError('corrupt', `archive: the name ${JSON.stringify(name.slice(0, 200))} leads out of it`);
  }
  return clean;
}

const tooLarge = (name: string): RuntimeError =>
  new RuntimeError('corrupt', `archive: ${name} is larger than ${maxDocumentBytes} bytes`);

// ------------------------------------------------------------------------------------------------- tar

interface Held {
  readonly digest: string;
  readonly size: number;
}

async function tarArchive(path: string, deps: ArchiveDeps): Promise<Archive> {
  const files = new Map<string, Held>();
  const links = new Map<string, string>();
  await readTar(path, deps, async (header, body) => {
    if (files.size + links.size >= maxEntries) throw new RuntimeError('corrupt', 'archive: too many entries');
    const name = safeName(header.name);
    if (header.type === 'file' || header.type === 'contiguous-file') files.set(name, await store(body, deps));
    else if (header.type === 'symlink') links.set(name, posix.join(posix.dirname(name), header.linkname ?? ''));
    else if (header.type === 'link') links.set(name, header.linkname ?? '');
    body.resume();
  });
  /* docker save writes a layer that several images share once, and links to it. */
  const find = (name: string): Held | undefined => {
    let at = safeName(name);
    for (let hops = 0; hops < 10; hops++) {
      const target = links.get(at);
      if (target === undefined) return files.get(at);
      at = safeName(target);
    }
    return undefined;
  };
  return {
    async document(name) {
      const held = find(name);
      return held === undefined ? undefined : await deps.content.read(held.digest, maxDocumentBytes);
    },
    async blob(name) {
      const held = find(name);
      if (held === undefined) throw notFound('file of the archive', name);
      return held;
    },
  };
}

async function readTar(
  path: string,
  deps: ArchiveDeps,
  visit: (header: Header, body: Readable) => Promise<void>,
): Promise<void> {
  const head = await firstBytes(path);
  const decompress = decompressor(detectCompression(head));
  const source = createReadStream(path, { highWaterMark: 1 << 20 });
  const tar = extract();
  const feed =
    decompress === undefined
      ? pipeline(source, tar, { signal: deps.signal })
      : pipeline(source, decompress, tar, { signal: deps.signal });
  feed.catch(() => undefined);
  try {
    for await (const entry of tar) await visit(entry.header, entry as unknown as Readable);
    await feed;
  } catch (error) {
    source.destroy();
    tar.destroy();
    throwIfCancelled(deps.signal, `import ${path}`);
    if (error instanceof RuntimeError) throw error;
    throw new RuntimeError('corrupt', `archive ${path}: ${messageOf(error)}`, { cause: error });
  }
}

async function firstBytes(path: string): Promise<Buffer> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!(await file.stat()).isFile())
      throw new RuntimeError('invalid-argument', `${path} is no file and no directory`);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

async function store(body: AsyncIterable<Buffer>, deps: ArchiveDeps): Promise<Held> {
  const ingest = await deps.content.ingest();
  try {
    for await (const chunk of body) {
      throwIfCancelled(deps.signal, 'import');
      await ingest.write([chunk]);
    }
    const size = ingest.length;
    const digest = await ingest.commit({}, (known) => deps.lease.blobs([known]));
    return { digest, size };
  } finally {
    await ingest.discard();
  }
}
