/**
 * What a user namespace costs a pod. For images of several sizes, in one run: a pod without one, the first and the
 * second pod of a mapping in each way Berth can show an image's files under it, and containerd's own way (`ctr run
 * --uidmap`) beside its plain one. Prints medians of the time until the program runs, and what a mapping adds to the
 * disk.
 *
 *     node --import tsx test/bench/userns.ts [--rounds 20] [--files 100,10000,100000] [--no-peer] [--json FILE]
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { sleep } from '../../src/kit/deadline.js';
import type { NamespaceOptions } from '../../src/runtime/model.js';
import type { DiskUsage } from '../../src/runtime/snapshots/snapshotter.js';
import { call, containerConfig, makeTestHost, podConfig, type OpenHost, type TestHost } from '../support/runtime.js';
import type { TarEntry } from '../support/tar-builder.js';
import { buildTestImage } from '../support/test-image.js';
import { namespaces, userns } from '../support/userns.js';
import { importIntoContainerd, startContainerd } from './peers.js';
import { Series, type Summary } from './samples.js';

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    files: { type: 'string', default: '100,10000,100000' },
    peer: { type: 'boolean', default: true },
    json: { type: 'string', default: 'build/bench-userns.json' },
  },
  allowNegative: true,
});
const warmUp = 1;

const ways = ['idmapped', 'metacopy', 'copy'] as const;
const without = 'no mapping';
const first = 'first of its mapping';
const second = 'second of its mapping';

/** Someone who can start a container of an image under a mapping, or none. */
interface Contestant {
  readonly name: string;
  /** Makes the image known. */
  load(image: string, layout: string): Promise<void>;
  /** Runs a container once and takes it away; adds the milliseconds until its program ran (or was over) to `series`. */
  run(image: string, firstHostId: number | undefined, record: (milliseconds: number) => void): Promise<void>;
  /** What it keeps on disk, as far as it could be for a mapping. */
  used(firstHostId: number): Promise<DiskUsage>;
  /** Whether a first pod of a mapping takes time by the image's size; then fewer rounds do. */
  readonly walks: boolean;
  close(): Promise<void>;
}

interface Result {
  readonly files: number;
  readonly name: string;
  readonly times: Record<string, Summary>;
  /** What one mapping leaves on the disk once its container is gone. */
  readonly added: DiskUsage;
}

async function main(): Promise<void> {
  const layouts = mkdtempSync(join(tmpdir(), 'bu-'));
  // runc walks to a root file system by its path as the mapped root.
  chmodSync(layouts, 0o711);
  const contestants: Contestant[] = [];
  try {
    for (const way of ways) contestants.push(await berth(way));
    if (flags.peer) contestants.push(await containerd(layouts));
    const results: Result[] = [];
    for (const files of flags.files.split(',').map(Number)) {
      const image = `bench.example/files:${files}`;
      const layout = buildTestImage(join(layouts, `files-${files}`), {
        name: image,
        layers: [filesLayer(files)],
        compression: 'none',
      });
      const ofSize: Result[] = [];
      for (const contestant of contestants) {
        await contestant.load(image, layout);
        ofSize.push(await measure(contestant, image, files));
      }
      print(files, ofSize);
      results.push(...ofSize);
    }
    mkdirSync(dirname(flags.json), { recursive: true });
    writeFileSync(flags.json, JSON.stringify(results, null, 2));
  } finally {
    for (const contestant of contestants) await contestant.close();
    rmSync(layouts, { recursive: true, force: true });
  }
}

/** Every round has host ids of its own, which no round before had; pods with and without them take turns to be first. */
async function measure(contestant: Contestant, image: string, files: number): Promise<Result> {
  const series = new Series();
  const rounds = contestant.walks && files > 1000 ? 3 : Number(flags.rounds);
  for (let round = -warmUp; round < rounds; round++) {
    const hostId = freshHostId();
    const run = (name: string, firstHostId?: number) => () =>
      contestant.run(image, firstHostId, (milliseconds) => {
        if (round >= 0) series.add(name, milliseconds);
      });
    const pair = [run(without), run(first, hostId)];
    for (const pod of round % 2 === 0 ? pair : pair.reverse()) await pod();
    await run(second, hostId)();
  }
  return { files, name: contestant.name, times: series.summaries(), added: await addedBy(contestant, image) };
}

/** Of a round of its own: walking the disk would make the pod after it slower. */
async function addedBy(contestant: Contestant, image: string): Promise<DiskUsage> {
  const hostId = freshHostId();
  const before = await contestant.used(hostId);
  await contestant.run(image, hostId, () => undefined);
  const after = await contestant.used(hostId);
  return { bytes: after.bytes - before.bytes, inodes: after.inodes - before.inodes };
}

let mappings = 0;
const freshHostId = (): number => 1_000_000 + 65_536 * mappings++;

// ------------------------------------------------------------------------------------------------------------- Berth

async function berth(way: (typeof ways)[number]): Promise<Contestant> {
  const testHost = makeTestHost({ 'userns-snapshots': way, 'userns-unused-remaps': '1000' });
  const host = await testHost.open();
  return {
    name: `berth, ${way}`,
    used: () => settledUsage(join(testHost.config.root, 'snapshots')),
    walks: way !== 'idmapped',
    load: async (image, layout) => void (await host.runtime.images.import(layout, image, call())),
    run: (image, firstHostId, record) => onePod(testHost, host, image, firstHostId, record),
    close: () => testHost.destroy(),
  };
}

