import type { DiskUsage } from './snapshotter.js';
import { measureTree } from './tree.js';

/** How old an answer may be before a new walk is started, in milliseconds. */
const freshMs = 10_000;

interface Known {
  value: DiskUsage | undefined;
  measuredAt: number;
  walk: Promise<DiskUsage> | undefined;
}

/**
 * Disk usage by key. Trees are walked one at a time, so that a hundred containers cost no more at once than one; a
 * caller waits only when nothing is known yet, and gets the last figure while a new walk runs.
 */
export function usageCache(): {
  of(key: string, dir: string): Promise<DiskUsage>;
  forget(key: string): void;
} {
  const all = new Map<string, Known>();
  let queue: Promise<unknown> = Promise.resolve();

  const measure = (known: Known, dir: string): Promise<DiskUsage> => {
    const walk = queue.then(() => measureTree(dir));
    known.walk = walk;
    queue = walk
      .then((value) => Object.assign(known, { value, measuredAt: performance.now() }))
      .catch(() => undefined)
      .finally(() => (known.walk = undefined));
    return walk;
  };

  return {
    async of(key, dir) {
      const known = all.get(key) ?? { value: undefined, measuredAt: 0, walk: undefined };
      all.set(key, known);
      const stale = performance.now() - known.measuredAt > freshMs;
      const walk = known.value === undefined || stale ? (known.walk ?? measure(known, dir)) : undefined;
      if (known.value === undefined) return await (walk as Promise<DiskUsage>);
      walk?.catch(() => undefined);
      return known.value;
    },
    forget: (key) => void all.delete(key),
  };
}
