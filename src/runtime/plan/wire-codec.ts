import { RuntimeError } from '../../kit/errors.js';
import { namespaceKinds } from './kinds.js';
import type { FsOption, IdMapLine, MountAttributes, NamespaceKind, NamespaceSource, Slot } from './plan.js';

/**
 * How one field of a step lies in a record of the wire format (`src/native/shim/PLAN.md`): in the slot, a flag bit, one
 * of five 64-bit words or one of four references into the data section.
 */
export interface Codec<T> {
  put(record: RecordWriter, value: T): void;
  get(record: RecordReader): T;
}

export const recordBytes = 80;
export const stepFlags = {
  recursive: 1,
  create: 2,
  clamp: 4,
  terminal: 8,
  console: 16,
  copyUp: 32,
  deepAttributes: 64,
  deepIdmap: 128,
} as const;

const corrupt = (message: string): RuntimeError => new RuntimeError('corrupt', `launch plan: ${message}`);
const utf8 = new TextEncoder();
const strictUtf8 = new TextDecoder('utf-8', { fatal: true });

/** The data section under construction. Offsets are from its start; records are aligned to 8 bytes. */
export class DataWriter {
  #bytes = new Uint8Array(4096);
  #used = 0;

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#used);
  }

  align(): void {
    this.#reserve(8);
    this.#used = (this.#used + 7) & ~7;
  }

  append(bytes: Uint8Array): number {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#used);
    this.#used += bytes.length;
    return this.#used - bytes.length;
  }

  #reserve(count: number): void {
    if (this.#used + count <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#used + count + 8));
    grown.set(this.bytes);
    this.#bytes = grown;
  }
}

export class RecordWriter {
  readonly #view: DataView;
  readonly #at: number;
  readonly #data: DataWriter;

  constructor(view: DataView, at: number, code: number, data: DataWriter) {
    this.#view = view;
    this.#at = at;
    this.#data = data;
    view.setUint16(at, code, true);
    view.setInt16(at + 2, -1, true);
  }

  slot(slot: number): void {
    this.#view.setInt16(this.#at + 2, slot, true);
  }

  flag(bit: number): void {
    this.#view.setUint32(this.#at + 4, this.#view.getUint32(this.#at + 4, true) | bit, true);
  }

  word(index: number, value: bigint): void {
    const at = this.#at + 8 + index * 8;
    this.#view.setBigUint64(at, this.#view.getBigUint64(at, true) | BigInt.asUintN(64, value), true);
  }

  /** A string with an ending zero, which the reference does not count. */
  string(index: number, value: string): void {
    const bytes = terminated(utf8.encode(value));
    this.#reference(index, this.#data.append(bytes), bytes.length - 1);
  }

  /** Strings with ending zeros, which the reference counts. */
  list(index: number, values: readonly Uint8Array[]): void {
    const offset = this.#data.bytes.length;
    for (const value of values) this.#data.append(terminated(value));
    if (values.length > 0) this.#reference(index, offset, this.#data.bytes.length - offset);
  }

  records(index: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#data.align();
    this.#reference(index, this.#data.append(bytes), bytes.length);
  }

  #reference(index: number, offset: number, length: number): void {
    this.#view.setUint32(this.#at + 48 + index * 8, offset, true);
    this.#view.setUint32(this.#at + 52 + index * 8, length, true);
  }
}

function terminated(bytes: Uint8Array): Uint8Array {
  if (bytes.includes(0)) throw new RuntimeError('invalid-argument', 'launch plan: a string holds a zero byte');
  const result = new Uint8Array(bytes.length + 1);
  result.set(bytes);
  return result;
}

export class RecordReader {
  readonly #view: DataView;
  readonly #at: number;
  readonly #data: Uint8Array;

  constructor(view: DataView, at: number, data: Uint8Array) {
    this.#view = view;
    this.#at = at;
    this.#data = data;
  }

  slot(): Slot {
    return this.#view.getInt16(this.#at + 2, true);
  }