const { userns: _, ...hostNetwork } = namespaces({ network: 'node' });

async function onePod(
  testHost: TestHost,
  { runtime }: OpenHost,
  image: string,
  firstHostId: number | undefined,
  record: (milliseconds: number) => void,
): Promise<void> {
  const options: NamespaceOptions =
    firstHostId === undefined ? hostNetwork : { ...hostNetwork, userns: userns(firstHostId, firstHostId) };
  const config = podConfig(testHost.dir);
  const security = { ...config.security, namespaces: options };
  const container = containerConfig('sleep 100', {
    image: { image, userSpecifiedImage: image, annotations: {}, runtimeHandler: '' },
    security: { namespaces: options },
  });
  const begin = performance.now();
  const sandboxId = await runtime.sandboxes.run({ config: { ...config, security }, runtimeHandler: '' }, call());
  const id = await runtime.containers.create({ sandboxId, config: container }, call());
  await runtime.containers.start(id, call());
  record(performance.now() - begin);
  await runtime.sandboxes.remove(sandboxId, call());
}

/** What is being deleted lies in `tmp`, and counts no more once it is gone. */
async function settledUsage(dir: string): Promise<DiskUsage> {
  while (readdirSync(join(dir, 'tmp')).length > 0) await sleep(20);
  const count = (...options: string[]): number =>
    Number(execFileSync('du', ['-s', ...options, dir], { encoding: 'utf8' }).split('\t')[0]);
  return { bytes: count('--block-size=1'), inodes: count('--inodes') };
}

// -------------------------------------------------------------------------------------------------------- containerd

/** Its command line runs one container to its end: the process is part of what a user waits for, in every row alike. */
async function containerd(dir: string): Promise<Contestant> {
  const own = join(dir, 'containerd');
  mkdirSync(own);
  const peer = await startContainerd({
    dir: own,
    cniConfDir: own,
    cniBinDir: own,
    images: {},
    sandboxImage: 'none.example/none:1',
  });
  const socket = join(own, 'containerd.sock');
  let runs = 0;
  return {
    name: 'containerd, ctr run',
    used: (firstHostId) => Promise.resolve(remapUsage(socket, firstHostId)),
    walks: true,
    load: async (image, layout) => importIntoContainerd(socket, image, layout, own),
    async run(image, firstHostId, record) {
      const map = `0:${firstHostId}:65536`;
      const mapping = firstHostId === undefined ? [] : ['--uidmap', map, '--gidmap', map];
      const begin = performance.now();
      const command = ['run', '--rm', ...mapping, image, `bench-${++runs}`, '/bin/true'];
      execFileSync('ctr', ['-a', socket, '-n', 'k8s.io', ...command], { stdio: 'pipe' });
      record(performance.now() - begin);
    },
    close: () => peer.stop(),
  };
}

/** Remaps are snapshots named for the ids; its garbage collector takes those of earlier mappings at any moment. */
function remapUsage(socket: string, firstHostId: number): DiskUsage {
  const snapshots = (...command: string[]): string[][] => {
    const args = ['-a', socket, '-n', 'k8s.io', 'snapshots', ...command];
    const { stdout } = spawnSync('ctr', args, { encoding: 'utf8' });
    return stdout.split('\n').map((line) => line.trim().split(/\s+/));
  };
  const isRemap = ([key = '']: string[]): boolean => key.endsWith(`-${firstHostId}-${firstHostId}`);
  const [key] = snapshots('ls').find(isRemap) ?? [];
  const [, bytes = 0, inodes = 0] = key === undefined ? [] : (snapshots('usage', '-b', key).find(isRemap) ?? []);
  return { bytes: Number(bytes), inodes: Number(inodes) };
}

// ------------------------------------------------------------------------------------------------------------- image

function filesLayer(count: number): TarEntry[] {
  const directories = Array.from({ length: Math.ceil(count / 100) }, (_each, i): TarEntry => ({ path: `files/${i}/` }));
  const files = Array.from({ length: count }, (_each, i): TarEntry => ({
    path: `files/${Math.floor(i / 100)}/${i}`,
    content: `${i}`,
    uid: i % 1000,
    gid: i % 1000,
  }));
  return [{ path: 'files/' }, ...directories, ...files];
}

// ------------------------------------------------------------------------------------------------------------ output

function print(files: number, results: readonly Result[]): void {
  console.log(`\nImage of ${files} files; milliseconds until the program runs, medians (p90).`);
  const columns = [without, first, second, 'first over none', 'bytes added', 'inodes added'];
  console.log([''.padEnd(22), ...columns.map((column) => column.padStart(23))].join(''));
  for (const { name, times, added } of results) {
    const figure = (key: string): string =>
      `${(times[key]?.median ?? NaN).toFixed(1)} (${(times[key]?.p90 ?? NaN).toFixed(1)})`;
    const cost = (times[first]?.median ?? NaN) - (times[without]?.median ?? NaN);
    const cells = [
      figure(without),
      figure(first),
      figure(second),
      `${cost > 0 ? '+' : ''}${cost.toFixed(1)}`,
      `${added.bytes}`,
      `${added.inodes}`,
    ];
    console.log([name.padEnd(22), ...cells.map((cell) => cell.padStart(23))].join(''));
  }
}

await main();
