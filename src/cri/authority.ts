/**
 * Makes the `:authority` of old Go clients acceptable. grpc-go up to about 1.28 sends the path of the unix socket
 * there (`/run/berth/berth.sock`); Node's HTTP/2 answers PROTOCOL_ERROR before any JavaScript sees the request, since
 * `/` is no character of an authority (RFC 3986, section 3.2). Each `/` is replaced by `-`: both take one byte, or six
 * bits in HPACK's Huffman code, so every length stays true and both sides' dynamic tables stay in step (RFC 7541).
 *
 * Only a literal value has to change. Once the client has it in its dynamic table it sends an index, which stands for
 * the changed value on our side.
 */

/** HTTP/2's frame types and flags used here (RFC 9113, section 6). */
const headersFrame = 0x1;
const continuationFrame = 0x9;
const endHeadersFlag = 0x4;
const paddedFlag = 0x8;
const priorityFlag = 0x20;
const frameHeaderLength = 9;
const priorityLength = 5;

/** The client connection preface: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n". */
const prefaceLength = 24;

/** A header block held back for longer than this many bytes goes on as it is. */
const longestBlock = 256 * 1024;

/**
 * Looks at what a client sends, chunk by chunk, and returns what to hand on: the same bytes, with separators in
 * authorities replaced. A chunk that ends inside a header block is held back until the block is complete; everything
 * else passes without a copy. The chunks given are changed in place.
 */
export class AuthorityRewriter {
  #preface = prefaceLength;
  /** Bytes of the current frame's payload that pass unseen. */
  #skip = 0;
  #held: Buffer | undefined;
  #gaveUp = false;

