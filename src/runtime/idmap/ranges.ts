import { readFileSync } from 'node:fs';
import { isErrno, RuntimeError } from '../../kit/errors.js';
import type { IdMapping } from '../model.js';
import { linesOf, overlap, type IdKind, type IdMappings } from './mapping.js';

/** Host ids that are ours to give out. */
export interface HostRange {
  readonly start: number;
  readonly size: number;
}

export interface IdRanges {
  /**
   * Maps for a pod that leaves the choice to us: one line for each kind, from container id 0, of host ids none of
   * `taken` has. Errors: exhausted, naming where more could come from.
   */
  allocate(taken: readonly IdMappings[]): IdMappings;
}

export interface RangeOptions {
  /** `START:SIZE`, for uids and gids alike; empty: those of `user` in /etc/subuid and /etc/subgid. */
  readonly ranges: readonly string[];
  readonly user: string;
  /** Ids each pod gets. */
  readonly size: number;
  /** Text of a file; '' when there is none. */
  readonly read?: (path: string) => string;
}

/** Ranges are read when they are needed: an administrator may add some while the agent runs. */
export function openRanges(options: RangeOptions): IdRanges {
  const read = options.read ?? readOrNothing;
  const pool = (kind: IdKind): readonly HostRange[] =>
    options.ranges.length > 0
      ? options.ranges.map(parseRange)
      : parseSubordinate(read(kind === 'uid' ? '/etc/subuid' : '/etc/subgid'), options.user);
  return {
    allocate(taken) {
      const one = (kind: IdKind): readonly IdMapping[] => {
        const lines = taken.flatMap((mappings) => linesOf(mappings, kind));
        const hostId = firstFree(pool(kind), options.size, lines);
        if (hostId !== undefined) return [{ containerId: 0, hostId, size: options.size }];
        const source = `userns.ranges, or of user "${options.user}" in /etc/sub${kind}`;
        throw new RuntimeError('exhausted', `no ${options.size} ${kind}s are left of ${source}`);
      };
      return { uids: one('uid'), gids: one('gid') };
    },
  };
}

/** The lowest start at which `size` ids of a range are free. */
function firstFree(pool: readonly HostRange[], size: number, taken: readonly IdMapping[]): number | undefined {
  for (const range of pool) {
    const starts = [range.start, ...taken.map((line) => line.hostId + line.size)].sort((a, b) => a - b);
    const free = starts.find(
      (start) =>
        start >= range.start &&
        start + size <= range.start + range.size &&
        overlap([{ containerId: 0, hostId: start, size }], taken) === undefined,
    );
    if (free !== undefined) return free;
  }
  return undefined;
}

/** Reads `START:SIZE`. Host root is never given out. Errors: invalid-argument. */
export function parseRange(text: string): HostRange {
  const match = /^(\d{1,10}):(\d{1,10})$/.exec(text);
  const [start, size] = [Number(match?.[1]), Number(match?.[2])];
  if (match !== null && start > 0 && size > 0 && start + size <= 0xffff_ffff) return { start, size };
  throw new RuntimeError('invalid-argument', `userns.ranges: "${text}" is not START:SIZE within 1 to 4294967294`);
}

/** Lines of subuid(5) for a user; what cannot be read as one is passed over. */
export function parseSubordinate(text: string, user: string): readonly HostRange[] {
  return text.split('\n').flatMap((line) => {
    const [name, start = '', size = ''] = line.trim().split(':');
    try {
      return name === user ? [parseRange(`${start}:${size}`)] : [];
    } catch {
      return [];
    }
  });
}

function readOrNothing(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return '';
    throw error;
  }
}
