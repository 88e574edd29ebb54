import type { SeccompArch } from './profile.js';
import { syscallRows } from './syscalls.js';

const columns: readonly SeccompArch[] = ['x86_64', 'x86', 'x32', 'arm64'];

const rows = syscallRows
  .trim()
  .split('\n')
  .map((row) => row.split(' '));

const tables = new Map<SeccompArch, ReadonlyMap<string, number>>(
  columns.map((arch, index) => {
    const known = rows.filter((row) => row[index + 1] !== '-');
    return [arch, new Map(known.map((row) => [row[0] ?? '', Number(row[index + 1])]))];
  }),
);

/** Name to number; x32 without its bit. Names up to Linux 6.18. */
export const syscallNumbers = (arch: SeccompArch): ReadonlyMap<string, number> => tables.get(arch) ?? new Map();
