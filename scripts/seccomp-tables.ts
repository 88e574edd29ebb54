/**
 * Writes src/runtime/plan/seccomp/syscalls.ts from the kernel headers of this machine (Debian: linux-libc-dev). Run
 * with `npx tsx scripts/seccomp-tables.ts` when a kernel brings new system calls; the result is checked in.
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';

const columns = ['x86_64', 'x86', 'x32', 'arm64'] as const;
type Column = (typeof columns)[number];

/**
 * Since 5.1 a new call has the same number everywhere; these came after the headers of Debian 12 (Linux 6.1). Source:
 * scripts/syscall.tbl of Linux 6.18.
 */
const later: Readonly<Record<string, number>> = {
  cachestat: 451,
  fchmodat2: 452,
  map_shadow_stack: 453,
  futex_wake: 454,
  futex_wait: 455,
  futex_requeue: 456,
  statmount: 457,
  listmount: 458,
  lsm_get_self_attr: 459,
  lsm_set_self_attr: 460,
  lsm_list_modules: 461,
  mseal: 462,
  setxattrat: 463,
  getxattrat: 464,
  listxattrat: 465,
  removexattrat: 466,
  open_tree_attr: 467,
  file_getattr: 468,
  file_setattr: 469,
};

/** x86-64 alone has these, and its x32 numbers do not. */
const laterX86: Readonly<Record<string, number>> = { uretprobe: 335, uprobe: 336 };

/** What the preprocessor makes of a header's __NR_ names; `flags` choose the architecture. */
function numbersOf(header: string, flags: readonly string[]): Map<string, number> {
  const macros = execFileSync('cc', ['-E', '-dM', ...flags, '-include', header, '-x', 'c', '/dev/null']).toString();
  const numbers = new Map<string, number>();
  const defined = new Map([...macros.matchAll(/^#define (__NR\w*) (.+)$/gm)].map(([, name, value]) => [name, value]));
  for (const [name, value] of defined) {
    const number = Number((defined.get(value ?? '') ?? value ?? '').replace(/\(__X32_SYSCALL_BIT \+ (\d+)\)/, '$1'));
    const call = name?.replace(/^__NR_/, '');
    if (call === undefined || call.startsWith('__NR') || !Number.isInteger(number)) continue;
    numbers.set(call, number);
  }
  for (const name of ['syscalls', 'arch_specific_syscall']) numbers.delete(name);
  return numbers;
}

const asm = '/usr/include/x86_64-linux-gnu/asm';
// The generic table is arm64's once these are set (arch/arm64/include/uapi/asm/unistd.h).
const arm64Wants = ['RENAMEAT', 'NEW_STAT', 'SET_GET_RLIMIT', 'TIME32_SYSCALLS', 'SYS_CLONE3', 'MEMFD_SECRET'];
const tables: Record<Column, Map<string, number>> = {
  x86_64: numbersOf(`${asm}/unistd_64.h`, []),
  x86: numbersOf(`${asm}/unistd_32.h`, []),
  x32: numbersOf(`${asm}/unistd_x32.h`, []),
  arm64: numbersOf(
    '/usr/include/asm-generic/unistd.h',
    arm64Wants.map((name) => `-D__ARCH_WANT_${name}`),
  ),
};
for (const column of columns) {
  for (const [name, number] of Object.entries(later)) tables[column].set(name, number);
}
for (const [name, number] of Object.entries(laterX86)) tables.x86_64.set(name, number);

const names = [...new Set(columns.flatMap((column) => [...tables[column].keys()]))].sort();
const rows = names.map((name) => [name, ...columns.map((column) => tables[column].get(name) ?? '-')].join(' '));
const text = `/**
 * Numbers of the system calls, one a line: name, then ${columns.join(', ')}; \`-\` where the architecture has none. x32
 * numbers are without their bit 0x40000000. Written by scripts/seccomp-tables.ts; do not edit.
 */
export const syscallRows = \`
${rows.join('\n')}
\`;
`;
writeFileSync('src/runtime/plan/seccomp/syscalls.ts', text);
