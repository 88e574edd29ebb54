/**
 * Writes tar archives byte by byte, so that tests can make archives no sane tool would write. Every field can be
 * given raw; sane defaults make the usual archive short to say.
 */

export type TarType =
  'file' | 'directory' | 'symlink' | 'link' | 'char' | 'block' | 'fifo' | 'contiguous' | 'pax' | 'pax-global';

export interface TarEntry {
  readonly path: string;
  /** Default: `directory` for a path ending in `/`, else `file`. */
  readonly type?: TarType;
  /** One raw type flag, in the place of `type`. */
  readonly flag?: string;
  readonly content?: string | Buffer;
  readonly linkTo?: string;
  /** Default: 0o755 for directories, 0o644 for the rest. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds since the epoch; default 1600000000. */
  readonly mtime?: number;
  readonly major?: number;
  readonly minor?: number;
  /** Pax records written in an extended header before the entry. */
  readonly pax?: Readonly<Record<string, string | Buffer>>;
  /** Size written into the header when it shall differ from the content's. */
  readonly size?: number;
  /** Bytes written over the finished header at an offset, before its checksum is computed. */
  readonly patch?: readonly (readonly [offset: number, bytes: Buffer])[];
}

const flags: Record<TarType, string> = {
  file: '0',
  link: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
  contiguous: '7',
  pax: 'x',
  'pax-global': 'g',
};

/** The whole archive, ended by two zero blocks. */
export function tar(entries: readonly TarEntry[]): Buffer {
  return Buffer.concat([...entries.map(tarEntry), Buffer.alloc(1024)]);
}

/** One entry with its extended headers, without an end of archive. */
export function tarEntry(entry: TarEntry): Buffer {
  const type = entry.type ?? (entry.path.endsWith('/') ? 'directory' : 'file');
  const content = Buffer.from(entry.content ?? '');
  const pax: Record<string, string | Buffer> = { ...entry.pax };
  if (Buffer.byteLength(entry.path) > 100 && pax['path'] === undefined) pax['path'] = entry.path;
  if (Buffer.byteLength(entry.linkTo ?? '') > 100 && pax['linkpath'] === undefined)
    pax['linkpath'] = entry.linkTo ?? '';
  for (const key of ['uid', 'gid'] as const) {
    const id = entry[key] ?? 0;
    if (id > 0o7777777 && pax[key] === undefined) pax[key] = String(id);
  }
  const parts: Buffer[] = [];
  if (Object.keys(pax).length > 0) {
    parts.push(tarEntry({ path: 'PaxHeaders/x', type: 'pax', content: paxRecords(pax) }));
  }
  parts.push(header(entry, type, content.length), content, Buffer.alloc((512 - (content.length % 512)) % 512));
  return Buffer.concat(parts);
}

export function paxRecords(records: Readonly<Record<string, string | Buffer>>): Buffer {
  return Buffer.concat(Object.entries(records).map(([key, value]) => paxRecord(key, Buffer.from(value))));
}

function paxRecord(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function header(entry: TarEntry, type: TarType, contentLength: number): Buffer {
  const block = Buffer.alloc(512);
  const octal = (value: number, offset: number, length: number): void => {
    const digits = value.toString(8);
    block.write((digits.length > length - 1 ? '7' : digits).padStart(length - 1, '0'), offset, 'latin1');
  };
  block.write(entry.path, 0, 100);
  octal(entry.mode ?? (type === 'directory' ? 0o755 : 0o644), 100, 8);
  octal(entry.uid ?? 0, 108, 8);
  octal(entry.gid ?? 0, 116, 8);
  octal(entry.size ?? contentLength, 124, 12);
  octal(entry.mtime ?? 1_600_000_000, 136, 12);
  block.write(entry.flag ?? flags[type], 156, 1, 'latin1');
  block.write(entry.linkTo ?? '', 157, 100);
  block.write('ustar\x0000', 257, 'latin1');
  octal(entry.major ?? 0, 329, 8);
  octal(entry.minor ?? 0, 337, 8);
  for (const [offset, bytes] of entry.patch ?? []) bytes.copy(block, offset);
  block.fill(' ', 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}
