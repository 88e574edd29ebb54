import { createInterface } from 'node:readline';
import { RuntimeError } from '../../kit/errors.js';
import { checkHelperExit, spawnHelper, type HelperExit } from '../../kit/helper-process.js';
import { formatRanges, mappedRanges, type IdMappings } from '../idmap/mapping.js';
import type { CheckIds } from './id-check.js';
import type { MakeRemap, RemapProgress } from './remap-store.js';
import type { DiskUsage } from './snapshotter.js';

/**
 * Runs `berth-remap` (src/native/remap): directories as descriptors, the maps on its stdin, its progress on its stdout.
 * `userXattrs`: the layers are marked with user.overlay.*, for mounts inside a user namespace.
 */
export const remapBy =
  (program: string, userXattrs = false): MakeRemap =>
  async ({ way, mappings, lowerDirs }, dir, signal, report) => {
    const args = [way, ...flags(userXattrs), String(lowerDirs.length)];
    const job = { doing: 'remap snapshot', program, args, dirs: [dir, ...lowerDirs], mappings };
    return await runProgram(job, signal, report);
  };

/** The same program, which makes nothing then. */
export const checkIdsBy =
  (program: string, userXattrs = false): CheckIds =>
  async (mappings, lowerDirs, signal, report) => {
    const args = ['check', ...flags(userXattrs), String(lowerDirs.length)];
    const job = { doing: 'check ids', program, args, dirs: lowerDirs, mappings };
    await runProgram(job, signal, report);
  };

const flags = (userXattrs: boolean): string[] => (userXattrs ? ['-u'] : []);

interface Job {
  readonly doing: string;
  readonly program: string;
  readonly args: readonly string[];
  readonly dirs: readonly string[];
  readonly mappings: IdMappings;
}

async function runProgram(
  { doing, program, args, dirs, mappings }: Job,
  signal: AbortSignal,
  report: (progress: RemapProgress) => void,
): Promise<DiskUsage> {
  signal.throwIfAborted();
  const helper = spawnHelper(program, args, dirs);
  signal.addEventListener('abort', helper.kill, { once: true });
  try {
    /* One that ends early says why on its stderr. */
    helper.stdin.on('error', () => undefined).end(mapLines(mappings));
    const usage = await readReport(helper.stdout, report);
    const exit = await helper.exit;
    if (signal.aborted) throw signal.reason;
    checkHelperExit(withIds(exit, mappings), doing, 'invalid-argument');
    if (usage === undefined) throw new RuntimeError('internal', `${doing}: the helper gave no report`);
    return usage;
  } finally {
    signal.removeEventListener('abort', helper.kill);
  }
}

const mapLines = ({ uids, gids }: IdMappings): string =>
  [...uids.map((line) => ['u', line] as const), ...gids.map((line) => ['g', line] as const)]
    .map(([kind, { containerId, hostId, size }]) => `${kind} ${containerId} ${hostId} ${size}\n`)
    .join('');

/** Whoever reads that an id is not mapped wants to know which ones are. */
function withIds({ code, stderr }: HelperExit, { uids, gids }: IdMappings): HelperExit {
  if (!stderr.endsWith(' is not mapped')) return { code, stderr };
  const [users, groups] = [uids, gids].map((lines) => formatRanges(mappedRanges(lines)).slice(0, 200));
  return { code, stderr: `${stderr}; the pod has uids ${users} and gids ${groups}` };
}

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
