import type { Observer } from '../../kit/observer.js';
import { messageOf } from '../../kit/errors.js';
import type { Table } from './store.js';

/**
 * What could not be cleaned up, and the ways to try again.
 *
 * Everything Berth makes on the host is taken away through `clean(kind, target)`, whoever asks: a request's undo, a
 * remove, recovery, `berth doctor --clean`. A cleaner is idempotent (gone is success) and needs nothing but its target,
 * so that what fails can be written down and tried again later, also by the next agent.
 */
export interface ResidueRecord {
  readonly kind: ResidueKind;
  readonly target: string;
  readonly reason: string;
  readonly since: bigint;
  readonly attempts: number;
}

export const residueKinds = [
  'cgroup',
  'snapshot',
  'directory',
  'shim',
  'network',
  'netns',
  'image-hold',
  'volumes',
] as const;
export type ResidueKind = (typeof residueKinds)[number];

/** One cleaner per kind. `target` is a path, key or id. */
export type Cleaners = Readonly<Record<ResidueKind, (target: string) => Promise<void> | void>>;

export interface Residue {
  /** Cleans, or records what stands in the way. Never throws. True when clean. */
  clean(kind: ResidueKind, target: string): Promise<boolean>;
  /** Tries everything recorded once more; returns how many are left. */
  retry(): Promise<number>;
  list(): readonly ResidueRecord[];
}

export function openResidue(
  table: Table<ResidueRecord>,
  cleaners: Cleaners,
  observer: Observer,
  now: () => bigint,
): Residue {
  const records = new Map<string, ResidueRecord>(table.entries());

  const forget = (key: string): void => {
    if (!records.delete(key)) return;
    table.delete(key);
  };

  const remember = (key: string, kind: ResidueKind, target: string, reason: string): void => {
    const before = records.get(key);
    const record: ResidueRecord = {
      kind,
      target,
      reason,
      since: before?.since ?? now(),
      attempts: (before?.attempts ?? 0) + 1,
    };
    records.set(key, record);
    table.put(key, record);
    observer.note('warn', `${kind} ${target} could not be removed, kept as residue: ${reason}`);
  };

  const clean = async (kind: ResidueKind, target: string): Promise<boolean> => {
    const key = `${kind}:${target}`;
    try {
      await cleaners[kind](target);
      forget(key);
      return true;
    } catch (error) {
      remember(key, kind, target, messageOf(error));
      return false;
    }
  };

  return {
    clean,
    async retry() {
      for (const { kind, target } of [...records.values()]) await clean(kind, target);
      return records.size;
    },
    list: () => [...records.values()],
  };
}
