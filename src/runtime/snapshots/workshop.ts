import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno, messageOf } from '../../kit/errors.js';
import type { Observer } from '../../kit/observer.js';
import { removeTree } from './tree.js';

/**
 * The directory in which things come to be and pass away: they enter and leave it by a rename, and whatever a crash
 * left in it is purged at start.
 */
export interface Workshop {
  /** A name in it that nobody else has. */
  place(what: string): string;
  /** Takes a path out of sight at once and deletes it a little later. A missing path is fine. */
  setAside(path: string): Promise<void>;
  /** Deletes a path of the workshop a little later. */
  deleteLater(path: string): void;
  /** Something that `settled` waits for. */
  track(work: Promise<unknown>): void;
  settled(): Promise<void>;
}

export async function openWorkshop(dir: string, observer: Observer): Promise<Workshop> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  for (const name of await readdir(dir)) {
    await removeTree(join(dir, name)).catch((error: unknown) =>
      observer.note('warn', `purge ${name}: ${messageOf(error)}`),
    );
  }
  const underway = new Set<Promise<unknown>>();
  const track = (work: Promise<unknown>): void => {
    const tracked = work.catch(() => undefined).finally(() => underway.delete(tracked));
    underway.add(tracked);
  };
  const deleteLater = (path: string): void =>
    track(removeTree(path).catch((error: unknown) => observer.note('warn', `delete ${path}: ${messageOf(error)}`)));
  const place = (what: string): string => join(dir, `${what}-${randomUUID()}`);
  return {
    place,
    deleteLater,
    track,
    async setAside(path) {
      const aside = place('removed');
      try {
        await rename(path, aside);
      } catch (error) {
        if (isErrno(error, 'ENOENT')) return;
        throw error;
      }
      deleteLater(aside);
    },
    async settled() {
      while (underway.size > 0) await Promise.all(underway);
    },
  };
}

/** A record of version 1, or undefined for one that is missing, damaged or of another release. */
export async function readRecord<T extends { readonly version: 1 }>(path: string): Promise<T | undefined> {
  try {
    const record = JSON.parse(await readFile(path, 'utf8')) as T;
    return record.version === 1 ? record : undefined;
  } catch {
    return undefined;
  }
}
