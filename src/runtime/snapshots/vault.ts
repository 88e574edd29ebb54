import { mkdir, readdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../kit/errors.js';
import { KeyedLock } from '../../kit/keyed-lock.js';
import type { Observer } from '../../kit/observer.js';
import { bootId, isTrusted, type Flusher } from './flush.js';
import { readRecord, type Workshop } from './workshop.js';

/**
 * Directories that are never changed, each with a record inside. The directories are the records: a rename makes and
 * unmakes them, and no second book can disagree. Those that may not have reached the disk before the machine went down
 * are not trusted (`flush.ts`).
 */
export interface Vault<R extends VaultRecord> {
  /** All that can be trusted; what cannot is removed with a note. */
  load(): Promise<readonly { readonly record: R; readonly dir: string }[]>;
  pathOf(name: string): string;
  /** One at a time for each name. */
  hold<T>(name: string, work: () => Promise<T>): Promise<T>;
  /** Moves a directory of the workshop in, with its record; returns where it is. To be called within `hold`. */
  place(name: string, making: string, record: R): Promise<string>;
  /** Takes a directory out of sight and deletes it a little later, unless by then `isBack` says it was made anew. */
  drop(name: string, isBack: () => boolean): void;
}

export interface VaultRecord {
  readonly version: 1;
  /** Kernel boot it was made in, where flushes are to be waited for. */
  readonly bootId?: string;
}

export interface VaultOptions<R> {
  readonly dir: string;
  /** What it holds, for notes: `layer`. Its record is `layer.json`. */
  readonly what: string;
  /** The name a record belongs under. */
  readonly nameOf: (record: R) => string;
  readonly workshop: Workshop;
  readonly flusher: Flusher | undefined;
  readonly observer: Observer;
}

export async function openVault<R extends VaultRecord>(options: VaultOptions<R>): Promise<Vault<R>> {
  const { what, workshop, flusher, observer } = options;
  await mkdir(options.dir, { recursive: true, mode: 0o700 });
  const boot = await bootId();
  const locks = new KeyedLock();
  const pathOf = (name: string): string => join(options.dir, name);
  const fault = async (name: string, record: R | undefined): Promise<string | undefined> => {
    if (record === undefined || options.nameOf(record) !== name) return 'has no readable record';
    if (flusher === undefined || (await isTrusted(pathOf(name), record.bootId, boot))) return undefined;
    return 'was not on disk yet when the machine went down';
  };
  return {
    pathOf,
    async load() {
      const found: { record: R; dir: string }[] = [];
      for (const name of await readdir(options.dir)) {
        const record = await readRecord<R>(join(pathOf(name), `${what}.json`));
        const why = await fault(name, record);
        if (record !== undefined && why === undefined) found.push({ record, dir: pathOf(name) });
        else {
          observer.note('warn', `${what} ${name} ${why} and is removed`);
          await workshop.setAside(pathOf(name));
        }
      }
      return found;
    },
    hold: async (name, work) => await locks.hold(name, work),
    async place(name, making, record) {
      const whole = flusher === undefined ? record : { ...record, bootId: boot };
      await writeFile(join(making, `${what}.json`), JSON.stringify(whole), { mode: 0o600 });
      const dir = pathOf(name);
      await workshop.setAside(dir); /* dropped a moment ago and not yet gone */
      await rename(making, dir);
      flusher?.add(dir);
      return dir;
    },
    drop(name, isBack) {
      const work = locks.hold(name, async () => {
        if (!isBack()) await workshop.setAside(pathOf(name));
      });
      workshop.track(
        work.catch((error: unknown) => observer.note('warn', `remove ${what} ${name}: ${messageOf(error)}`)),
      );
    },
  };
}
