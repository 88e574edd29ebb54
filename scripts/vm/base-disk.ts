import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { copyFile, copyProgram, writeText } from './files.js';
import type { Kernel } from './kernel.js';
import { neededPackages } from './packages.js';

/**
 * The part of the machine that seldom changes, made once and kept: an ext4 disk with busybox, Node, some programs of
 * this machine, kernel modules and npm packages, and an initramfs with the disk drivers.
 */
export interface BaseDisk {
  readonly disk: string;
  readonly initramfs: string;
}

/** Free space the tests get, in megabytes; the file is sparse. */
const diskMegabytes = 3072;

const diskDrivers = ['virtio_pci', 'virtio_blk'];

export function makeBaseDisk(project: string, cache: string, kernel: Kernel, programs: readonly string[]): BaseDisk {
  const base: BaseDisk = { disk: join(cache, 'base.ext4'), initramfs: join(cache, 'initramfs') };
  const stampFile = join(cache, 'base.stamp');
  const stamp = stampOf(project, kernel, programs);
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return base;
  console.log('Building the disk of the test machine');
  rmSync(stampFile, { force: true });
  const stage = join(cache, 'stage');
  rmSync(stage, { recursive: true, force: true });
  try {
    stageRoot(project, stage, kernel, programs);
    makeExt4(stage, base.disk);
    makeInitramfs(project, join(cache, 'initramfs.d'), kernel, base.initramfs);
    writeFileSync(stampFile, stamp);
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
  return base;
}

/** Everything the disk is made from. */
function stampOf(project: string, kernel: Kernel, programs: readonly string[]): string {
  const hash = createHash('sha256');
  const files = ['package-lock.json', 'test/vm/init.sh', 'test/vm/initramfs-init.sh', 'scripts/vm/base-disk.ts'];
  for (const file of [...files, 'scripts/vm/packages.ts']) hash.update(readFileSync(join(project, file)));
  for (const program of [process.execPath, ...programs.filter((path) => existsSync(path))]) {
    hash.update(`${program} ${statSync(program).size} ${statSync(program).mtimeMs}\n`);
  }
  return hash.update(kernel.release).digest('hex');
}

function stageRoot(project: string, stage: string, kernel: Kernel, programs: readonly string[]): void {
  for (const dir of ['dev', 'proc', 'sys', 'run', 'tmp', 'root', 'etc', 'var/lib', 'usr/sbin', 'sbin', 'bin', 'opt']) {
    mkdirSync(join(stage, dir), { recursive: true });
  }
  linkApplets(stage);
  copyProgram(process.execPath, stage, 'usr/bin/node');
  for (const program of programs.filter((path) => existsSync(path))) {
    // Busybox has an applet of the same name at one path or another; the real program must be the only one.
    for (const dir of ['bin', 'sbin', 'usr/bin', 'usr/sbin'])
      rmSync(join(stage, dir, basename(program)), { force: true });
    copyProgram(program, stage);
  }
  writeText(join(stage, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n');
  writeText(join(stage, 'etc/group'), 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n');
  writeText(join(stage, 'etc/hosts'), '127.0.0.1 localhost\n::1 localhost\n');
  writeText(join(stage, 'etc/resolv.conf'), 'nameserver 127.0.0.1\n');
  for (const file of ['/etc/protocols', '/etc/services']) if (existsSync(file)) copyFile(file, join(stage, file));
  writeText(join(stage, 'sbin/init'), readFileSync(join(project, 'test/vm/init.sh'), 'utf8'), 0o755);
  writeText(join(stage, 'usr/bin/make'), '#!/bin/sh\nexit 0\n', 0o755);
  // Tests that start Node again ask for the TypeScript loader, of which translated files have no need.
  writeText(join(stage, 'opt/node_modules/tsx/index.js'), '');
  cpSync(kernel.modules, join(stage, 'lib/modules', kernel.release), { recursive: true });
  for (const path of neededPackages(project)) {
    cpSync(join(project, path), join(stage, 'opt', path), { recursive: true, filter: isUsedAtRunTime });
  }
}

/** Relative links: an absolute one, followed while the tree is only staged, would lead to this machine's own busybox. */
function linkApplets(stage: string): void {
  copyProgram('/bin/busybox', stage);
  const applets = execFileSync('/bin/busybox', ['--list-full']).toString().split('\n').filter(Boolean);
  for (const applet of applets.filter((path) => !['busybox', 'init', 'linuxrc'].includes(basename(path)))) {
    const link = join(stage, applet);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(relative(dirname(link), join(stage, 'bin/busybox')), link);
  }
}

/** Nested packages are listed by themselves; documentation, types and source maps only cost space. */
const isUsedAtRunTime = (path: string): boolean => !/\.(map|md|d\.ts|d\.cts|d\.mts)$/.test(path);

function makeExt4(stage: string, disk: string): void {
  rmSync(disk, { force: true });
  const options = ['-q', '-t', 'ext4', '-O', '^has_journal', '-E', 'root_owner=0:0', '-N', '200000', '-d', stage];
  execFileSync('mke2fs', [...options, disk, `${diskMegabytes}M`], { stdio: ['ignore', 'ignore', 'inherit'] });
}

function makeInitramfs(project: string, dir: string, kernel: Kernel, file: string): void {
  rmSync(dir, { recursive: true, force: true });
  for (const name of ['bin', 'proc', 'sys', 'dev', 'lib', 'disk']) mkdirSync(join(dir, name), { recursive: true });
  copyProgram('/bin/busybox', dir);
  const modules = modulesInOrder(kernel.modules, diskDrivers);
  for (const path of modules) copyFile(path, join(dir, 'lib', basename(path)));
  writeText(join(dir, 'modules'), modules.map((path) => `${basename(path)}\n`).join(''));
  writeText(join(dir, 'init'), readFileSync(join(project, 'test/vm/initramfs-init.sh'), 'utf8'), 0o755);
  execFileSync('sh', ['-c', 'find . | cpio -o -H newc -R 0:0 2>/dev/null > "$0"', file], { cwd: dir });
  rmSync(dir, { recursive: true });
}

/** Files of the modules and of all they depend on, those first, by modules.dep. What is built in is not listed there. */
function modulesInOrder(dir: string, names: readonly string[]): string[] {
  const needs = new Map<string, string[]>();
  for (const line of readFileSync(join(dir, 'modules.dep'), 'utf8').split('\n')) {
    const [path, rest = ''] = line.split(':');
    if (path !== undefined && path !== '') needs.set(path, rest.split(' ').filter(Boolean));
  }
  const ordered = new Set<string>();
  const add = (path: string): void => {
    for (const needed of needs.get(path) ?? []) if (!ordered.has(needed)) add(needed);
    ordered.add(path);
  };
  for (const path of needs.keys()) if (names.includes(basename(path, '.ko').replaceAll('-', '_'))) add(path);
  return [...ordered].map((path) => join(dir, path));
}
