import type { FileHandle } from 'node:fs/promises';
import { throwIfCancelled } from '../../kit/deadline.js';
import { RuntimeError } from '../../kit/errors.js';

/**
 * Writes a tar archive to a file, without holding any of it in memory: POSIX ustar with pax headers for long names and
 * extended attributes, numbers that do not fit in base 256 as GNU tar and Go's archive/tar read them.
 *
 * Paths are bytes, one per character (latin1), since Linux' file names need not be UTF-8.
 */
export interface TarEntry {
  readonly path: string;
  readonly type: 'file' | 'directory' | 'symlink' | 'link' | 'char' | 'block' | 'fifo';
  readonly mode: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds since the epoch. */
  readonly mtime: number;
  readonly size?: number;
  readonly linkTo?: string;
  readonly device?: { readonly major: number; readonly minor: number };
  readonly xattrs?: Readonly<Record<string, Uint8Array>>;
}

const blockBytes = 512;
const chunkBytes = 1 << 20;
const typeFlags = { file: '0', link: '1', symlink: '2', char: '3', block: '4', directory: '5', fifo: '6' } as const;

export class TarWriter {
  readonly #file: FileHandle;
  readonly #signal: AbortSignal;
  readonly #start: number;
  #at: number;

  /** Writes from `at` on. Every method throws `cancelled` or `deadline` once the signal has aborted. */
  constructor(file: FileHandle, signal: AbortSignal, at = 0) {
    this.#file = file;
    this.#signal = signal;
    this.#start = at;
    this.#at = at;
  }

  /** An entry without content. */
  async entry(entry: TarEntry): Promise<void> {
    await this.#write(encodeEntry(entry));
  }

  async bytes(path: string, content: Uint8Array, mtime: number): Promise<void> {
    await this.entry({ path, type: 'file', mode: 0o600, mtime, size: content.length });
    await this.#write(content);
    await this.#pad(content.length);
  }

  /** Exactly `entry.size` bytes of `source`. Errors: `corrupt` when it is shorter. */
  async copy(entry: TarEntry, source: FileHandle): Promise<void> {
    const { size = 0 } = entry;
    await this.entry(entry);
    const buffer = Buffer.allocUnsafe(Math.min(size, chunkBytes));
    for (let left = size; left > 0;) {
      const { bytesRead } = await source.read(buffer, 0, Math.min(left, buffer.length), size - left);
      if (bytesRead === 0) throw new RuntimeError('corrupt', `${entry.path} became shorter while it was read`);
      await this.#write(buffer.subarray(0, bytesRead));
      left -= bytesRead;
    }
    await this.#pad(size);
  }

  /** An archive as a file of this one. Its size is known at its end, so its header is written last. */
  async nested(path: string, mtime: number, fill: (inner: TarWriter) => Promise<void>): Promise<void> {
    const headAt = this.#at;
    const head = (size: number): Buffer => encodeEntry({ path, type: 'file', mode: 0o600, mtime, size });
    await this.#write(head(0));
    const inner = new TarWriter(this.#file, this.#signal, this.#at);
    await fill(inner);
    await inner.end();
    const size = inner.length;
    await this.#file.write(head(size), 0, undefined, headAt);
    this.#at += size;
    await this.#pad(size);
  }

  async end(): Promise<void> {
    await this.#write(Buffer.alloc(2 * blockBytes));
  }

  get length(): number {
    return this.#at - this.#start;
  }

  async #pad(size: number): Promise<void> {
    const rest = size % blockBytes;
    if (rest > 0) await this.#write(Buffer.alloc(blockBytes - rest));
  }

  async #write(bytes: Uint8Array): Promise<void> {
    throwIfCancelled(this.#signal, 'write archive');
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, this.#at);
      done += bytesWritten;
      this.#at += bytesWritten;
    }
  }
}

function encodeEntry(entry: TarEntry): Buffer {
  const pax: (readonly [string, Buffer])[] = Object.entries(entry.xattrs ?? {}).map(
    ([name, value]) => [`SCHILY.xattr.${name}`, Buffer.from(value)] as const,
  );
  if (entry.path.length > 100) pax.push(['path', Buffer.from(entry.path, 'latin1')]);
  if ((entry.linkTo ?? '').length > 100) pax.push(['linkpath', Buffer.from(entry.linkTo ?? '', 'latin1')]);
  const head = encodeHeader(entry, typeFlags[entry.type]);
  if (pax.length === 0) return head;
  const records = Buffer.concat(pax.map(([key, value]) => paxRecord(key, value)));
  const paxHead = encodeHeader(
    { path: 'pax', type: 'file', mode: 0o600, mtime: entry.mtime, size: records.length },
    'x',
  );
  return Buffer.concat([
    paxHead,
    records,
    Buffer.alloc((blockBytes - (records.length % blockBytes)) % blockBytes),
    head,
  ]);
}

/** `LENGTH KEY=VALUE\n`, where LENGTH counts its own digits (POSIX.1-2001, pax). */
function paxRecord(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')]);
  let length = rest.length;
  while (rest.length + String(length).length !== length) length = rest.length + String(length).length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function encodeHeader(entry: TarEntry, flag: string): Buffer {
  const block = Buffer.alloc(blockBytes);
  block.write(entry.path, 0, 100, 'latin1');
  writeNumber(block, entry.mode & 0o7777, 100, 8);
  writeNumber(block, entry.uid ?? 0, 108, 8);
  writeNumber(block, entry.gid ?? 0, 116, 8);
  writeNumber(block, entry.size ?? 0, 124, 12);
  writeNumber(block, Math.max(0, Math.floor(entry.mtime)), 136, 12);
  block.fill(' ', 148, 156);
  block.write(flag, 156, 'latin1');
  block.write(entry.linkTo ?? '', 157, 100, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  writeNumber(block, entry.device?.major ?? 0, 329, 8);
  writeNumber(block, entry.device?.minor ?? 0, 337, 8);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** Octal with a final NUL where it fits, else base 256 with the first bit set. */
function writeNumber(block: Buffer, value: number, at: number, length: number): void {
  const digits = value.toString(8);
  if (digits.length < length) {
    block.write(digits.padStart(length - 1, '0'), at, 'latin1');
    return;
  }
  let rest = BigInt(value);
  for (let i = at + length - 1; i > at; i--, rest >>= 8n) block[i] = Number(rest & 0xffn);
  block[at] = 0x80;
}
