import { lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnHelper } from '../../src/kit/helper-process.js';
import { unpackHelper } from './image-store.js';

/** Runs berth-unpack by itself on archives given as bytes. */
export interface UnpackRun {
  /** Holds `outside`, which no archive may touch, and layers by name. */
  readonly root: string;
  readonly outside: string;
  layer(name: string): string;
  extract(name: string, archive: Buffer): Promise<UnpackOutcome>;
  settle(name: string, report: Buffer, lower: readonly string[]): Promise<UnpackOutcome>;
  /** Extracts and settles; throws with the helper's words when either fails. */
  apply(name: string, archive: Buffer, lower?: readonly string[]): Promise<string>;
  close(): void;
}

export interface UnpackOutcome {
  readonly code: number | null;
  readonly stderr: string;
  readonly report: Buffer;
}

export function createUnpackRun(): UnpackRun {
  const root = mkdtempSync(join(tmpdir(), 'berth-unpack-'));
  const outside = join(root, 'outside');
  mkdirSync(outside);
  const layer = (name: string): string => join(root, name);
  const run = async (args: string[], dirs: string[], input: Buffer): Promise<UnpackOutcome> => {
    const helper = spawnHelper(unpackHelper, args, dirs);
    const chunks: Buffer[] = [];
    helper.stdout.on('data', (chunk: Buffer) => void chunks.push(chunk));
    helper.stdin.on('error', () => undefined);
    helper.stdin.end(input);
    return { ...(await helper.exit), report: Buffer.concat(chunks) };
  };
  const extract = async (name: string, archive: Buffer): Promise<UnpackOutcome> => {
    mkdirSync(layer(name));
    return await run(['extract'], [layer(name)], archive);
  };
  const settle = async (name: string, report: Buffer, lower: readonly string[]): Promise<UnpackOutcome> =>
    await run(['settle', String(lower.length)], [layer(name), ...lower.map(layer)], report);
  return {
    root,
    outside,
    layer,
    extract,
    settle,
    async apply(name, archive, lower = []) {
      const extracted = await extract(name, archive);
      if (extracted.code !== 0) throw new Error(`extract: ${extracted.code} ${extracted.stderr}`);
      const settled = await settle(name, extracted.report, lower);
      if (settled.code !== 0) throw new Error(`settle: ${settled.code} ${settled.stderr}`);
      return layer(name);
    },
    close: () => rmSync(root, { recursive: true, force: true }),
  };
}

/** Everything below a directory, one line an entry: path, type, mode. */
export function listTree(dir: string, prefix = ''): string[] {
  return readdirSync(join(dir, prefix))
    .sort()
    .flatMap((name) => {
      const path = prefix === '' ? name : `${prefix}/${name}`;
      const st = lstatSync(join(dir, path));
      const type = st.isDirectory()
        ? 'd'
        : st.isSymbolicLink()
          ? 'l'
          : st.isFile()
            ? '-'
            : st.isFIFO()
              ? 'p'
              : st.isBlockDevice()
                ? 'b'
                : 'c';
      return [`${type} ${path}`, ...(st.isDirectory() ? listTree(dir, path) : [])];
    });
}
