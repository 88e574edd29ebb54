/**
 * Many pods with one idle container each: how long lists, status, statistics and execs take among them, what the daemon
 * and its pods' processes need, and how soon a killed daemon serves again. Beside containerd with as many pods in the
 * same run. Prints medians, p99, ratios and CPU time, writes JSON.
 *
 *     npm run bench:scale -- [--pods 100] [--rounds 30] [--network host|pod] [--no-peer] [--json build/bench-scale.json]
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { endPod, prepare, removeLinks, startPod, type Network, type Pod } from './idle-pods.js';
import { cpuTime, pss, startBerth, startContainerd, type Peer } from './peers.js';
import { compareTable, Series, type Summary } from './samples.js';

const { values: flags } = parseArgs({
  options: {
    pods: { type: 'string', default: '100' },
    rounds: { type: 'string', default: '30' },
    restarts: { type: 'string', default: '3' },
    network: { type: 'string', default: 'host' },
    'no-peer': { type: 'boolean', default: false },
    json: { type: 'string', default: 'build/bench-scale.json' },
  },
});
const podCount = Number(flags.pods);
const rounds = Number(flags.rounds);
const network: Network = flags.network === 'pod' ? 'pod' : 'host';

interface Result {
  readonly times: Record<string, Summary>;
  readonly figures: Record<string, number>;
}

async function main(): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'bs-'));
  try {
    const options = prepare(dir);
    const makers: (() => Promise<Peer>)[] = [
      () => startBerth({ ...options, dir: join(dir, 'b'), network: 'builtin', name: 'berth' }),
      ...(flags['no-peer'] ? [] : [() => startContainerd({ ...options, dir: join(dir, 'c') })]),
    ];
    const results: Result[] = [];
    for (const make of makers) results.push(await withPeer(make, dir));
    report(results);
  } finally {
    removeLinks();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function withPeer(make: () => Promise<Peer>, dir: string): Promise<Result> {
  const peer = await make();
  const pods: Pod[] = [];
  try {
    const idle = pss(peer.pid);
    for (let i = 0; i < podCount; i++) pods.push(await startPod(peer, dir, network, new Series()));
    const result = await measure(peer, pods);
    return { ...result, figures: { 'daemon PSS without pods, MiB': idle / 2 ** 20, ...result.figures } };
  } finally {
    for (const pod of pods) await endPod(peer, pod, network, new Series());
    await peer.stop();
  }
}

type Call = readonly [name: string, ask: (round: number) => Promise<unknown>];

/** Lists last as long as there are pods; the rest is of one object. */
function calls({ client: { runtime } }: Peer, pods: readonly Pod[]): readonly Call[] {
  const pod = (round: number): Pod => pods[round % pods.length] ?? { sandbox: '', container: '' };
  return [
    ['ListPodSandbox', () => runtime.listPodSandbox()],
    ['ListContainers', () => runtime.listContainers()],
    ['PodSandboxStatus', (round) => runtime.podSandboxStatus({ podSandboxId: pod(round).sandbox })],
    ['ContainerStatus', (round) => runtime.containerStatus({ containerId: pod(round).container })],
    ['ListContainerStats', () => runtime.listContainerStats()],
    ['ListPodSandboxStats', () => runtime.listPodSandboxStats()],
    ['ListPodSandboxMetrics', () => runtime.listPodSandboxMetrics()],
    ['ExecSync true', (round) => runtime.execSync({ containerId: pod(round).container, cmd: ['true'], timeout: 10n })],
  ];
}

async function measure(peer: Peer, pods: readonly Pod[]): Promise<Result> {
  const figures: Record<string, number> = {};
  figures['daemon PSS with pods, MiB'] = pss(peer.pid) / 2 ** 20;
  figures['PSS of runtime processes per pod, KiB'] = peer.podProcessesPss() / pods.length / 1024;
  const series = new Series();
  for (const [name, ask] of calls(peer, pods)) await measureCall(peer, name, ask, series, figures);
  figures['daemon PSS after the calls, MiB'] = pss(peer.pid) / 2 ** 20;
  figures['PSS of runtime processes per pod after the calls, KiB'] = peer.podProcessesPss() / pods.length / 1024;
  for (let i = 0; i < Number(flags.restarts); i++) series.add('restart until it lists its pods', await peer.restart());
  return { times: series.summaries(), figures };
}

/** Where the runtime does not know a call, it has no figure. */
async function measureCall(
  peer: Peer,
  name: string,
  ask: Call[1],
  series: Series,
  figures: Record<string, number>,
): Promise<void> {
  try {
    for (let warmUp = 0; warmUp < 3; warmUp++) await ask(warmUp);
  } catch (error) {
    if (String(error).includes('UNIMPLEMENTED')) return;
    throw error;
  }
  const before = cpuTime(peer.pid);
  for (let round = 0; round < rounds; round++) await series.time(name, () => ask(round));
  figures[`${name}: CPU of the daemon, ms`] = (cpuTime(peer.pid) - before) / rounds;
}

function report([berth, peer]: readonly Result[]): void {
  if (berth === undefined) return;
  const title = `${podCount} pods, ${network} network`;
  process.stdout.write(`${title}\n${compareTable(['berth', 'containerd'], berth.times, peer?.times ?? {})}\n\n`);
  for (const [name, value] of Object.entries(berth.figures)) {
    const other = peer?.figures[name];
    const beside = other === undefined ? '' : `${other.toFixed(2).padStart(12)} ${(other / value).toFixed(1)}x`;
    process.stdout.write(`${name.padEnd(56)} ${value.toFixed(2).padStart(10)}${beside}\n`);
  }
  const machine = { cpus: cpus().length, kernel: release(), node: process.version, load: loadavg()[0] };
  mkdirSync(dirname(flags.json), { recursive: true });
  writeFileSync(
    flags.json,
    JSON.stringify({ machine, podCount, network, rounds, berth, containerd: peer }, undefined, 2),
  );
}

await main();
