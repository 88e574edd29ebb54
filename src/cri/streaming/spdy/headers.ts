import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';
import { RuntimeError } from '../../../kit/errors.js';
import { dictionaryId, headerDictionary } from './dictionary.js';

/**
 * Header blocks of SPDY/3.1: name/value pairs in one zlib stream per direction that goes on over all frames, cut at
 * sync flushes. After such a cut the next piece depends on nothing but the 32 KiB before it, so each block is handled
 * by itself with those as its dictionary.
 */
export type HeaderPairs = ReadonlyMap<string, string>;

const windowBytes = 32 << 10;
/** Much more than any remote command needs; less than what would hurt. */
const longestBlock = 64 << 10;
const zlibHeader = 0x78bb;
const headerBytes = 6;

class Window {
  #bytes: Buffer = headerDictionary;
  get bytes(): Buffer {
    return this.#bytes;
  }
  add(data: Buffer): void {
    this.#bytes = Buffer.from(Buffer.concat([this.#bytes, data]).subarray(-windowBytes));
  }
}

export class HeaderEncoder {
  readonly #window = new Window();
  #first = true;

  encode(headers: HeaderPairs): Buffer {
    const plain = writePairs(headers);
    const packed = deflateRawSync(plain, { dictionary: this.#window.bytes, finishFlush: constants.Z_SYNC_FLUSH });
    this.#window.add(plain);
    if (!this.#first) return packed;
    this.#first = false;
    const head = Buffer.alloc(headerBytes);
    head.writeUInt16BE(zlibHeader, 0);
    head.writeUInt32BE(dictionaryId, 2);
    return Buffer.concat([head, packed]);
  }
}

export class HeaderDecoder {
  readonly #window = new Window();
  #first = true;

  /** Throws `invalid-argument` for what is no header block of this stream. */
  decode(block: Buffer): HeaderPairs {
    const plain = this.#inflate(this.#first ? withoutHeader(block) : block);
    this.#first = false;
    this.#window.add(plain);
    return readPairs(plain);
  }

  #inflate(packed: Buffer): Buffer {
    try {
      return inflateRawSync(packed, {
        dictionary: this.#window.bytes,
        finishFlush: constants.Z_SYNC_FLUSH,
        maxOutputLength: longestBlock,
      });
    } catch (error) {
      throw malformed('does not inflate', error);
    }
  }
}

const malformed = (what: string, cause?: unknown): RuntimeError =>
  new RuntimeError('invalid-argument', `SPDY header block ${what}`, { cause });

function withoutHeader(block: Buffer): Buffer {
  if (block.length < 2 || (block.readUInt8(0) & 0x0f) !== 8 || block.readUInt16BE(0) % 31 !== 0) {
    throw malformed('has no zlib header');
  }
  const named = (block.readUInt8(1) & 0x20) !== 0;
  if (named && (block.length < headerBytes || block.readUInt32BE(2) !== dictionaryId)) {
    throw malformed('names another dictionary');
  }
  return block.subarray(named ? headerBytes : 2);
}

function writePairs(headers: HeaderPairs): Buffer {
  const strings = [...headers].flat().map((text) => Buffer.from(text, 'latin1'));
  const parts = [headers.size, ...strings.flatMap((text) => [text.length, text])];
  return Buffer.concat(parts.map((part) => (typeof part === 'number' ? u32(part) : part)));
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function readPairs(block: Buffer): HeaderPairs {
  let at = 0;
  const number = (): number => {
    if (at + 4 > block.length) throw malformed('is cut short');
    at += 4;
    return block.readUInt32BE(at - 4);
  };
  const text = (): string => {
    const length = number();
    if (at + length > block.length) throw malformed('is cut short');
    at += length;
    return block.toString('latin1', at - length, at);
  };
  const pairs = new Map<string, string>();
  for (let left = number(); left > 0; left--) pairs.set(text().toLowerCase(), text());
  return pairs;
}
