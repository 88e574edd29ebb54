import { RuntimeError } from '../../kit/errors.js';

/**
 * Frames between agent and shim, protocol version 1; `src/native/shim/PROTOCOL.md` describes them and
 * `test/golden/protocol` holds one of each. All integers are little endian.
 */
export const protocolVersion = 1;

export const frameTypes = {
  hello: 1,
  hold: 2,
  start: 3,
  exec: 4,
  signal: 5,
  reopenLog: 6,
  netlink: 7,
  state: 8,
  forget: 9,
  shutdown: 10,
  attach: 11,
  input: 12,
  closeInput: 13,
  resize: 14,
  cancel: 15,
  dial: 16,
  exitEvent: 0x4001,
  outputEvent: 0x4002,
  streamsEndEvent: 0x4003,
  startedEvent: 0x4004,
  error: 0xffff,
} as const;

/** Added to a request's type in its answer. */
export const okBit = 0x8000;

/** Kinds of the error frame. */
export const errorKinds = {
  badRequest: 1,
  notFound: 2,
  planFailed: 3,
  system: 4,
  exists: 5,
  wrongState: 6,
} as const;

const headerBytes = 12;
/** Larger frames than this are a fault of the peer. */
const maxFrameBytes = 16 << 20;

export interface Frame {
  readonly type: number;
  /** 0 for events that belong to no request. */
  readonly id: number;
  readonly payload: Buffer;
}

export function encodeFrame(type: number, id: number, payload: readonly Uint8Array[]): Buffer {
  const length = payload.reduce((sum, part) => sum + part.length, 0);
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32LE(headerBytes - 4 + length, 0);
  header.writeUInt16LE(type, 4);
  header.writeUInt32LE(id, 8);
  return Buffer.concat([header, ...payload], headerBytes + length);
}

/** Builds a payload field by field. */
export class PayloadWriter {
  readonly #parts: Uint8Array[] = [];

  get parts(): readonly Uint8Array[] {
    return this.#parts;
  }

  u8(value: number): this {
    this.#parts.push(Uint8Array.of(value));
    return this;
  }

  u16(value: number): this {
    const bytes = Buffer.alloc(2);
    bytes.writeUInt16LE(value);
    this.#parts.push(bytes);
    return this;
  }

  u32(value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    this.#parts.push(bytes);
    return this;
  }

  u64(value: bigint): this {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    this.#parts.push(bytes);
    return this;
  }

  bytes(value: Uint8Array): this {
    this.u32(value.length);
    this.#parts.push(value);
    return this;
  }

  string(value: string): this {
    return this.bytes(Buffer.from(value));
  }

  /** First in its payload: the shim uses the plan in place and needs it aligned to 8 bytes. */
  plan(value: Uint8Array): this {
    this.u32(value.length).u32(0);
    this.#parts.push(value);
    return this;
  }
}

/** Reads a payload field by field; what is missing makes a `corrupt` error. */
export class PayloadReader {
  readonly #buffer: Buffer;
  #at = 0;

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  #take(length: number): number {
    const at = this.#at;
    if (at + length > this.#buffer.length) throw new RuntimeError('corrupt', 'the shim sent a frame that is too short');
    this.#at += length;
    return at;
  }

  u8(): number {
    return this.#buffer.readUInt8(this.#take(1));
  }

  u32(): number {
    return this.#buffer.readUInt32LE(this.#take(4));
  }

  u64(): bigint {
    return this.#buffer.readBigUInt64LE(this.#take(8));
  }

  i64(): bigint {
    return this.#buffer.readBigInt64LE(this.#take(8));
  }

  bytes(): Buffer {
    const length = this.u32();
    const at = this.#take(length);
    return this.#buffer.subarray(at, at + length);
  }

  string(): string {
    return this.bytes().toString();
  }

  list<T>(read: () => T): T[] {
    return Array.from({ length: this.u32() }, read);
  }
}

/** Cuts a byte stream into frames. */
export class FrameSplitter {
  #chunks: Buffer[] = [];
  #length = 0;
  #wanted = headerBytes;

  /** The frames that are whole now. Throws `corrupt` for a length no peer of ours sends. */
  push(chunk: Buffer): Frame[] {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    const frames: Frame[] = [];
    while (this.#length >= this.#wanted) {
      const data = this.#join();
      const length = data.readUInt32LE(0) + 4;
      if (length < headerBytes || length > maxFrameBytes) {
        throw new RuntimeError('corrupt', `the shim sent a frame of ${length} bytes`);
      }
      this.#wanted = length;
      if (data.length < length) break;
      frames.push({
        type: data.readUInt16LE(4),
        id: data.readUInt32LE(8),
        payload: data.subarray(headerBytes, length),
      });
      this.#keep(data.subarray(length));
    }
    return frames;
  }

  #join(): Buffer {
    const first = this.#chunks[0];
    if (this.#chunks.length === 1 && first !== undefined) return first;
    const joined = Buffer.concat(this.#chunks, this.#length);
    this.#chunks = [joined];
    return joined;
  }

  #keep(rest: Buffer): void {
    this.#chunks = rest.length > 0 ? [rest] : [];
    this.#length = rest.length;
    this.#wanted = headerBytes;
  }
}
