import { RuntimeError } from '../../../kit/errors.js';

/** Frames of SPDY/3.1 (draft 3.1, section 2.2). Integers are big-endian. */
export const controlTypes = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  headers: 8,
  windowUpdate: 9,
} as const;

export const fin = 1;

export const resetReasons = {
  protocolError: 1,
  invalidStream: 2,
  refusedStream: 3,
  cancel: 5,
  internalError: 6,
} as const;

export type SpdyFrame =
  | { readonly kind: 'data'; readonly streamId: number; readonly fin: boolean; readonly data: Buffer }
  | { readonly kind: 'control'; readonly type: number; readonly flags: number; readonly payload: Buffer };

const version = 3;
const headerBytes = 8;
/** The format allows 16 MiB; the clients there are send at most 32 KiB at a time. */
const longestFrame = 4 << 20;

function frameHead(first: number, flags: number, length: number): Buffer {
  const head = Buffer.alloc(headerBytes);
  head.writeUInt32BE(first >>> 0, 0);
  head.writeUInt32BE(((flags << 24) | length) >>> 0, 4);
  return head;
}

export const dataFrame = (streamId: number, data: Uint8Array, last: boolean): Buffer =>
  Buffer.concat([frameHead(streamId, last ? fin : 0, data.length), data]);

export function controlFrame(type: number, flags: number, ...parts: readonly (number | Uint8Array)[]): Buffer {
  const payload = Buffer.concat(
    parts.map((part) => {
      if (typeof part !== 'number') return part;
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(part >>> 0);
      return bytes;
    }),
  );
  return Buffer.concat([frameHead(0x80000000 | (version << 16) | type, flags, payload.length), payload]);
}

/** Cuts a byte stream into frames. Throws `invalid-argument` for what no SPDY/3 peer sends. */
export class SpdyFrameReader {
  #chunks: Buffer[] = [];
  #length = 0;
  #wanted = headerBytes;

  push(chunk: Buffer): SpdyFrame[] {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    const frames: SpdyFrame[] = [];
    while (this.#length >= this.#wanted) {
      const data = Buffer.concat(this.#chunks);
      const length = headerBytes + (data.readUInt32BE(4) & 0xffffff);
      if (length > longestFrame) throw new RuntimeError('invalid-argument', `SPDY frame of ${length} bytes`);
      this.#chunks = [data];
      this.#wanted = length;
      if (data.length < length) break;
      frames.push(parse(data.subarray(0, length)));
      const rest = data.subarray(length);
      this.#chunks = rest.length > 0 ? [rest] : [];
      this.#length = rest.length;
      this.#wanted = headerBytes;
    }
    return frames;
  }
}

function parse(frame: Buffer): SpdyFrame {
  const first = frame.readUInt32BE(0);
  const flags = frame.readUInt8(4);
  const payload = frame.subarray(headerBytes);
  if ((first & 0x80000000) === 0) return { kind: 'data', streamId: first, fin: (flags & fin) !== 0, data: payload };
  if (((first >>> 16) & 0x7fff) !== version) {
    throw new RuntimeError('invalid-argument', `SPDY version ${(first >>> 16) & 0x7fff}`);
  }
  return { kind: 'control', type: first & 0xffff, flags, payload };
}
