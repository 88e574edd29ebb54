/**
 * How fast and how small Berth's pods are beside containerd's with runc: both through their CRI sockets, with the same
 * image and the same CNI configuration, taking turns in one run. Prints medians, p90, p99 and ratios, writes JSON.
 *
 *     npm run bench:pods -- [--rounds 40] [--json build/bench-pods.json]
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { NamespaceMode } from '../../api/cri/v1/generated/api.js';
import { buildTestImage } from '../support/test-image.js';
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
const image = 'bench.example/app:1';
const pauseImage = 'bench.example/pause:1';

type Network = 'host' | 'pod';

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

function prepare(dir: string) {
  const cniConfDir = join(dir, 'cni');
  for (const name of ['cni', 'b', 'n', 'c']) mkdirSync(join(dir, name), { mode: 0o700 });
  writeFileSync(join(cniConfDir, '10-bench.conflist'), JSON.stringify(conflist(dir)));
  const app = buildTestImage(join(dir, 'app'), { name: image, cmd: ['sh', '-c', 'echo up; exec sleep 3600'] });
  const pause = buildTestImage(join(dir, 'pause'), { name: pauseImage, entrypoint: ['sleep', '100000'], cmd: [] });
  return {
    cniConfDir,
    cniBinDir: '/usr/lib/cni',
    images: { [image]: app, [pauseImage]: pause },
    sandboxImage: pauseImage,
  };
}

const conflist = (dir: string) => ({
  cniVersion: '1.0.0',
  name: 'bench',
  plugins: [
    {
      type: 'bridge',
      bridge: 'cnibench0',
      isGateway: true,
      ipMasq: true,
      ipam: {
        type: 'host-local',
        dataDir: join(dir, 'ipam'),
        ranges: [[{ subnet: '10.231.0.0/16' }]],
        routes: [{ dst: '0.0.0.0/0' }],
      },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
});

function removeLinks(): void {
  for (const link of ['cnibench0', 'brthbench0']) {
    try {
      execFileSync('ip', ['link', 'del', link], { stdio: 'ignore' });
    } catch {
      // Never made, or gone with its owner.
    }
  }
}

interface Pod {
  readonly sandbox: string;
  readonly container: string;
}

const namespaces = (network: Network) => ({
  network: network === 'host' ? NamespaceMode.NODE : NamespaceMode.POD,
  pid: NamespaceMode.CONTAINER,
  ipc: NamespaceMode.POD,
});

let sequence = 0;

/** Runs one pod with one container; the time until its first log line is the measure. */
async function startPod(peer: Peer, dir: string, network: Network, series: Series): Promise<Pod> {
  const uid = `bench-${++sequence}`;
  const logDirectory = join(dir, 'logs', uid);
  mkdirSync(logDirectory, { recursive: true });
  const label = network === 'host' ? 'host network' : 'pod network';
  const sandboxConfig = {
    metadata: { name: uid, uid, namespace: 'bench', attempt: 0 },
    hostname: network === 'host' ? '' : uid,
    logDirectory,
    linux: {
      cgroupParent: `/berth-bench-${process.pid}/${peer.name}-${uid}`,
      securityContext: { namespaceOptions: namespaces(network) },
    },
  };
  const begin = performance.now();
  const { podSandboxId } = await series.time(`${label}: RunPodSandbox`, () =>
    peer.client.runtime.runPodSandbox({ config: sandboxConfig }),
  );
  const { containerId } = await series.time(`${label}: CreateContainer`, () =>
    peer.client.runtime.createContainer({
      podSandboxId,
      sandboxConfig,
      config: {
        metadata: { name: 'app', attempt: 0 },
        image: { image },
        logPath: 'app.log',
        linux: { resources: {}, securityContext: { namespaceOptions: namespaces(network) } },
      },
    }),
  );
  await series.time(`${label}: StartContainer`, () => peer.client.runtime.startContainer({ containerId }));
  await firstLine(join(logDirectory, 'app.log'));
  series.add(`${label}: run to first log line`, performance.now() - begin);
  return { sandbox: podSandboxId, container: containerId };
}

async function firstLine(path: string): Promise<void> {
  for (;;) {
    try {
      if (statSync(path).size > 0) return;
    } catch {
      // Not made yet.
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function endPod(peer: Peer, pod: Pod, network: Network, series: Series): Promise<void> {
  const label = network === 'host' ? 'host network' : 'pod network';
  await series.time(`${label}: stop and remove`, async () => {
    await peer.client.runtime.stopContainer({ containerId: pod.container, timeout: 0n });
    await peer.client.runtime.removeContainer({ containerId: pod.container });
    await peer.client.runtime.stopPodSandbox({ podSandboxId: pod.sandbox });
    await peer.client.runtime.removePodSandbox({ podSandboxId: pod.sandbox });
  });
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
