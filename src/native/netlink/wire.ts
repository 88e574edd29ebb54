/**
 * The netlink wire format: messages, attributes and acknowledgements (linux/netlink.h).
 *
 * Headers are in host byte order. Berth runs on x86-64 and arm64, both little-endian, so the code says little-endian;
 * what a protocol defines in network byte order is written big-endian by its own encoder.
 */

const headerLength = 16;
const nestedFlag = 0x8000;
const typeMask = 0x3fff;

export const NLM_F = {
  request: 0x01,
  ack: 0x04,
  dump: 0x300,
  replace: 0x100,
  excl: 0x200,
  create: 0x400,
  append: 0x800,
} as const;

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLMSGERR_ATTR_MSG = 1;

/** A message as it came from the kernel. `payload` is a view into the buffer it was read from. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly payload: Uint8Array;
}

/** The answer to one request that asked for an acknowledgement: errno 0 is success. */
export interface Acknowledgement {
  readonly sequence: number;
  /** Positive errno, 0 for success. */
  readonly errno: number;
  /** The kernel's own words (extended acknowledgement), '' when it gave none. */
  readonly text: string;
}

export const align4 = (length: number): number => (length + 3) & ~3;

export const u8 = (value: number): Uint8Array => Uint8Array.of(value);

export function u16(value: number): Uint8Array {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

export function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

export function be16(value: number): Uint8Array {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function be32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value | 0);
  return bytes;
}

/** A string with its terminating zero, as most attributes want it. */
export const cstring = (text: string): Uint8Array => Buffer.from(`${text}\0`);

/** One attribute with its padding. */
export function attribute(type: number, payload: Uint8Array): Uint8Array {
  const length = 4 + payload.length;
  const bytes = Buffer.alloc(align4(length));
  bytes.writeUInt16LE(length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(payload, 4);
  return bytes;
}

/** An attribute that holds attributes. */
export const nested = (type: number, attributes: readonly Uint8Array[]): Uint8Array =>
  attribute(type | nestedFlag, Buffer.concat(attributes));

/** A whole message. The sequence number is 0; whoever sends it numbers it (`numbered`). */
export function message(type: number, flags: number, parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, headerLength);
  const bytes = Buffer.alloc(align4(length));
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt16LE(flags | NLM_F.request, 6);
  let offset = headerLength;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

/** Copies of `messages` with sequence numbers `first`, `first + 1`, … */
export function numbered(messages: readonly Uint8Array[], first: number): Uint8Array[] {
  return messages.map((bytes, index) => {
    const copy = Buffer.from(bytes);
    copy.writeUInt32LE((first + index) >>> 0, 8);
    return copy;
  });
}

/** True when the message asks for an acknowledgement or a dump, so that an answer is certain to come. */
export function expectsAnswer(bytes: Uint8Array): boolean {
  const flags = view(bytes).getUint16(6, true);
  return (flags & NLM_F.ack) !== 0 || (flags & NLM_F.dump) === NLM_F.dump;
}

export const sequenceOf = (bytes: Uint8Array): number => view(bytes).getUint32(8, true);

/** Splits what one recv returned. Bytes that are no whole message end the list. */
export function parseMessages(bytes: Uint8Array): NetlinkMessage[] {
  const found: NetlinkMessage[] = [];
  const data = view(bytes);
  for (let offset = 0; offset + headerLength <= bytes.length;) {
    const length = data.getUint32(offset, true);
    if (length < headerLength || offset + length > bytes.length) break;
    found.push({
      type: data.getUint16(offset + 4, true),
      flags: data.getUint16(offset + 6, true),
      sequence: data.getUint32(offset + 8, true),
      payload: bytes.subarray(offset + headerLength, offset + length),
    });
    offset += align4(length);
  }
  return found;
}

/** Attributes by type; of a repeated type the last one. */
export function parseAttributes(bytes: Uint8Array): Map<number, Uint8Array> {
  return new Map(listAttributes(bytes));
}

/** Attributes in order, for lists whose entries share a type. */
export function listAttributes(bytes: Uint8Array): [number, Uint8Array][] {
  const found: [number, Uint8Array][] = [];
  const data = view(bytes);
  for (let offset = 0; offset + 4 <= bytes.length;) {
    const length = data.getUint16(offset, true);
    if (length < 4 || offset + length > bytes.length) break;
    found.push([data.getUint16(offset + 2, true) & typeMask, bytes.subarray(offset + 4, offset + length)]);
    offset += align4(length);
  }
  return found;
}

/** The acknowledgement in a NLMSG_ERROR or NLMSG_DONE message, undefined for any other. */
export function acknowledgement(answer: NetlinkMessage): Acknowledgement | undefined {
  if (answer.type !== NLMSG_ERROR && answer.type !== NLMSG_DONE) return undefined;
  const data = view(answer.payload);
  const errno = answer.payload.length >= 4 ? 0 - data.getInt32(0, true) : 0;
  return { sequence: answer.sequence, errno, text: extendedText(answer) };
}

function extendedText(answer: NetlinkMessage): string {
  if (answer.type !== NLMSG_ERROR || (answer.flags & NLM_F_ACK_TLVS) === 0) return '';
  const echoed = (answer.flags & NLM_F_CAPPED) !== 0 ? headerLength : view(answer.payload).getUint32(4, true);
  const text = parseAttributes(answer.payload.subarray(4 + align4(echoed))).get(NLMSGERR_ATTR_MSG);
  return text === undefined ? '' : stringOf(text);
}

/** The text of a string attribute, with or without its terminating zero. */
export function stringOf(payload: Uint8Array): string {
  const end = payload.indexOf(0);
  return Buffer.from(end < 0 ? payload : payload.subarray(0, end)).toString('utf8');
}

export const u32Of = (payload: Uint8Array): number => view(payload).getUint32(0, true);

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
