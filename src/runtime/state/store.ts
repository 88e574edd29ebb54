import { open, type Database, type RootDatabase } from 'lmdb';
import { messageOf } from '../../kit/errors.js';

/**
 * The metadata store: lmdb environments, one named table per kind of record, one transaction per commit point. Reads of
 * the runtime come from memory; the store is read once, at start.
 *
 * Images are committed to disk before `put` returns. Pods and containers are not worth waiting for a disk: they live in
 * an environment on tmpfs, whose commits survive `kill -9` of the agent at once and cost 0.1 ms, and are copied to disk
 * behind it, in order. After a reboot tmpfs is empty and the copy on disk is what is known: at most a moment older.
 */
export interface Store {
  /** Committed to disk when `put` returns. */
  table<T>(name: string, version: number): Table<T>;
  /** Committed to tmpfs when `put` returns, and to disk soon after. */
  quickTable<T>(name: string, version: number): Table<T>;
  /** Everything `work` puts into disk tables and deletes there is committed together. Synchronous, may be nested. */
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
  /** Directory on disk. */
  readonly path: string;
  /** Directory on tmpfs; gone after a reboot. */
  readonly quickPath: string;
  /** Told about each record that was set aside. */
  readonly onQuarantine: (table: string, key: string, reason: string) => void;
  /** Told when the copy on disk falls behind for good: a full or broken disk. */
  readonly onCopyFailed: (reason: string) => void;
}

/** How a value stands in the store. `v` is the version of its table's record type. */
interface Versioned {
  readonly v: number;
  readonly d: unknown;
}

type Environment = RootDatabase<Buffer, string>;

export function openStore(options: StoreOptions): Store {
  const { onQuarantine } = options;
  const disk = openEnvironment(options.path, false);
  const quick = openEnvironment(options.quickPath, true);
  const behind = (work: Promise<boolean>): void =>
    void work.catch((error: unknown) => options.onCopyFailed(messageOf(error)));
  return {
    table: (name, version) => openTable(disk, name, version, onQuarantine),
    quickTable<T>(name: string, version: number): Table<T> {
      const table = openTable<T>(quick, name, version, onQuarantine);
      const copy = disk.openDB<Buffer, string>({ name, encoding: 'binary' });
      afterReboot(quick, name, () => fill(table, openTable<T>(disk, name, version, onQuarantine)));
      return {
        ...table,
        put(key, value) {
          table.put(key, value);
          behind(copy.put(key, encodeRecord(value, version)));
        },
        delete(key) {
          table.delete(key);
          behind(copy.remove(key));
        },
      };
    },
    transaction: (work) => void disk.transactionSync(work),
    async close() {
      await disk.flushed;
      // Closing right behind a synchronous commit deadlocks with lmdb's own flush.
      await disk.close();
      await quick.close();
    },
  };
}

const openEnvironment = (path: string, noSync: boolean): Environment =>
  open({ path, maxDbs: 16, encoding: 'binary', noSubdir: false, noSync });

/** Runs `work` once per table and boot. */
function afterReboot(quick: Environment, table: string, work: () => void): void {
  const filled = quick.openDB<Buffer, string>({ name: 'filled', encoding: 'binary' });
  if (filled.get(table) !== undefined) return;
  quick.transactionSync(() => {
    work();
    filled.putSync(table, Buffer.from('yes'));
  });
}

function fill<T>(table: Table<T>, from: Table<T>): void {
  for (const [key, record] of from.entries()) table.put(key, record);
}

function openTable<T>(
  root: Environment,
  name: string,
  version: number,
  onQuarantine: StoreOptions['onQuarantine'],
): Table<T> {
  const db: Database<Buffer, string> = root.openDB({ name, encoding: 'binary' });
  const quarantine: Database<Buffer, string> = root.openDB({ name: 'quarantine', encoding: 'binary' });
  const setAside = (key: string, bytes: Buffer, reason: string): void => {
    root.transactionSync(() => {
      quarantine.putSync(`${name}/${key}`, bytes);
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
