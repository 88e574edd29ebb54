import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { spawnHelper } from '../../src/kit/helper-process.js';
import { MNT } from '../../src/native/constants.js';
import type { Native } from '../../src/native/native.js';
import type { IdMapping } from '../../src/runtime/model.js';

/** Runs berth-remap by itself over layers made by hand. */
export interface RemapRun {
  /** Where a directory of this name is, made when it is not there. */
  dir(name: string): string;
  /** The first of `layers` is the topmost. The result is in `dir(into)`; a check has none. */
  remap(into: string, layers: readonly string[], options?: Partial<RemapOptions>): Promise<RemapOutcome>;
  /** Mounts the directories as one overlay until `close`, writable with `upper`. Gives the mount point. */
  mount(layers: readonly string[], options?: { readonly upper?: string; readonly metacopy?: boolean }): string;
  /** Unmounts everything, and forgets what the kernel knows of it. */
  unmount(): void;
  close(): void;
}

export interface RemapOptions {
  readonly mode: 'metacopy' | 'copy' | 'check';
  readonly userXattrs: boolean;
  readonly uids: readonly IdMapping[];
  readonly gids: readonly IdMapping[];
  /** In the place of the lines that `uids` and `gids` make. */
  readonly input: string;
}

export interface RemapOutcome {
  readonly code: number | null;
  readonly stderr: string;
  readonly progress: readonly string[];
  /** Of the last line; undefined without one. */
  readonly done: { readonly bytes: number; readonly inodes: number } | undefined;
}

export interface RemapProgram {
  readonly path: string;
  readonly sanitized: boolean;
  /** False where there is no compiler for it. */
  build(): boolean;
}

export const remapProgram = (sanitized: boolean): RemapProgram => ({
  path: resolve(`build/remap${sanitized ? '-asan' : ''}/berth-remap`),
  sanitized,
  build() {
    const args = ['-s', '-C', 'src/native/remap', ...(sanitized ? ['ASAN=1'] : [])];
    const { status } = spawnSync('make', args, { stdio: ['ignore', 'ignore', 'inherit'] });
    return status === 0 && existsSync(this.path);
  },
});

/** Maps that differ, so that none can be taken for the other. */
export const defaultUids: readonly IdMapping[] = [{ containerId: 0, hostId: 100_000, size: 65_536 }];
export const defaultGids: readonly IdMapping[] = [{ containerId: 0, hostId: 300_000, size: 65_536 }];

const lines = (kind: string, maps: readonly IdMapping[]): string =>
  maps.map((line) => `${kind} ${line.containerId} ${line.hostId} ${line.size}\n`).join('');

/** Options of a mount have one page: a deep stack needs names that are relative to a working directory. */
function mountFrom(directory: string, mount: () => void): void {
  const before = process.cwd();
  process.chdir(directory);
  try {
    mount();
  } finally {
    process.chdir(before);
  }
}

export function createRemapRun(program: RemapProgram, native: Native): RemapRun {
  const root = mkdtempSync(join(tmpdir(), 'bremap-'));
  const mounted: string[] = [];
  let mounts = 0;
  const dir = (name: string): string => {
    mkdirSync(join(root, name), { recursive: true });
    return join(root, name);
  };
  const unmount = (): void => {
    while (mounted.length > 0) native.mounts.unmountNow(mounted.pop() as string, MNT.DETACH);
  };
  return {
    dir,
    unmount,
    async remap(into, layers, options = {}) {
      const { mode = 'metacopy', userXattrs = false, uids = defaultUids, gids = defaultGids } = options;
      chmodSync(dir(into), 0o700);
      const args = [mode, ...(userXattrs ? ['-u'] : []), String(layers.length)];
      const helper = spawnHelper(program.path, args, [...(mode === 'check' ? [] : [into]), ...layers].map(dir));
      const chunks: Buffer[] = [];
      helper.stdout.on('data', (chunk: Buffer) => void chunks.push(chunk));
      helper.stdin.on('error', () => undefined);
      helper.stdin.end(options.input ?? lines('u', uids) + lines('g', gids));
      const outcome = await helper.exit;
      const said = Buffer.concat(chunks).toString().split('\n').slice(0, -1);
      const [, bytes, inodes] = /^done (\d+) (\d+)$/.exec(said.at(-1) ?? '') ?? [];
      const done = bytes === undefined ? undefined : { bytes: Number(bytes), inodes: Number(inodes) };
      return { ...outcome, progress: done === undefined ? said : said.slice(0, -1), done };
    },
    mount(layers, { upper, metacopy = true } = {}) {
      const target = dir(`mnt${mounts++}`);
      const write = upper === undefined ? '' : `,upperdir=${dir(upper)},workdir=${dir(`${upper}-work`)}`;
      /* A stack of one without a writable layer is no overlay to the kernel. */
      const lower = [...layers, ...(layers.length === 1 ? ['nothing'] : [])];
      lower.forEach(dir);
      const data = `lowerdir=${lower.join(':')}${write},metacopy=${metacopy ? 'on' : 'off'}`;
      mountFrom(root, () => native.mounts.mount('overlay', target, 'overlay', 0, data));
      mounted.push(target);
      return target;
    },
    close() {
      unmount();
      execFileSync('rm', ['-rf', root]);
    },
  };
}