  flag(bit: number): boolean {
    return (this.#view.getUint32(this.#at + 4, true) & bit) !== 0;
  }

  word(index: number): bigint {
    return this.#view.getBigUint64(this.#at + 8 + index * 8, true);
  }

  string(index: number): string {
    const { offset, length } = this.#reference(index);
    if (this.#data[offset + length] !== 0) throw corrupt('a string does not end where it says');
    return decodeText(this.#data.subarray(offset, offset + length));
  }

  list(index: number): Uint8Array[] {
    const bytes = this.records(index);
    const result: Uint8Array[] = [];
    for (let at = 0; at < bytes.length;) {
      const end = bytes.indexOf(0, at);
      if (end < 0) throw corrupt('a list does not end where it says');
      result.push(bytes.subarray(at, end));
      at = end + 1;
    }
    return result;
  }

  records(index: number): Uint8Array {
    const { offset, length } = this.#reference(index);
    return this.#data.subarray(offset, offset + length);
  }

  #reference(index: number): { offset: number; length: number } {
    const offset = this.#view.getUint32(this.#at + 48 + index * 8, true);
    const length = this.#view.getUint32(this.#at + 52 + index * 8, true);
    if (offset + length > this.#data.length) throw corrupt('a reference leaves the data');
    return { offset, length };
  }
}

function decodeText(bytes: Uint8Array): string {
  try {
    return strictUtf8.decode(bytes);
  } catch (cause) {
    throw new RuntimeError('corrupt', 'launch plan: a string is not UTF-8', { cause });
  }
}

// ------------------------------------------------------------------------------------------------------ field codecs

export const slot: Codec<Slot> = { put: (r, value) => r.slot(value), get: (r) => r.slot() };

export const text = (index: number): Codec<string> => ({
  put: (r, value) => r.string(index, value),
  get: (r) => r.string(index),
});

export const texts = (index: number): Codec<readonly string[]> => ({
  put: (r, values) =>
    r.list(
      index,
      values.map((value) => utf8.encode(value)),
    ),
  get: (r) => r.list(index).map(decodeText),
});

export const byteStrings = (index: number): Codec<readonly Uint8Array[]> => ({
  put: (r, values) => r.list(index, values),
  get: (r) => r.list(index).map((value) => value.slice()),
});

export const number = (index: number): Codec<number> => ({
  put: (r, value) => r.word(index, BigInt(value)),
  get: (r) => Number(r.word(index)),
});

/** 0 stands for absent. */
export const optionalNumber = (index: number): Codec<number | undefined> => ({
  put: (r, value) => (value === undefined ? undefined : r.word(index, BigInt(value))),
  get: (r) => Number(r.word(index)) || undefined,
});

export const signed = (index: number): Codec<number> => ({
  put: (r, value) => r.word(index, BigInt(value)),
  get: (r) => Number(BigInt.asIntN(64, r.word(index))),
});

export const word = (index: number): Codec<bigint> => ({
  put: (r, value) => r.word(index, value),
  get: (r) => r.word(index),
});

export const flag = (bit: number): Codec<boolean> => ({
  put: (r, value) => (value ? r.flag(bit) : undefined),
  get: (r) => r.flag(bit),
});

export const optionalFlag = (bit: number): Codec<boolean | undefined> => ({
  put: (r, value) => (value ? r.flag(bit) : undefined),
  get: (r) => r.flag(bit) || undefined,
});

export const choice = <T extends string>(index: number, values: readonly T[], shift = 0n): Codec<T> => ({
  put: (r, value) => r.word(index, BigInt(values.indexOf(value)) << shift),
  get: (r) => {
    const value = values[Number((r.word(index) >> shift) & 0xfn)];
    if (value === undefined) throw corrupt('a choice is out of range');
    return value;
  },
});

export const bits = (index: number, mask: bigint): Codec<number> => ({
  put: (r, value) => r.word(index, BigInt(value) & mask),
  get: (r) => Number(r.word(index) & mask),
});

export const kind = (index: number): Codec<NamespaceKind> => choice(index, namespaceKinds);

export const kindSet = (index: number): Codec<readonly NamespaceKind[]> => ({
  put: (r, kinds) => kinds.forEach((each) => r.word(index, 1n << BigInt(namespaceKinds.indexOf(each)))),
  get: (r) => namespaceKinds.filter((_, bit) => ((r.word(index) >> BigInt(bit)) & 1n) === 1n),
});

const sourceKinds = ['pod', 'container', 'path'] as const;

/** Where the namespace comes from: word 1 and reference 0. */
export const namespaceSource: Codec<NamespaceSource> = {
  put(r, source) {
    r.word(1, BigInt(sourceKinds.indexOf(source.from)));
    if (source.from === 'container') r.string(0, source.id);
    else if (source.from === 'path') r.string(0, source.path);
    else r.string(0, '');
  },
  get(r) {
    const from = sourceKinds[Number(r.word(1))];
    if (from === 'container') return { from, id: r.string(0) };
    if (from === 'path') return { from, path: r.string(0) };
    if (from === 'pod') return { from };
    throw corrupt('a choice is out of range');
  },
};

/** Words 0 to 2, and one of two flags: `recursive` of the mount itself, or of the attributes only. */
export const attributes = (deep: number): Codec<MountAttributes> => ({
  put(r, value) {
    r.word(0, BigInt(value.set));
    r.word(1, BigInt(value.clear));
    r.word(2, BigInt(value.propagation));
    if (value.recursive) r.flag(deep);
  },
  get: (r) => ({
    set: Number(r.word(0)),
    clear: Number(r.word(1)),
    propagation: Number(r.word(2)),
    recursive: r.flag(deep),
  }),
});

export const options = (index: number): Codec<readonly FsOption[]> => ({
  put: (r, values) =>
    r.list(
      index,
      values.map((o) => utf8.encode(o.value === undefined ? o.key : `${o.key}=${o.value}`)),
    ),
  get: (r) =>
    r.list(index).map((bytes) => {
      const option = decodeText(bytes);
      const equals = option.indexOf('=');
      return equals < 0 ? { key: option } : { key: option.slice(0, equals), value: option.slice(equals + 1) };
    }),
});

export const numbers = (index: number): Codec<readonly number[]> => ({
  put: (r, values) => r.records(index, packed(values)),
  get: (r) => unpacked(r.records(index)),
});

export const idMap = (index: number): Codec<readonly IdMapLine[]> => ({
  put: (r, lines) => r.records(index, packed(lines.flatMap((line) => [line.inside, line.outside, line.count]))),
  get: (r) => idMapLines(unpacked(r.records(index))),
});

export const bytes = (index: number): Codec<Uint8Array> => ({
  put: (r, value) => r.records(index, value),
  get: (r) => r.records(index).slice(),
});

type BindIdmap = 'none' | 'pod' | { readonly uids: readonly IdMapLine[]; readonly gids: readonly IdMapLine[] };

/** Word 3, references 2 and 3. */
export const bindIdmap: Codec<BindIdmap> = {
  put(r, value) {
    const given = typeof value === 'object';
    r.word(3, given ? 2n : value === 'pod' ? 1n : 0n);
    if (!given) return;
    idMap(2).put(r, value.uids);
    idMap(3).put(r, value.gids);
  },
  get(r) {
    if (r.word(3) === 2n) return { uids: idMap(2).get(r), gids: idMap(3).get(r) };
    return r.word(3) === 1n ? 'pod' : 'none';
  },
};

function packed(values: readonly number[]): Uint8Array {
  const result = new Uint8Array(values.length * 4);
  const view = new DataView(result.buffer);
  values.forEach((value, i) => view.setUint32(i * 4, value, true));
  return result;
}

function unpacked(data: Uint8Array): number[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return Array.from({ length: Math.floor(data.length / 4) }, (_, i) => view.getUint32(i * 4, true));
}

function idMapLines(values: readonly number[]): IdMapLine[] {
  const lines: IdMapLine[] = [];
  for (let i = 0; i + 2 < values.length; i += 3) {
    lines.push({ inside: values[i] ?? 0, outside: values[i + 1] ?? 0, count: values[i + 2] ?? 0 });
  }
  return lines;
}
