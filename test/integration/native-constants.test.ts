import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as constants from '../../src/native/constants.js';

/** The C names of the tables in `src/native/constants.ts`. */
const prefixes: Readonly<Record<string, string>> = {
  O: 'O_',
  AT: 'AT_',
  MS: 'MS_',
  MNT: '',
  MOUNT_ATTR: 'MOUNT_ATTR_',
  OPEN_TREE: 'OPEN_TREE_',
  MOVE_MOUNT: 'MOVE_MOUNT_',
  FSCONFIG: 'FSCONFIG_',
  RESOLVE: 'RESOLVE_',
  F: 'F_',
  SEAL: 'F_SEAL_',
  MFD: 'MFD_',
  LOCK: 'LOCK_',
  SOCKETS: '',
  POSIX_SPAWN: 'POSIX_SPAWN_',
};

const special: Readonly<Record<string, string>> = {
  'MNT.FORCE': 'MNT_FORCE',
  'MNT.DETACH': 'MNT_DETACH',
  'MNT.UMOUNT_NOFOLLOW': 'UMOUNT_NOFOLLOW',
  'FS_MAGIC.NSFS': 'NSFS_MAGIC',
  'FS_MAGIC.PROC': 'PROC_SUPER_MAGIC',
  'FS_MAGIC.CGROUP': 'CGROUP_SUPER_MAGIC',
  'FS_MAGIC.CGROUP2': 'CGROUP2_SUPER_MAGIC',
  'FS_MAGIC.TMPFS': 'TMPFS_MAGIC',
  'FS_MAGIC.OVERLAYFS': 'OVERLAYFS_SUPER_MAGIC',
  'FS_MAGIC.SYSFS': 'SYSFS_MAGIC',
  'SIZES.posix_spawnattr_t': 'sizeof(posix_spawnattr_t)',
  'SIZES.posix_spawn_file_actions_t': 'sizeof(posix_spawn_file_actions_t)',
  'SIZES.sigset_t': 'sizeof(sigset_t)',
};

const headers = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>
`;

/** MS_* come from linux/mount.h, MNT_* from the C library's own header, which cannot be included beside it. */
const fallbacks: Readonly<Record<string, number>> = {
  MNT_FORCE: 1,
  MNT_DETACH: 2,
  UMOUNT_NOFOLLOW: 8,
  MFD_NOEXEC_SEAL: 8,
  MFD_EXEC: 16,
  SYS_fchmodat2: 452,
};

function expressions(): Map<string, readonly [expression: string, value: number]> {
  const all = new Map<string, readonly [string, number]>();
  for (const [table, values] of Object.entries(constants)) {
    if (typeof values === 'number') {
      all.set(table, [table, values]);
      continue;
    }
    for (const [name, value] of Object.entries(values)) {
      const key = `${table}.${name}`;
      const general =
        table === 'SIZES'
          ? `sizeof(struct ${name})`
          : table === 'SYS'
            ? `SYS_${name}`
            : `${prefixes[table] ?? '?'}${name}`;
      all.set(key, [special[key] ?? general, value]);
    }
  }
  return all;
}

function program(all: ReturnType<typeof expressions>): string {
  const lines = [...all].map(([key, [expression]]) => {
    const print = `printf("${key} %lld\\n", (long long)(${expression}));`;
    const fallback = fallbacks[expression];
    return fallback === undefined
      ? print
      : `#ifdef ${expression}\n${print}\n#else\nprintf("${key} %d\\n", ${fallback});\n#endif`;
  });
  return `${headers}\nint main(void)\n{\n${lines.join('\n')}\nreturn 0;\n}\n`;
}

describe('constants of the kernel interface', () => {
  const dir = mkdtempSync(join(tmpdir(), 'berth-constants-'));
  after(() => rmSync(dir, { recursive: true, force: true }));

  it('agree with the C headers', () => {
    const all = expressions();
    writeFileSync(join(dir, 'print.c'), program(all));
    execFileSync('cc', ['-w', '-o', join(dir, 'print'), join(dir, 'print.c')]);
    const printed = execFileSync(join(dir, 'print'), { encoding: 'utf8' }).trim().split('\n');
    assert.equal(printed.length, all.size);
    for (const line of printed) {
      const [key = '', value] = line.split(' ');
      assert.equal(all.get(key)?.[1], Number(value), key);
    }
  });
});
