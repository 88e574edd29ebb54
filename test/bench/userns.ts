/**
 * What a user namespace costs a pod: pods with one and without take turns, for images of several sizes. Prints medians,
 * p90 and p99 from RunPodSandbox until the program runs, and what a further mapping adds to the disk.
 *
 *     node --import tsx test/bench/userns.ts [--rounds 30] [--files 100,10000,100000] [--json build/bench-userns.json]
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import type { NamespaceOptions } from '../../src/runtime/model.js';
import { call, containerConfig, makeTestHost, podConfig, type OpenHost, type TestHost } from '../support/runtime.js';
import type { TarEntry } from '../support/tar-builder.js';
import { buildTestImage } from '../support/test-image.js';
import { namespaces, userns } from '../support/userns.js';
import { compareTable, Series, type Summary } from './samples.js';

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '30' },
    files: { type: 'string', default: '100,10000,100000' },
    json: { type: 'string', default: 'build/bench-userns.json' },
  },
});
const rounds = Number(flags.rounds);
const warmUp = 3;

interface Result {
  readonly files: number;
  readonly plain: Record<string, Summary>;
  readonly mapped: Record<string, Summary>;
  /** What the first pod of a mapping left on the disk beside its record. */
  readonly added: { readonly bytes: number; readonly inodes: number };
}

async function main(): Promise<void> {
  const testHost = makeTestHost();
  try {
    const host = await testHost.open();
    const results: Result[] = [];
    for (const files of flags.files.split(',').map(Number)) {
      const result = await measure(testHost, host, files);
      results.push(result);
      print(result);
    }
    mkdirSync(dirname(flags.json), { recursive: true });
    writeFileSync(flags.json, JSON.stringify(results, null, 2));
  } finally {
    await testHost.destroy();
  }
}

async function measure(testHost: TestHost, host: OpenHost, files: number): Promise<Result> {
  const image = `bench.example/files:${files}`;
  const layers = [filesLayer(files)];
  const layout = buildTestImage(join(testHost.dir, `files-${files}`), { name: image, layers, compression: 'none' });
  await host.runtime.images.import(layout, image, call());
  const [plain, mapped] = [new Series(), new Series()];
  let added = { bytes: 0, inodes: 0 };
  for (let round = -warmUp; round < rounds; round++) {
    const pairs: (readonly [Series, NamespaceOptions])[] = [
      [plain, hostNetwork],
      [mapped, { ...hostNetwork, userns: freshIds() }],
    ];
    for (const [series, options] of round % 2 === 0 ? pairs : [...pairs].reverse()) {
      const usage = await onePod(testHost, host, image, options, round < 0 ? new Series() : series);
      if (options.userns !== undefined) added = usage;
    }
  }
  return { files, plain: plain.summaries(), mapped: mapped.summaries(), added };
}

/** Ids that no pod before had: every pod is the first of its mapping. */
let mappings = 0;
function freshIds(): ReturnType<typeof userns> {
  const first = 1_000_000 + 65536 * mappings++;
  return userns(first, first);
}

const { userns: _, ...hostNetwork } = namespaces({ network: 'node' });

async function onePod(
  testHost: TestHost,
  { runtime, parts }: OpenHost,
  image: string,
  options: NamespaceOptions,
  series: Series,
): Promise<{ bytes: number; inodes: number }> {
  const config = podConfig(testHost.dir);
  const security = { ...config.security, namespaces: options };
  const begin = performance.now();
  const sandboxId = await series.time('RunPodSandbox', () =>
    runtime.sandboxes.run({ config: { ...config, security }, runtimeHandler: '' }, call()),
  );
  const container = containerConfig('sleep 100', {
    image: { image, userSpecifiedImage: image, annotations: {}, runtimeHandler: '' },
    security: { namespaces: options },
  });
  const id = await series.time('CreateContainer', () =>
    runtime.containers.create({ sandboxId, config: container }, call()),
  );
  await series.time('StartContainer', () => runtime.containers.start(id, call()));
  series.add('until the program runs', performance.now() - begin);
  await series.time('ExecSync true', () => runtime.containers.execSync(id, ['true'], 10, call()));
  const { bytes, inodes } = await parts.snapshots.usage(id);
  await runtime.sandboxes.remove(sandboxId, call());
  return { bytes, inodes };
}

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

function print({ files, plain, mapped, added }: Result): void {
  console.log(`\nImage of ${files} files; each pod in a user namespace is the first of its ids.`);
  console.log(compareTable(['with user namespace', 'without'], mapped, plain));
  const key = 'until the program runs';
  const cost = (mapped[key]?.median ?? NaN) - (plain[key]?.median ?? NaN);
  console.log(`A user namespace costs ${cost.toFixed(2)} ms at the median.`);
  console.log(`The container's own layer holds ${added.bytes} bytes and ${added.inodes} inodes; layers are shared.`);
}

await main();
