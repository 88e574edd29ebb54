import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Debian's kernel for virtual machines: small, with every cgroup controller. */
const metaPackage = 'linux-image-cloud-amd64';

export interface Kernel {
  /** `6.1.0-44-cloud-amd64`. */
  readonly release: string;
  readonly image: string;
  /** `…/lib/modules/RELEASE`. */
  readonly modules: string;
}

/** The newest kernel apt knows, downloaded once and unpacked below `cache`. */
export function fetchKernel(cache: string): Kernel {
  const name = currentPackage();
  const dir = join(cache, name);
  if (!existsSync(dir)) download(name, cache, dir);
  const release = name.replace(/^linux-image-/, '');
  return { release, image: join(dir, 'boot', `vmlinuz-${release}`), modules: join(dir, 'lib/modules', release) };
}

function currentPackage(): string {
  const depends = execFileSync('apt-cache', ['depends', metaPackage]).toString();
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (name === undefined) throw new Error(`apt knows no ${metaPackage}: run apt-get update`);
  return name;
}

function download(name: string, cache: string, dir: string): void {
  const work = join(cache, 'unpack');
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  console.log(`Downloading Debian's ${name}`);
  try {
    execFileSync('apt-get', ['download', '-qq', name], { cwd: work, stdio: ['ignore', 'ignore', 'pipe'] });
  } catch {
    // An old package list names a file that is gone from the mirror.
    execFileSync('apt-get', ['update', '-qq'], { stdio: 'ignore' });
    execFileSync('apt-get', ['download', '-qq', name], { cwd: work, stdio: ['ignore', 'ignore', 'inherit'] });
  }
  const file = readdirSync(work).find((entry) => entry.endsWith('.deb'));
  if (file === undefined) throw new Error(`apt-get download ${name} brought no package`);
  execFileSync('dpkg-deb', ['-x', file, 'root'], { cwd: work });
  execFileSync('/bin/busybox', ['depmod', '-b', join(work, 'root'), name.replace(/^linux-image-/, '')]);
  renameSync(join(work, 'root'), dir);
  rmSync(work, { recursive: true });
}
