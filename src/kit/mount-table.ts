/** One line of /proc/PID/mountinfo (proc(5)). */
export interface MountEntry {
  readonly id: number;
  readonly point: string;
  /** `major:minor` of the file system. */
  readonly device: string;
  /** Which directory or file of its file system is mounted. */
  readonly root: string;
  readonly fstype: string;
  /** Mounts below appear in its peers, and theirs here. */
  readonly shared: boolean;
  /** Mounts of its master appear here. */
  readonly slave: boolean;
}

/** In the order of the table: of several at one point the last covers the others. */
export function parseMountTable(text: string): MountEntry[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [left = '', right = ''] = line.split(' - ');
      const fields = left.split(' ');
      const has = (tag: string): boolean => fields.slice(6).some((field) => field.startsWith(`${tag}:`));
      return {
        id: Number(fields[0]),
        point: unescape(fields[4] ?? ''),
        device: fields[2] ?? '',
        root: unescape(fields[3] ?? ''),
        fstype: right.split(' ')[0] ?? '',
        shared: has('shared'),
        slave: has('master'),
      };
    });
}

/** Space, tab, newline and backslash are written as three octal digits. */
const unescape = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));

/** The mount that an absolute path without links lies on. */
export function mountAt(table: readonly MountEntry[], path: string): MountEntry | undefined {
  let best: MountEntry | undefined;
  for (const entry of table) {
    const covers = isBelow(path, entry.point) || path === entry.point;
    if (covers && entry.point.length >= (best?.point.length ?? 0)) best = entry;
  }
  return best;
}

/** Mounts below a directory, without its own. */
export const mountsBelow = (table: readonly MountEntry[], path: string): readonly MountEntry[] =>
  table.filter(({ point }) => isBelow(point, path));

const isBelow = (path: string, dir: string): boolean =>
  path !== dir && path.startsWith(dir.endsWith('/') ? dir : `${dir}/`);