  /** Pieces to hand on, in order; may be none. */
  push(chunk: Buffer): Buffer {
    if (this.#gaveUp) return chunk;
    if (this.#held === undefined) return this.#scan(chunk, 0);
    const joined = Buffer.concat([this.#held, chunk]);
    this.#held = undefined;
    return this.#scan(joined, 0);
  }

  /** What is held back when the client is done. */
  flush(): Buffer {
    const held = this.#held ?? Buffer.alloc(0);
    this.#held = undefined;
    return held;
  }

  #scan(data: Buffer, start: number): Buffer {
    let at = start + this.#passPreface(data.length);
    while (at < data.length) {
      const passed = Math.min(this.#skip, data.length - at);
      this.#skip -= passed;
      at += passed;
      if (this.#skip > 0 || at === data.length) return data;
      const end = this.#frame(data, at);
      if (end === undefined) return this.#hold(data, at);
      at = end;
    }
    return data;
  }

  #passPreface(available: number): number {
    const passed = Math.min(this.#preface, available);
    this.#preface -= passed;
    return passed;
  }

  /** Where to go on after the frame at `at`; undefined when more bytes are needed to tell. */
  #frame(data: Buffer, at: number): number | undefined {
    if (at + frameHeaderLength > data.length) return undefined;
    if (data[at + 3] !== headersFrame) {
      this.#skip = data.readUIntBE(at, 3);
      return at + frameHeaderLength;
    }
    const block = findBlock(data, at);
    if (block === undefined) return undefined;
    rewriteFragments(data, block.fragments);
    return block.end;
  }

  #hold(data: Buffer, at: number): Buffer {
    if (data.length - at > longestBlock) {
      this.#gaveUp = true;
      return data;
    }
    this.#held = Buffer.from(data.subarray(at));
    return data.subarray(0, at);
  }
}

interface Fragment {
  readonly start: number;
  readonly end: number;
}

interface Block {
  readonly fragments: readonly Fragment[];
  /** Where the frame after the block begins. */
  readonly end: number;
}

/** The header block that starts with the HEADERS frame at `at`: its fragments without padding and priority. */
function findBlock(data: Buffer, at: number): Block | undefined {
  const fragments: Fragment[] = [];
  for (let frame = at; frame + frameHeaderLength <= data.length;) {
    const type = data[frame + 3];
    if (frame !== at && type !== continuationFrame) return { fragments: [], end: frame };
    const start = frame + frameHeaderLength;
    const end = start + data.readUIntBE(frame, 3);
    if (end > data.length) return undefined;
    const flags = data[frame + 4] ?? 0;
    fragments.push(type === headersFrame ? withoutExtras(data, start, end, flags) : { start, end });
    if ((flags & endHeadersFlag) !== 0) return { fragments, end };
    frame = end;
  }
  return undefined;
}

function withoutExtras(data: Buffer, start: number, end: number, flags: number): Fragment {
  const padded = (flags & paddedFlag) !== 0;
  const padding = padded ? (data[start] ?? 0) : 0;
  const skipped = (padded ? 1 : 0) + ((flags & priorityFlag) === 0 ? 0 : priorityLength);
  return { start: Math.min(start + skipped, end), end: Math.max(end - padding, start) };
}

function rewriteFragments(data: Buffer, fragments: readonly Fragment[]): void {
  const [only] = fragments;
  if (only === undefined) return;
  if (fragments.length === 1) return void rewriteAuthority(data.subarray(only.start, only.end));
  const block = Buffer.concat(fragments.map(({ start, end }) => data.subarray(start, end)));
  rewriteAuthority(block);
  let from = 0;
  for (const { start, end } of fragments) {
    from += block.copy(data, start, from, from + Math.max(end - start, 0));
  }
}

// ------------------------------------------------------------------------------------------------------------ HPACK

/** Index of `:authority` in HPACK's static table. */
const authorityIndex = 1;
const authorityName = ':authority';

/** Position in a header block. A step past its end throws, and the block is left to the HTTP/2 library to refuse. */
interface Cursor {
  readonly block: Uint8Array;
  at: number;
}

class Malformed extends Error {}

function nextByte(cursor: Cursor): number {
  const byte = cursor.block[cursor.at];
  if (byte === undefined) throw new Malformed('header block ends early');
  cursor.at += 1;
  return byte;
}

/** An integer with an N-bit prefix (RFC 7541, section 5.1). */
function readInteger(cursor: Cursor, prefixBits: number): number {
  const most = (1 << prefixBits) - 1;
  let value = nextByte(cursor) & most;
  if (value < most) return value;
  for (let shift = 0; shift <= 21; shift += 7) {
    const byte = nextByte(cursor);
    value += (byte & 0x7f) << shift;
    if ((byte & 0x80) === 0) return value;
  }
  throw new Malformed('integer is too long');
}

interface HeaderString {
  readonly bytes: Uint8Array;
  readonly huffman: boolean;
}

function readString(cursor: Cursor): HeaderString {
  const huffman = ((cursor.block[cursor.at] ?? 0) & 0x80) !== 0;
  const length = readInteger(cursor, 7);
  const end = cursor.at + length;
  if (end > cursor.block.length) throw new Malformed('string ends early');
  const bytes = cursor.block.subarray(cursor.at, end);
  cursor.at = end;
  return { bytes, huffman };
}

/** Replaces the separators of every literal `:authority` in a complete header block, in place. */
export function rewriteAuthority(block: Uint8Array): void {
  const cursor: Cursor = { block, at: 0 };
  try {
    while (cursor.at < block.length) rewriteField(cursor);
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
  }
}

function rewriteField(cursor: Cursor): void {
  const first = cursor.block[cursor.at] ?? 0;
  if ((first & 0x80) !== 0) return void readInteger(cursor, 7); // indexed
  if ((first & 0xe0) === 0x20) return void readInteger(cursor, 5); // table size update
  const index = readInteger(cursor, (first & 0xc0) === 0x40 ? 6 : 4);
  const isAuthority = index === authorityIndex || (index === 0 && isAuthorityName(readString(cursor)));
  const value = readString(cursor);
  if (isAuthority) replaceSeparators(value);
}

/** No client is known to spell the name out with Huffman code: it is in the static table. */
const isAuthorityName = ({ bytes, huffman }: HeaderString): boolean =>
  !huffman && Buffer.from(bytes).toString('latin1') === authorityName;

const slash = '/'.charCodeAt(0);
const dash = '-'.charCodeAt(0);

function replaceSeparators({ bytes, huffman }: HeaderString): void {
  if (huffman) return replaceHuffmanSeparators(bytes);
  bytes.forEach((byte, index) => {
    if (byte === slash) bytes[index] = dash;
  });
}

/**
 * HPACK's Huffman code is canonical: all codes of one length are consecutive numbers. So the number of codes per
 * length (RFC 7541, appendix B) is enough to tell where a symbol ends.
 */
const codesPerLength: readonly (readonly [bits: number, codes: number])[] = [
  [5, 10],
  [6, 26],
  [7, 32],
  [8, 6],
  [10, 5],
  [11, 3],
  [12, 2],
  [13, 6],
  [14, 2],
  [15, 3],
  [19, 3],
  [20, 8],
  [21, 13],
  [22, 26],
  [23, 29],
  [24, 12],
  [25, 4],
  [26, 15],
  [27, 19],
  [28, 29],
  [30, 4],
];

/** By length in bits: the number after the last code of that length; 0 where there is none. */
const codeLimits: readonly number[] = (() => {
  const limits = new Array<number>(31).fill(0);
  let next = 0;
  let before = 0;
  for (const [length, codes] of codesPerLength) {
    next = next * 2 ** (length - before) + codes;
    limits[length] = next;
    before = length;
  }
  return limits;
})();

const slashCode = 0b011000;
const dashCode = 0b010110;
const slashBits = 6;

function replaceHuffmanSeparators(bytes: Uint8Array): void {
  let code = 0;
  let length = 0;
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    code = code * 2 + bitAt(bytes, bit);
    length += 1;
    if (length > 30) return;
    if (code >= (codeLimits[length] ?? 0)) continue;
    if (length === slashBits && code === slashCode) writeBits(bytes, bit - slashBits + 1, dashCode, slashBits);
    code = 0;
    length = 0;
  }
}

const bitAt = (bytes: Uint8Array, bit: number): number => ((bytes[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1;

function writeBits(bytes: Uint8Array, from: number, value: number, count: number): void {
  for (let index = 0; index < count; index++) {
    const bit = from + index;
    const mask = 1 << (7 - (bit & 7));
    const set = ((value >> (count - 1 - index)) & 1) === 1;
    const byte = bytes[bit >> 3] ?? 0;
    bytes[bit >> 3] = set ? byte | mask : byte & ~mask;
  }
}
