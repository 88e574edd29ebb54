import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../../kit/errors.js';
import type { ShimExit } from './shim.js';

/** The exits a shim wrote down before it died itself, from the pod's directory. */
export async function readExitRecords(dir: string): Promise<readonly ShimExit[]> {
  const exits = join(dir, 'exits');
  let names: string[];
  try {
    names = await readdir(exits);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
  const records = await Promise.all(
    names
      .filter((name) => !name.startsWith('.'))
      .map(async (name) => parseExitRecord(name, await readFile(join(exits, name), 'utf8'))),
  );
  return records.filter((record) => record !== undefined);
}

/** `1 CODE OOM FINISHED`, the leading number being the version; undefined for a text this release cannot read. */
export function parseExitRecord(containerId: string, text: string): ShimExit | undefined {
  const match = /^1 (\d+) ([01]) (\d+)\n$/.exec(text);
  if (match === null) return undefined;
  return { containerId, code: Number(match[1]), oomKilled: match[2] === '1', finishedAt: BigInt(match[3] ?? '0') };
}
