import { open, type Database, type RootDatabase } from 'lmdb';
import { messageOf } from '../../kit/errors.js';

/**
 * The metadata store: one lmdb environment, one named table per kind of record, one transaction per commit point.
 * Reads of the runtime come from memory; the store is read once, at start.
 *
 * A commit survives `kill -9` of the agent at once (it is in the page cache) and a power loss shortly after (lmdb
 * flushes behind the commit). That order is right here: what a power loss takes, it takes from the kernel too.
 */
export interface Store {
  table<T>(name: string, version: number): Table<T>;
  /** Everything `work` puts and deletes is committed together. Synchronous, may be nested. */
  transaction(work: () => void): void;
  close(): Promise<void>;
}

/** `put` and `delete` are committed when they return. */
export interface Table<T> {
  get(key: string): T | undefined;
  put(key: string, value: T): void;
  delete(key: string): void;
  /** Every readable record; an unreadable one is moved to quarantine and reported, never thrown. */
  entries(): Iterable<[string, T]>;
}

export interface StoreOptions {
  readonly path: string;
  /** Told about each record that was set aside. */
  readonly onQuarantine: (table: string, key: string, reason: string) => void;
}

/** How a value stands in the store. `v` is the version of its table's record type. */
interface Versioned {
  readonly v: number;
  readonly d: unknown;
}

export function openStore(options: StoreOptions): Store {
  const root: RootDatabase<Buffer, string> = open({
    path: options.path,
    maxDbs: 16,
    encoding: 'binary',
    noSubdir: false,
  });
  const quarantine = root.openDB<Buffer, string>({ name: 'quarantine', encoding: 'binary' });
  return {
    table: (name, version) => openTable(root, quarantine, name, version, options.onQuarantine),
    transaction: (work) => void root.transactionSync(work),
    close: async () => {
      await root.flushed;
      await root.close();
    },
  };
}

function openTable<T>(
  root: RootDatabase<Buffer, string>,
  quarantine: Database<Buffer, string>,
  name: string,
  version: number,
  onQuarantine: StoreOptions['onQuarantine'],
): Table<T> {
  const db = root.openDB<Buffer, string>({ name, encoding: 'binary' });
  const setAside = (key: string, bytes: Buffer, reason: string): void => {
    root.transactionSync(() => {
      void quarantine.putSync(`${name}/${key}`, bytes);
      db.removeSync(key);
    });
    onQuarantine(name, key, reason);
  };
  return {
    get(key) {
      const bytes = db.get(key);
      return bytes === undefined ? undefined : decodeRecord<T>(bytes, version);
    },
    put(key, value) {
      db.putSync(key, encodeRecord(value, version));
    },
    delete(key) {
      db.removeSync(key);
    },
    *entries() {
      const all = [...db.getRange()].map(({ key, value }) => [key, Buffer.from(value)] as const);
      for (const [key, bytes] of all) {
        let record: T;
        try {
          record = decodeRecord<T>(bytes, version);
        } catch (error) {
          setAside(key, bytes, messageOf(error));
          continue;
        }
        yield [key, record];
      }
    },
  };
}

/**
 * Records are JSON, readable by people and by later releases. What JSON lacks is tagged: `{"$n": "123"}` is a bigint,
 * `{"$b": "…"}` bytes in base64.
 */
export function encodeRecord(value: unknown, version: number): Buffer {
  const versioned: Versioned = { v: version, d: value };
  return Buffer.from(JSON.stringify(versioned, tag), 'utf8');
}

/** Throws when the bytes are no JSON or of a newer version than this release knows. */
export function decodeRecord<T>(bytes: Buffer, version: number): T {
  const parsed = JSON.parse(bytes.toString('utf8'), untag) as Partial<Versioned> | null;
  if (parsed === null || typeof parsed !== 'object' || typeof parsed.v !== 'number') {
    throw new Error('not a versioned record');
  }
  if (parsed.v > version) throw new Error(`record version ${parsed.v}, this release reads up to ${version}`);
  return parsed.d as T;
}

function tag(this: unknown, key: string, value: unknown): unknown {
  // Buffer.toJSON has already run on `value`; the holder still has the original.
  const original = (this as Record<string, unknown>)[key];
  if (typeof original === 'bigint') return { $n: original.toString() };
  if (original instanceof Uint8Array) return { $b: Buffer.from(original).toString('base64') };
  return value;
}

function untag(_key: string, value: unknown): unknown {
  if (value === null || typeof value !== 'object') return value;
  const tagged = value as { $n?: unknown; $b?: unknown };
  if (typeof tagged.$n === 'string') return BigInt(tagged.$n);
  if (typeof tagged.$b === 'string') return new Uint8Array(Buffer.from(tagged.$b, 'base64'));
  return value;
}
