import { RuntimeError } from '../../kit/errors.js';
import type { IdMapping } from '../model.js';

/** The two maps of a user namespace. They are separate: what holds for uids says nothing of gids. */
export interface IdMappings {
  readonly uids: readonly IdMapping[];
  readonly gids: readonly IdMapping[];
}

export type IdKind = 'uid' | 'gid';

/** Lines /proc/PID/uid_map takes (kernel 4.15). */
export const maxLines = 340;

/** (uid_t)-1 means "no id" to the kernel; 2^32 ids are one too many. */
const lastId = 0xffff_fffe;

export const linesOf = (mappings: IdMappings, kind: IdKind): readonly IdMapping[] =>
  kind === 'uid' ? mappings.uids : mappings.gids;

/** Why these lines are no id map with a root, or undefined when they are one (user_namespaces(7)). */
export function faultOf(lines: readonly IdMapping[]): string | undefined {
  if (lines.length > maxLines) return `has ${lines.length} lines, and the kernel takes ${maxLines}`;
  for (const { containerId, hostId, size } of lines) {
    const text = `${containerId}:${hostId}:${size}`;
    if (![containerId, hostId, size].every((n) => Number.isInteger(n) && n >= 0)) return `${text} is no line of ids`;
    if (size === 0) return `${text} maps nothing`;
    if (containerId + size - 1 > lastId || hostId + size - 1 > lastId) return `${text} ends above id ${lastId}`;
  }
  const inside = collision(lines, 'containerId');
  if (inside !== undefined) return `container id ${inside} is mapped twice`;
  const outside = collision(lines, 'hostId');
  if (outside !== undefined) return `host id ${outside} is mapped twice`;
  return toHost(lines, 0) === undefined ? 'container id 0 must be mapped' : undefined;
}

function collision(lines: readonly IdMapping[], side: 'containerId' | 'hostId'): number | undefined {
  const sorted = [...lines].sort((a, b) => a[side] - b[side]);
  const at = sorted.findIndex((line, i) => {
    const before = sorted[i - 1];
    return before !== undefined && before[side] + before.size > line[side];
  });
  return sorted[at]?.[side];
}

/** The host's id for one of the container's; undefined when it has none. */
export function toHost(lines: readonly IdMapping[], id: number): number | undefined {
  const line = lines.find(({ containerId, size }) => id >= containerId && id - containerId < size);
  return line === undefined ? undefined : line.hostId + (id - line.containerId);
}

/** The container's id for one of the host's; undefined when it has none. */
export function toContainer(lines: readonly IdMapping[], id: number): number | undefined {
  const line = lines.find(({ hostId, size }) => id >= hostId && id - hostId < size);
  return line === undefined ? undefined : line.containerId + (id - line.hostId);
}

/** Host ids of the container's root. Errors: invalid-argument when 0 is not mapped. */
export function rootOf(mappings: IdMappings): { readonly uid: number; readonly gid: number } {
  const of = (kind: IdKind): number => {
    const id = toHost(linesOf(mappings, kind), 0);
    if (id === undefined) throw new RuntimeError('invalid-argument', `container ${kind} 0 is not mapped`);
    return id;
  };
  return { uid: of('uid'), gid: of('gid') };
}

/**
 * Highest container id that a range from 0 may reach to: its lines follow each other without a gap, and so do the
 * host's ids rise, by which the kernel compares.
 */
export function lastFromZero(lines: readonly IdMapping[]): number {
  let end: IdMapping | undefined;
  for (const line of [...lines].sort((a, b) => a.containerId - b.containerId)) {
    const follows = end === undefined ? line.containerId === 0 : line.containerId === end.containerId + end.size;
    if (!follows || (end !== undefined && line.hostId < end.hostId)) break;
    end = line;
  }
  return end === undefined ? 0 : end.containerId + end.size - 1;
}

/** The first host id that both maps give out, or undefined: what two pods have in common is not theirs alone. */
export function overlap(a: readonly IdMapping[], b: readonly IdMapping[]): number | undefined {
  for (const one of a)
    for (const two of b) {
      const start = Math.max(one.hostId, two.hostId);
      if (start < Math.min(one.hostId + one.size, two.hostId + two.size)) return start;
    }
  return undefined;
}

/** Whether both say the same, in whatever order. */
export function sameLines(a: readonly IdMapping[], b: readonly IdMapping[]): boolean {
  return keyOf(a) === keyOf(b);
}

