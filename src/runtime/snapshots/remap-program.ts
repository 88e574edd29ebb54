import { createInterface } from 'node:readline';
import { RuntimeError } from '../../kit/errors.js';
import { checkHelperExit, spawnHelper } from '../../kit/helper-process.js';
import type { IdMappings } from '../idmap/mapping.js';
import type { MakeRemap, RemapProgress } from './remap-store.js';
import type { DiskUsage } from './snapshotter.js';

const doing = 'remap snapshot';

/**
 * Runs `berth-remap` (src/native/remap): directories as descriptors, the maps on its stdin, its progress on its stdout.
 * `userXattrs`: the layers are marked with user.overlay.*, for mounts inside a user namespace.
 */
export const remapBy =
  (program: string, userXattrs = false): MakeRemap =>
  async ({ way, mappings, lowerDirs }, dir, signal, report) => {
    signal.throwIfAborted();
    const args = [way, ...(userXattrs ? ['-u'] : []), String(lowerDirs.length)];
    const helper = spawnHelper(program, args, [dir, ...lowerDirs]);
    signal.addEventListener('abort', helper.kill, { once: true });
    try {
      /* One that ends early says why on its stderr. */
      helper.stdin.on('error', () => undefined).end(mapLines(mappings));
      const usage = await readReport(helper.stdout, report);
      const exit = await helper.exit;
      if (signal.aborted) throw signal.reason;
      checkHelperExit(exit, doing, 'invalid-argument');
      if (usage === undefined) throw new RuntimeError('internal', `${doing}: the helper gave no report`);
      return usage;
    } finally {
      signal.removeEventListener('abort', helper.kill);
    }
  };

const mapLines = ({ uids, gids }: IdMappings): string =>
  [...uids.map((line) => ['u', line] as const), ...gids.map((line) => ['g', line] as const)]
    .map(([kind, { containerId, hostId, size }]) => `${kind} ${containerId} ${hostId} ${size}\n`)
    .join('');

/** Lines `p ENTRIES BYTES`, and at the end `done BYTES INODES`. */
async function readReport(
  stdout: NodeJS.ReadableStream,
  report: (progress: RemapProgress) => void,
): Promise<DiskUsage | undefined> {
  let usage: DiskUsage | undefined;
  for await (const line of createInterface({ input: stdout })) {
    const [word, first = '', second = ''] = line.split(' ');
    if (word === 'p') report({ entries: Number(first), bytes: Number(second) });
    else if (word === 'done') usage = { bytes: Number(first), inodes: Number(second) };
  }
  return usage;
}
