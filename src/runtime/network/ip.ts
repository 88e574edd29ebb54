/** IP addresses and prefixes as bytes and numbers; pure. */
import { RuntimeError } from '../../kit/errors.js';

export type IpFamily = 4 | 6;

/** A subnet: every host bit of `base` is 0. */
export interface Prefix {
  readonly family: IpFamily;
  readonly base: bigint;
  readonly length: number;
}

const bitsOf = (family: IpFamily): number => (family === 4 ? 32 : 128);

/** The bytes of an address, undefined when the text is none. Zones (`%eth0`) are not addresses. */
export function parseIp(text: string): Uint8Array | undefined {
  return text.includes(':') ? parseIp6(text) : parseIp4(text);
}

function parseIp4(text: string): Uint8Array | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part))) return undefined;
  const bytes = parts.map(Number);
  return bytes.every((byte) => byte <= 255) ? Uint8Array.from(bytes) : undefined;
}

function parseIp6(text: string): Uint8Array | undefined {
  const halves = withoutDottedTail(text)?.split('::');
  if (halves === undefined || halves.length > 2) return undefined;
  const [left = [], right] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const groups = right === undefined ? left : [...left, ...zeroGroups(8 - left.length - right.length), ...right];
  if (groups.length !== 8 || !groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined;
  if (right !== undefined && left.length + right.length > 7) return undefined;
  return Uint8Array.from(
    groups.map((group) => Number.parseInt(group, 16)).flatMap((group) => [group >> 8, group & 255]),
  );
}

const zeroGroups = (count: number): string[] => Array.from({ length: Math.max(0, count) }, () => '0');

/** `::ffff:1.2.3.4` with its last part as two groups. */
function withoutDottedTail(text: string): string | undefined {
  if (!text.includes('.')) return text;
  const at = text.lastIndexOf(':') + 1;
  const tail = parseIp4(text.slice(at));
  if (tail === undefined) return undefined;
  const [a = 0, b = 0, c = 0, d = 0] = tail;
  return `${text.slice(0, at)}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
}

/** The canonical text of an address (RFC 5952 for IPv6). */
export function formatIp(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0));
  const run = longestZeroRun(groups);
  const text = (part: number[]): string => part.map((group) => group.toString(16)).join(':');
  if (run.length < 2) return text(groups);
  return `${text(groups.slice(0, run.start))}::${text(groups.slice(run.start + run.length))}`;
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  return best;
}

export const familyOf = (bytes: Uint8Array): IpFamily => (bytes.length === 4 ? 4 : 6);

export const toNumber = (bytes: Uint8Array): bigint => bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);

export function fromNumber(value: bigint, family: IpFamily): Uint8Array {
  const bytes = new Uint8Array(family === 4 ? 4 : 16);
  let rest = value;
  for (let i = bytes.length - 1; i >= 0; i--, rest >>= 8n) bytes[i] = Number(rest & 255n);
  return bytes;
}

/** Reads `10.77.0.0/16`. Throws `invalid-argument` naming `field`; host bits must be 0. */
export function parsePrefix(text: string, field: string): Prefix {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(text);
  const bytes = parseIp(match?.[1] ?? '');
  const length = Number(match?.[2]);
  if (bytes === undefined || length > bitsOf(familyOf(bytes))) {
    throw new RuntimeError('invalid-argument', `${field}: "${text}" is not a subnet like 10.77.0.0/16`);
  }
  const prefix = { family: familyOf(bytes), base: toNumber(bytes), length };
  if (prefix.base % sizeOf(prefix) !== 0n) {
    throw new RuntimeError('invalid-argument', `${field}: "${text}" has host bits set`);
  }
  return prefix;
}

/** How many addresses a prefix holds. */
export const sizeOf = (prefix: Prefix): bigint => 1n << BigInt(bitsOf(prefix.family) - prefix.length);

export const addressAt = (prefix: Prefix, offset: number): Uint8Array =>
  fromNumber(prefix.base + BigInt(offset), prefix.family);

export function contains(prefix: Prefix, address: Uint8Array): boolean {
  const value = toNumber(address);
  return familyOf(address) === prefix.family && value >= prefix.base && value < prefix.base + sizeOf(prefix);
}

/** The prefix that an interface address with this length belongs to. */
export function prefixOf(address: Uint8Array, length: number): Prefix {
  const family = familyOf(address);
  const size = sizeOf({ family, base: 0n, length });
  return { family, base: (toNumber(address) / size) * size, length };
}

export const overlap = (a: Prefix, b: Prefix): boolean =>
  a.family === b.family && a.base < b.base + sizeOf(b) && b.base < a.base + sizeOf(a);

export const formatPrefix = (prefix: Prefix): string =>
  `${formatIp(fromNumber(prefix.base, prefix.family))}/${prefix.length}`;

/** The prefix's mask as bytes. */
export const maskOf = (prefix: Prefix): Uint8Array =>
  fromNumber((1n << BigInt(bitsOf(prefix.family))) - sizeOf(prefix), prefix.family);