/** Ids from the first to the last of a range. */
export type IdRange = readonly [first: number, last: number];

/** Ids that files belong to or name: at least these, in rising ranges. */
export interface FileIds {
  readonly uids: readonly IdRange[];
  readonly gids: readonly IdRange[];
}

/** The container ids that these lines map, rising, neighbours made one. */
export function mappedRanges(lines: readonly IdMapping[]): readonly IdRange[] {
  const ranges: IdRange[] = [];
  for (const { containerId, size } of [...lines].sort((a, b) => a.containerId - b.containerId)) {
    const [first, last] = ranges.at(-1) ?? [];
    if (first !== undefined && last === containerId - 1) ranges[ranges.length - 1] = [first, containerId + size - 1];
    else ranges.push([containerId, containerId + size - 1]);
  }
  return ranges;
}

/** Whether a container with these mappings has an id for each of the files'. */
export function mapsAll({ uids, gids }: IdMappings, ids: FileIds): boolean {
  const holds = (lines: readonly IdMapping[], wanted: readonly IdRange[]): boolean => {
    const mapped = mappedRanges(lines);
    return wanted.every(([first, last]) => mapped.some(([from, to]) => first >= from && last <= to));
  };
  return holds(uids, ids.uids) && holds(gids, ids.gids);
}

/** `0-65535,100000`. */
export const formatRanges = (ranges: readonly IdRange[]): string =>
  ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(',');

/** Reads what `formatRanges` writes. */
export const parseRanges = (text: string): readonly IdRange[] =>
  text.split(',').map((range) => {
    const [first = NaN, last = first] = range.split('-').map(Number);
    return [first, last];
  });

/** Sorted by container id, neighbours that continue each other made one: equal maps have equal texts. */
export function keyOf(lines: readonly IdMapping[]): string {
  const merged: IdMapping[] = [];
  for (const line of [...lines].sort((a, b) => a.containerId - b.containerId)) {
    const last = merged.at(-1);
    const continues =
      last !== undefined &&
      last.containerId + last.size === line.containerId &&
      last.hostId + last.size === line.hostId;
    if (continues) merged[merged.length - 1] = { ...last, size: last.size + line.size };
    else merged.push(line);
  }
  return merged.map(({ containerId, hostId, size }) => `${containerId}:${hostId}:${size}`).join(',');
}

/** Reads `CONTAINER:HOST:SIZE[,…]`. Errors: invalid-argument naming `field`. */
export function parseLines(text: string, field: string): readonly IdMapping[] {
  const lines = text.split(',').map((part) => {
    const match = /^(\d{1,10}):(\d{1,10}):(\d{1,10})$/.exec(part.trim());
    if (match === null) throw new RuntimeError('invalid-argument', `${field}: "${part}" is not CONTAINER:HOST:SIZE`);
    const [, containerId, hostId, size] = match;
    return { containerId: Number(containerId), hostId: Number(hostId), size: Number(size) };
  });
  const fault = faultOf(lines);
  if (fault !== undefined) throw new RuntimeError('invalid-argument', `${field}: ${fault}`);
  return lines;
}

/** Lines of the text of /proc/PID/uid_map or gid_map, by the id inside (user_namespaces(7)). */
export function parseIdMap(text: string): readonly IdMapping[] {
  const lines = text.split('\n').flatMap((line) => {
    const [containerId, hostId, size] = line.trim().split(/\s+/).map(Number);
    if (containerId === undefined || hostId === undefined || size === undefined) return [];
    return [{ containerId, hostId, size }];
  });
  return lines.sort((a, b) => a.containerId - b.containerId);
}

/** The maps of a process by the texts of its two files, each of which speaks for its own kind only. */
export const parseIdMaps = (uidMap: string, gidMap: string): IdMappings => ({
  uids: parseIdMap(uidMap),
  gids: parseIdMap(gidMap),
});

/** Whether a process with these maps is in a user namespace other than the first, which has every id as it is. */
export const isInUserNamespace = ({ uids, gids }: IdMappings): boolean => ![uids, gids].every(isWholeIdentity);

const isWholeIdentity = (lines: readonly IdMapping[]): boolean =>
  lines.length === 1 && lines[0]?.containerId === 0 && lines[0].hostId === 0 && lines[0].size === 0xffff_ffff;
