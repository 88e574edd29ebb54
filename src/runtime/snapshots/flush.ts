import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../kit/errors.js';
import type { Observer } from '../../kit/observer.js';

/**
 * Layers are not flushed to disk before they are used: a pull would take twice as long, and a killed process loses
 * nothing. A power failure does, and it may keep a layer's name and lose its files. So each layer remembers the boot it
 * was made in, a flush follows a little later and leaves a mark, and a layer of an earlier boot without one is not
 * trusted.
 */
export interface Flusher {
  /** A layer directory that must get its mark. */
  add(dir: string): void;
  /** Flushes what was added, now. */
  flush(): Promise<void>;
}

const mark = 'flushed';
/** Milliseconds after the last layer, so that a pull is one flush. */
const quietMs = 2_000;

export const bootId = async (): Promise<string> =>
  (await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')).trim();

/** Whether a layer directory survived the boot it was made in. */
export async function isTrusted(dir: string, madeIn: string | undefined, current: string): Promise<boolean> {
  if (madeIn === undefined || madeIn === current) return true;
  return (await readFile(join(dir, mark)).catch(() => undefined)) !== undefined;
}

/** `syncFs` flushes the file system of a descriptor (syncfs(2)); `root` is any directory on it. */
export function createFlusher(root: string, syncFs: (fd: number) => Promise<void>, observer: Observer): Flusher {
  const waiting = new Set<string>();
  let timer: NodeJS.Timeout | undefined;
  let last: Promise<void> = Promise.resolve();

  const flushNow = async (): Promise<void> => {
    const dirs = [...waiting];
    waiting.clear();
    if (dirs.length === 0) return;
    try {
      const file = await open(root, 'r');
      await syncFs(file.fd).finally(() => file.close());
      for (const dir of dirs) await writeFile(join(dir, mark), '').catch(() => undefined);
    } catch (error) {
      observer.note('warn', `flush layers: ${messageOf(error)}`);
    }
  };
  const flush = (): Promise<void> => {
    clearTimeout(timer);
    timer = undefined;
    last = last.then(flushNow);
    return last;
  };
  return {
    add(dir) {
      waiting.add(dir);
      clearTimeout(timer);
      timer = setTimeout(() => void flush(), quietMs).unref();
    },
    flush,
  };
}
