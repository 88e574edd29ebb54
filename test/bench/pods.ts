/**
 * How fast and how small Berth's pods are beside containerd's with runc: both through their CRI sockets, with the same
 * image and the same CNI configuration, taking turns in one run. Prints medians, p90, p99 and ratios, writes JSON.
 *
 *     npm run bench:pods -- [--rounds 40] [--json build/bench-pods.json]
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { endPod, prepare, removeLinks, startPod, type Pod } from './idle-pods.js';
import { pss, startBerth, startContainerd, type Peer } from './peers.js';
import { compareTable, Series, type Summary } from './samples.js';

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '40' },
    pods: { type: 'string', default: '50' },
    json: { type: 'string', default: 'build/bench-pods.json' },
  },
});
const rounds = Number(flags.rounds);
const podCount = Number(flags.pods);

async function main(): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'bb-'));
  const peers: Peer[] = [];
  try {
    const options = prepare(dir);
    const berth = await startBerth({ ...options, dir: join(dir, 'b'), network: 'cni', name: 'berth' });
    peers.push(berth);
    const builtin = await startBerth({ ...options, dir: join(dir, 'n'), network: 'builtin', name: 'builtin' });
    peers.push(builtin);
    const containerd = await startContainerd({ ...options, dir: join(dir, 'c') });
    peers.push(containerd);
    await report(await measure(berth, builtin, containerd, dir), dir);
  } finally {
    for (const peer of peers) await peer.stop();
    removeLinks();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function execTrue(peer: Peer, pod: Pod, series: Series): Promise<void> {
  await series.time('ExecSync true', () =>
    peer.client.runtime.execSync({ containerId: pod.container, cmd: ['true'], timeout: 10n }),
  );
}

type Results = Readonly<Record<string, { series: Series; figures: Record<string, number> }>>;

async function measure(berth: Peer, builtin: Peer, containerd: Peer, dir: string): Promise<Results> {
  const results = Object.fromEntries(
    [berth, builtin, containerd].map((peer) => [
      peer.name,
      { series: new Series(), figures: {} as Record<string, number> },
    ]),
  );
  const of = (peer: Peer) => results[peer.name] ?? { series: new Series(), figures: {} };
  const warmUp = new Series();
  for (let round = -3; round < rounds; round++) {
    for (const peer of [berth, containerd]) {
      const { series } = round < 0 ? { series: warmUp } : of(peer);
      const pod = await startPod(peer, dir, 'host', series);
      for (let i = 0; i < 3; i++) await execTrue(peer, pod, series);
      await endPod(peer, pod, 'host', series);
    }
    for (const peer of [berth, builtin, containerd]) {
      const { series } = round < 0 ? { series: warmUp } : of(peer);
      await endPod(peer, await startPod(peer, dir, 'pod', series), 'pod', series);
    }
  }
  for (const peer of [berth, builtin, containerd]) await concurrent(peer, dir, of(peer).figures);
  for (const peer of [berth, containerd]) await many(peer, dir, of(peer));
  return results;
}

/** Eight workers at once, whole cycles per second. */
async function concurrent(peer: Peer, dir: string, figures: Record<string, number>): Promise<void> {
  for (const network of ['host', 'pod'] as const) {
    const begin = performance.now();
    let cycles = 0;
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (let i = 0; i < Math.max(2, rounds / 8); i++) {
          await endPod(peer, await startPod(peer, dir, network, new Series()), network, new Series());
          cycles++;
        }
      }),
    );
    figures[`8 at once, cycles per second, ${network} network`] = (cycles * 1000) / (performance.now() - begin);
  }
}

/** What many idle pods cost, and how lists fare among them. */
async function many(peer: Peer, dir: string, to: { series: Series; figures: Record<string, number> }): Promise<void> {
  to.figures['daemon PSS idle, MiB'] = pss(peer.pid) / 2 ** 20;
  const before = memoryUsed();
  const pods: Pod[] = [];
  for (let i = 0; i < podCount; i++) pods.push(await startPod(peer, dir, 'host', new Series()));
  to.figures['PSS of runtime processes per idle pod, KiB'] = peer.podProcessesPss() / podCount / 1024;
  to.figures['machine memory per pod, KiB'] = (memoryUsed() - before) / podCount / 1024;
  to.figures[`daemon PSS with ${podCount} pods, MiB`] = pss(peer.pid) / 2 ** 20;
  for (let i = 0; i < 30; i++) {
    await to.series.time(`ListContainerStats of ${podCount}`, () => peer.client.runtime.listContainerStats({}));
    await to.series.time(`ListContainers of ${podCount}`, () => peer.client.runtime.listContainers({}));
    const containerId = pods[i % pods.length]?.container ?? '';
    await to.series.time('ContainerStatus', () => peer.client.runtime.containerStatus({ containerId }));
  }
  for (const pod of pods) await endPod(peer, pod, 'host', new Series());
}

/** Bytes of memory in use by the machine, without caches. */
function memoryUsed(): number {
  const text = readFileSync('/proc/meminfo', 'utf8');
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+([0-9]+)`, 'm').exec(text)?.[1] ?? 0);
  return (kib('MemTotal') - kib('MemAvailable')) * 1024;
}

async function report(results: Results, dir: string): Promise<void> {
  const summaries = Object.fromEntries(
    Object.entries(results).map(([name, { series, figures }]) => [name, { measures: series.summaries(), figures }]),
  );
  const measures = (name: string): Record<string, Summary> => summaries[name]?.measures ?? {};
  process.stdout.write(`${compareTable(['berth', 'containerd'], measures('berth'), measures('containerd'))}\n\n`);
  process.stdout.write(
    `${compareTable(['berth built-in network', 'containerd CNI'], measures('builtin'), pick(measures('containerd'), measures('builtin')))}\n\n`,
  );
  for (const [name, { figures }] of Object.entries(summaries)) {
    for (const [figure, value] of Object.entries(figures))
      process.stdout.write(`${name}: ${figure}: ${value.toFixed(1)}\n`);
  }
  mkdirSync(dirname(flags.json), { recursive: true });
  const machine = {
    cpus: cpus().length,
    kernel: release(),
    node: process.version,
    rounds,
    podCount,
    dir: dirname(dir),
  };
  writeFileSync(flags.json, JSON.stringify({ machine, ...summaries }, undefined, 2));
}

const pick = (from: Record<string, Summary>, like: Record<string, Summary>): Record<string, Summary> =>
  Object.fromEntries(Object.entries(from).filter(([name]) => name in like));

await main();
