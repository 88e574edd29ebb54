/** Pods with one idle container each, as the benchmarks run them on either runtime. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NamespaceMode } from '../../api/cri/v1/generated/api.js';
import { buildTestImage } from '../support/test-image.js';
import type { Peer } from './peers.js';
import type { Series } from './samples.js';

const image = 'bench.example/app:1';
const pauseImage = 'bench.example/pause:1';

export type Network = 'host' | 'pod';

/** Directories, CNI configuration and images of a run below `dir`: what every peer is started with. */
export function prepare(dir: string) {
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

/** The bridges of both networks. */
export function removeLinks(): void {
  for (const link of ['cnibench0', 'brthbench0']) {
    try {
      execFileSync('ip', ['link', 'del', link], { stdio: 'ignore' });
    } catch {
      // Never made, or gone with its owner.
    }
  }
}

export interface Pod {
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
export async function startPod(peer: Peer, dir: string, network: Network, series: Series): Promise<Pod> {
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

export async function endPod(peer: Peer, pod: Pod, network: Network, series: Series): Promise<void> {
  const label = network === 'host' ? 'host network' : 'pod network';
  await series.time(`${label}: stop and remove`, async () => {
    await peer.client.runtime.stopContainer({ containerId: pod.container, timeout: 0n });
    await peer.client.runtime.removeContainer({ containerId: pod.container });
    await peer.client.runtime.stopPodSandbox({ podSandboxId: pod.sandbox });
    await peer.client.runtime.removePodSandbox({ podSandboxId: pod.sandbox });
  });
}
