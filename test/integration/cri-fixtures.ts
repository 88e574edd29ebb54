/** A runtime that lives in memory, and a server on it, for tests of the CRI surface. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Call } from '../../src/kit/call.js';
import { notFound } from '../../src/kit/errors.js';
import type { CriServer, CriServerOptions } from '../../src/cri/server.js';
import { serveCri } from '../../src/cri/server.js';
import { sandboxConfig } from '../../src/cri/translate/sandbox.js';
import { containerConfig } from '../../src/cri/translate/container.js';
import * as api from '../../api/cri/v1/generated/api.js';
import type {
  ContainerFilter,
  ContainerStatsView,
  ContainerView,
  Runtime,
  SandboxFilter,
  SandboxView,
} from '../../src/runtime/facade.js';
import type { ContainerConfig, Image, PodSandboxConfig, StringMap } from '../../src/runtime/model.js';
import { criClient } from '../support/cri-client.js';
import type { CriClient } from '../support/cri-client.js';

/** What a request was given, for assertions. */
export interface Seen {
  readonly what: string;
  readonly input: unknown;
  readonly call?: Call;
}

/** A hook that every changing request awaits; tests replace it to fail or to wait. */
export type Interfere = (what: string, call: Call) => Promise<void> | void;

export interface FakeRuntime {
  readonly runtime: Runtime;
  readonly seen: Seen[];
  readonly sandboxes: Map<string, SandboxView>;
  readonly containers: Map<string, ContainerView>;
  readonly images: Map<string, Image>;
  interfere: Interfere;
}

export const podConfig = (name: string, labels: StringMap = {}): PodSandboxConfig =>
  sandboxConfig(
    'config',
    api.PodSandboxConfig.fromPartial({ metadata: { name, uid: `uid-${name}`, namespace: 'default' }, labels }),
  );

export const containerConfigOf = (name: string, labels: StringMap = {}): ContainerConfig =>
  containerConfig(
    'config',
    api.ContainerConfig.fromPartial({ metadata: { name }, image: { image: 'docker.io/library/busybox:1.36' }, labels }),
  );

export const sandboxView = (id: string, changes: Partial<SandboxView> = {}): SandboxView => ({
  id,
  config: podConfig(id),
  runtimeHandler: '',
  state: 'ready',
  createdAt: 1_700_000_000_000_000_001n,
  ips: ['10.0.0.2', 'fd00::2'],
  ...changes,
});

export const imageId = `sha256:${'ab'.repeat(32)}`;

export const containerView = (id: string, changes: Partial<ContainerView> = {}): ContainerView => ({
  id,
  sandboxId: 'pod-1',
  config: containerConfigOf(id),
  imageId,
  imageName: `docker.io/library/busybox@${imageId}`,
  state: 'running',
  createdAt: 1_700_000_000_000_000_002n,
  startedAt: 1_700_000_000_000_000_003n,
  logPath: `/var/log/pods/${id}/0.log`,
  mounts: [],
  resources: { cpuShares: 1024, memoryLimit: 64 << 20 },
  user: { uid: 1000, gid: 1000, groups: [10, 20] },
  stopSignal: 'SIGTERM',
  ...changes,
});

export const fakeImage = (id: string, changes: Partial<Image> = {}): Image => ({
  id,
  repoTags: ['docker.io/library/busybox:1.36'],
  repoDigests: [`docker.io/library/busybox@sha256:${'cd'.repeat(32)}`],
  size: 2_000_000_000_000,
  pinned: false,
  annotations: {},
  run: { env: [], entrypoint: [], cmd: [], user: '', workingDir: '', stopSignal: '', volumes: [], labels: {} },
  diffIds: [],
  chainId: '',
  platform: 'linux/amd64',
  ...changes,
});

const matches = (labels: StringMap, wanted: StringMap = {}): boolean =>
  Object.entries(wanted).every(([key, value]) => labels[key] === value);

const sandboxMatches = (view: SandboxView, filter: SandboxFilter): boolean =>
  view.id.startsWith(filter.id ?? '') &&
  (filter.state ?? view.state) === view.state &&
  matches(view.config.labels, filter.labels);

const containerMatches = (view: ContainerView, filter: ContainerFilter): boolean =>
  view.id.startsWith(filter.id ?? '') &&
  view.sandboxId.startsWith(filter.sandboxId ?? '') &&
  (filter.state ?? view.state) === view.state &&
  matches(view.config.labels, filter.labels);

export const statsOf = (container: ContainerView): ContainerStatsView => ({
  container,
  timestamp: 5n,
  cpu: { usageCoreNanoSeconds: 2n ** 60n, usageNanoCores: 7n },
  memory: {
    workingSetBytes: 1,
    availableBytes: 2,
    usageBytes: 3,
    rssBytes: 4,
    pageFaults: 5,
    majorPageFaults: 6,
  },
  swap: { availableBytes: 8, usageBytes: 9 },
  writableLayer: { timestamp: 6n, mountpoint: '/var/lib/berth', usedBytes: 10, inodesUsed: 11 },
});

export function fakeRuntime(): FakeRuntime {
  const fake = {
    seen: [] as Seen[],
    sandboxes: new Map<string, SandboxView>(),
    containers: new Map<string, ContainerView>(),
    images: new Map<string, Image>(),
    interfere: (() => undefined) as Interfere,
  };
  const change = async (what: string, input: unknown, call: Call): Promise<void> => {
    fake.seen.push({ what, input, call });
    await fake.interfere(what, call);
  };
  const found = <T>(map: ReadonlyMap<string, T>, what: string, id: string): T => {
    const view = map.get(id);
    if (view === undefined) throw notFound(what, id);
    return view;
  };
  const sandboxes: Runtime['sandboxes'] = {
    dial: () => Promise.reject(new Error('not used here')),
    stats: () => Promise.reject(new Error('not used here')),
    listStats: () => Promise.resolve([]),
    listUsage: () => Promise.resolve([]),
    updateResources: (id, resources, call) => change('sandboxes.updateResources', { id, resources }, call),
    async run(input, call) {
      await change('sandboxes.run', input, call);
      const id = `pod-${fake.sandboxes.size + 1}`;
      fake.sandboxes.set(id, sandboxView(id, { config: input.config, runtimeHandler: input.runtimeHandler }));
      return id;
    },
    async stop(id, call) {
      await change('sandboxes.stop', id, call);
      const view = fake.sandboxes.get(id);
      if (view !== undefined) fake.sandboxes.set(id, { ...view, state: 'not-ready' });
    },
    async remove(id, call) {
      await change('sandboxes.remove', id, call);
      fake.sandboxes.delete(id);
    },
    status: (id) => found(fake.sandboxes, 'pod sandbox', id),
    list: (filter) => [...fake.sandboxes.values()].filter((view) => sandboxMatches(view, filter)),
    inspect: (id) => ({ pid: 1, id, big: 1n, bytes: Buffer.from('text') }),
    plan: () => undefined,
  };
  const containers: Runtime['containers'] = {
    async create(input, call) {
      await change('containers.create', input, call);
      const id = `container-${fake.containers.size + 1}`;
      fake.containers.set(
        id,
        containerView(id, { sandboxId: input.sandboxId, config: input.config, state: 'created', startedAt: 0n }),
      );
      return id;
    },
    async start(id, call) {
      await change('containers.start', id, call);
      fake.containers.set(id, { ...found(fake.containers, 'container', id), state: 'running', startedAt: 9n });
    },
    async stop(id, timeoutSeconds, call) {
      await change('containers.stop', { id, timeoutSeconds }, call);
      const view = fake.containers.get(id);
      const exit = { code: 137, finishedAt: 10n, reason: 'OOMKilled', message: 'out of memory' } as const;
      if (view !== undefined) fake.containers.set(id, { ...view, state: 'exited', exit });
    },
    async remove(id, call) {
      await change('containers.remove', id, call);
      fake.containers.delete(id);
    },
    status: (id) => found(fake.containers, 'container', id),
    list: (filter) => [...fake.containers.values()].filter((view) => containerMatches(view, filter)),
    inspect: (id) => ({ pid: 2, id }),
    plan: () => undefined,
    updateResources: (id, resources, annotations, call) =>
      change('containers.updateResources', { id, resources, annotations }, call),
    attach: () => Promise.reject(new Error('not used here')),
    exec: () => Promise.reject(new Error('not used here')),
    resize: () => Promise.resolve(),
    reopenLog: (id, call) => change('containers.reopenLog', id, call),
    async execSync(id, command, timeoutSeconds, call) {
      await change('containers.execSync', { id, command, timeoutSeconds }, call);
      const size = Number(command[1] ?? 3);
      return { stdout: Buffer.alloc(size, 'o'), stderr: new Uint8Array(Buffer.from('err')), exitCode: 4 };
    },
    checkpoint: (id, request, call) => change('containers.checkpoint', { id, ...request }, call),
    stats: async (id) => statsOf(found(fake.containers, 'container', id)),
    listStats: async (filter) =>
      [...fake.containers.values()].filter((view) => containerMatches(view, filter)).map(statsOf),
  };
  const images: Runtime['images'] = {
    async pull(image, auth, call) {
      await change('images.pull', { image, auth }, call);
      const pulled = fakeImage(imageId, { repoTags: [image.image], annotations: image.annotations });
      fake.images.set(pulled.id, pulled);
      return pulled;
    },
    import: () => Promise.resolve([]),
    async remove(reference, call) {
      await change('images.remove', reference, call);
      const image = images.get(reference);
      if (image !== undefined) fake.images.delete(image.id);
    },
    get: (reference) =>
      [...fake.images.values()].find((image) => image.id === reference || image.repoTags.includes(reference)),
    list: (filter) =>
      [...fake.images.values()].filter((image) => filter === undefined || image.repoTags.includes(filter.image)),
    fsInfo: () => Promise.resolve([{ timestamp: 1n, mountpoint: '/var/lib/berth', usedBytes: 2, inodesUsed: 3 }]),
    inspect: (reference) => ({ reference }),
  };
  const runtime: Runtime = {
    sandboxes,
    containers,
    images,
    status: () => ({
      conditions: [
        { type: 'RuntimeReady', status: true, reason: '', message: '' },
        { type: 'NetworkReady', status: false, reason: 'NoNetwork', message: 'no conflist in /etc/cni/net.d' },
      ],
      handlers: [
        { name: 'berth', recursiveReadOnlyMounts: true, userNamespaces: true },
        { name: 'kata', recursiveReadOnlyMounts: false, userNamespaces: false },
      ],
      features: { supplementalGroupsPolicy: true, userNamespacesHostNetwork: true, mountOptions: true },
    }),
    events: async function* () {
      // Nothing happens here.
    },
    info: () => ({ config: { root: '/var/lib/berth' }, kernel: '6.18' }),
    runtimeConfig: () => ({ cgroupDriver: 'cgroupfs' }),
    openToPlugins: () => Promise.resolve(),
    async updateRuntimeConfig(podCidr) {
      fake.seen.push({ what: 'updateRuntimeConfig', input: podCidr });
    },
    maintenance: {
      orphans: () => Promise.resolve([]),
      clean: () => Promise.resolve([]),
      teardown: () => Promise.resolve(),
    },
    close: () => Promise.resolve(),
  };
  return Object.assign(fake, { runtime });
}

export interface Served {
  readonly fake: FakeRuntime;
  readonly server: CriServer;
  readonly client: CriClient;
  stop(): Promise<void>;
}

export const scratchDirectory = (): { readonly path: string; remove(): void } => {
  const path = mkdtempSync(join(tmpdir(), 'berth-cri-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
};

/** A server on a fake runtime and a client connected to it. */
export async function serveFake(options: Partial<CriServerOptions> = {}): Promise<Served> {
  const directory = scratchDirectory();
  const fake = fakeRuntime();
  const server = await serveCri({
    runtime: fake.runtime,
    socketPath: join(directory.path, 'berth.sock'),
    identity: { name: 'berth', version: '0.1.0' },
    ...options,
  });
  const client = criClient(server.socketPath);
  return {
    fake,
    server,
    client,
    async stop() {
      client.close();
      await server.close(1000);
      directory.remove();
    },
  };
}
