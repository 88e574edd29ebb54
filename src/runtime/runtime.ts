import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Call } from '../kit/call.js';
import { RuntimeError, isErrno, isKind } from '../kit/errors.js';
import { KeyedLock } from '../kit/keyed-lock.js';
import { checkpointContainer } from './containers/checkpoint.js';
import { createContainer } from './containers/create.js';
import { execContainer } from './containers/exec.js';
import { execSync } from './containers/exec-sync.js';
import { removeContainer } from './containers/remove.js';
import { reopenContainerLog } from './containers/reopen-log.js';
import { startContainer } from './containers/start.js';
import { containerStats } from './containers/stats.js';
import { stopContainer } from './containers/stop.js';
import { attachContainer, resizeContainer } from './containers/attach.js';
import { updateContainerResources } from './containers/update.js';
import type { ContainerRequests, CreateContainerInput, Runtime, RuntimeStatus, SandboxRequests } from './facade.js';
import { EventFeed } from './events.js';
import { imageRequests } from './image-requests.js';
import { tellOfStop } from './lifecycle-host.js';
import { JoinedRequests } from './join.js';
import type { Images } from './images/images.js';
import { cleanOrphans, findOrphans } from './orphans.js';
import type { Parts } from './parts.js';
import { containerStatus, listContainers, listSandboxes, sandboxStatus } from './query.js';
import { dialPod } from './sandbox/port-forward.js';
import { removePodSandbox } from './sandbox/remove.js';
import { checkHandler, runPodSandbox, type RunPodSandboxInput } from './sandbox/run.js';
import { diskFacts, sandboxStats, sandboxUsage } from './sandbox/stats.js';
import { stopPodSandbox } from './sandbox/stop.js';
import { updatePodSandboxResources } from './sandbox/update.js';
import { UsageSampler } from './stats.js';
import { containerName, sandboxName } from './state/names.js';

export interface RuntimeOptions {
  readonly parts: Omit<Parts, 'images'> & { readonly images: Images };
  /** Facts for verbose status that do not change: configuration, kernel. */
  readonly facts: Readonly<Record<string, unknown>>;
  readonly listNetnsPins: () => Promise<readonly string[]>;
  readonly teardownNetwork: () => Promise<void>;
  readonly openToPlugins: (version: string) => Promise<void>;
  readonly close: () => Promise<void>;
}

/** The runtime as the outside sees it: one line per request, and the two rules all requests share (join, lock). */
export function createRuntime(options: RuntimeOptions): Runtime {
  const { parts } = options;
  const joined = new JoinedRequests();
  const locks = new KeyedLock();
  const feed = new EventFeed();
  const sampler = new UsageSampler(parts.cgroups);
  parts.registry.onEvent((change) => {
    feed.publish({ ...change, timestamp: parts.host.now() });
    tellOfStop(change, parts);
  });
  return {
    sandboxes: sandboxRequests(parts, joined, locks, sampler),
    containers: containerRequests(parts, joined, locks, sampler),
    maintenance: {
      orphans: () => findOrphans({ ...parts, listNetnsPins: options.listNetnsPins }),
      clean: () => cleanOrphans({ ...parts, listNetnsPins: options.listNetnsPins }),
      teardown: () => teardown(options),
    },
    images: imageRequests(parts.images, parts.settings.handlers, parts.host),
    events: (signal) => feed.subscribe(signal),
    openToPlugins: options.openToPlugins,
    status: () => status(parts),
    info: () => ({
      ...options.facts,
      network: parts.network.info(),
      residue: parts.residue.list(),
      cdiProblems: parts.cdi.problems(),
      plugins: parts.lifecycle.participants(),
      userNamespaces: userNamespaceFacts(parts.userNamespaces),
      requestsUnderWay: joined.underway().map(({ name, since, steps }) => ({
        name,
        ageMs: Math.round(performance.now() - since),
        steps: steps.map(({ name: step, progress }) => ({ name: step, ...progress })),
      })),
    }),
    runtimeConfig: () => ({ cgroupDriver: 'cgroupfs' }),
    updateRuntimeConfig: async () => undefined,
    close: async () => {
      await joined.abort(new RuntimeError('cancelled', 'the agent stops'));
      await options.close();
    },
  };
}

function sandboxRequests(
  parts: RuntimeOptions['parts'],
  joined: JoinedRequests,
  locks: KeyedLock,
  sampler: UsageSampler,
): SandboxRequests {
  const { registry } = parts;
  const locked = async (id: string, work: () => Promise<void>): Promise<void> => locks.hold(`sandbox/${id}`, work);
  const find = (idOrPrefix: string): string | undefined => registry.findSandbox(idOrPrefix)?.record.id;
  /** Containers that are being created in a pod that goes are not worth finishing. */
  const endCreation = async (id: string, how: string): Promise<void> =>
    await joined.abort(new RuntimeError('cancelled', `pod sandbox ${id} is being ${how}`), id);
  return {
    run: (input, call) => runOrJoin(input, parts, joined, call),
    stop: async (id, call) => {
      const found = find(id);
      if (found === undefined) return;
      void endCreation(found, 'stopped');
      await locked(found, () => stopPodSandbox(found, parts, call));
    },
    remove: async (id, call) => {
      const found = find(id);
      if (found === undefined) return;
      // What a half-made container has would else lie in a pod that is gone.
      await endCreation(found, 'removed');
      await locked(found, () => removePodSandbox(found, parts, call));
    },
    status: (id) => sandboxStatus(registry, id),
    list: (filter) => listSandboxes(registry, filter),
    dial: (id, port, call) => dialPod(id, port, parts, call),
    stats: (id) => sandboxStats(registry.sandbox(id).view, sampler, parts),
    listStats: async (filter) => {
      sampler.retain((id) => isKnown(registry, id));
      const ready = listSandboxes(registry, { ...filter, state: 'ready' });
      return await stillThere(ready.map((view) => sandboxStats(view, sampler, parts)));
    },
    listUsage: async () => {
      const disk = diskFacts();
      const ready = listSandboxes(registry, { state: 'ready' });
      return await stillThere(ready.map((view) => sandboxUsage(view, parts, disk)));
    },
    updateResources: async (id, change, call) =>
      await locked(registry.sandbox(id).record.id, () => updatePodSandboxResources(id, change, parts, call)),
    inspect: (id) => {
      const { record } = registry.sandbox(id);
      const directory = parts.paths.podDir(record.id);
      return { ...record, netns: parts.paths.netnsPin(record.id), directory };
    },
    plan: (id) => savedPlan(parts.paths.podDir(registry.sandbox(id).record.id)),
  };
}

/** A pod of that name that is READY already is the answer to a late retry; one that has stopped holds the name. */
function runOrJoin(input: RunPodSandboxInput, parts: Parts, joined: JoinedRequests, call: Call): Promise<string> {
  const name = sandboxName(input.config.metadata);
  checkHandler(input.runtimeHandler, parts.settings.handlers, 'runtime_handler');
  return joined.run(`run pod ${name}`, call, async (own) => {
    const owner = parts.registry.names.owner(name);
    const entry = owner === undefined ? undefined : parts.registry.findSandbox(owner);
    if (entry?.record.stage === 'ready' && isDeepStrictEqual(entry.record.config, input.config)) return entry.record.id;
    return await runPodSandbox(input, parts, own);
  });
}

/** Lists answer for what is there: objects that were removed meanwhile are left out. */
async function stillThere<T>(answers: readonly Promise<T>[]): Promise<T[]> {
  const found = await Promise.all(
    answers.map((answer) =>
      answer.then(
        (value) => [value],
        (error: unknown) => {
          if (isKind(error, 'not-found')) return [];
          throw error;
        },
      ),
    ),
  );
  return found.flat();
}

/** By their full ids. */
const isKnown = (registry: Parts['registry'], id: string): boolean =>
  registry.findSandbox(id) !== undefined || registry.findContainer(id) !== undefined;

function containerRequests(
  parts: RuntimeOptions['parts'],
  joined: JoinedRequests,
  locks: KeyedLock,
  sampler: UsageSampler,
): ContainerRequests {
  const { registry } = parts;
  const locked = async (id: string, work: () => Promise<void>): Promise<void> => locks.hold(`container/${id}`, work);
  const find = (idOrPrefix: string): string | undefined => registry.findContainer(idOrPrefix)?.record.id;
  return {
    create: (input, call) => createOrJoin(input, parts, joined, call),
    start: (id, call) => locked(registry.container(id).record.id, () => startContainer(id, parts, call)),
    // Not under the lock: a stop with a long grace must not keep a kill waiting.
    stop: (id, timeout, call) => stopContainer(id, timeout, parts, call),
    remove: async (id, call) => {
      const found = find(id);
      if (found !== undefined) await locked(found, () => removeContainer(found, parts, call));
    },
    status: (id) => containerStatus(registry, id),
    list: (filter) => listContainers(registry, filter),
    inspect: (id) => {
      const { record } = registry.container(id);
      const bundle = parts.paths.bundle(record.sandboxId, record.id);
      return { ...record, bundle };
    },
    plan: (id) => {
      const { record } = registry.container(id);
      return savedPlan(parts.paths.bundle(record.sandboxId, record.id));
    },
    updateResources: (id, resources, _annotations, call) =>
      locked(registry.container(id).record.id, () => updateContainerResources(id, resources, parts, call)),
    reopenLog: (id, call) => reopenContainerLog(id, parts, call),
    attach: (id, call) => attachContainer(id, parts, call),
    resize: (id, rows, columns) => resizeContainer(id, rows, columns, parts),
    execSync: (id, command, timeout, call) => execSync(id, command, timeout, parts, call),
    exec: (id, command, call) => execContainer(id, command, parts, call),
    checkpoint: (id, request, call) => checkpointContainer(id, request, parts, call),
    stats: (id) => containerStats(registry.container(id).view, sampler, parts),
    listStats: async (filter) => {
      sampler.retain((id) => isKnown(registry, id));
      const running = listContainers(registry, { ...filter, state: 'running' });
      return await stillThere(running.map((view) => containerStats(view, sampler, parts)));
    },
  };
}

/** The launch plan in the wire format; undefined once its directory is gone. */
function savedPlan(dir: string): Uint8Array | undefined {
  try {
    return readFileSync(join(dir, 'plan'));
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** As with pods: a container of that name that was created the same way and has not run is the answer to a retry. */
async function createOrJoin(
  input: CreateContainerInput,
  parts: Parts,
  joined: JoinedRequests,
  call: Call,
): Promise<string> {
  const sandboxId = parts.registry.sandbox(input.sandboxId).record.id;
  const name = containerName(sandboxId, input.config.metadata);
  return await joined.run(
    `create container ${name}`,
    call,
    async (own) => {
      const owner = parts.registry.names.owner(name);
      const entry = owner === undefined ? undefined : parts.registry.findContainer(owner);
      if (entry?.record.stage === 'created' && entry.record.exit === undefined) {
        if (isDeepStrictEqual(entry.record.config, input.config)) return entry.record.id;
        throw new RuntimeError(
          'already-exists',
          `the name ${name} is held by ${entry.record.id}, created with another configuration`,
        );
      }
      return await createContainer({ ...input, sandboxId }, parts, own);
    },
    sandboxId,
  );
}

async function teardown({ parts, teardownNetwork }: RuntimeOptions): Promise<void> {
  const pods = [...parts.registry.sandboxes()].length;
  if (pods > 0) throw new RuntimeError('wrong-state', `${pods} pods are there; remove them first`);
  await teardownNetwork();
  // A shim that started between the next two lines would hold its cgroup.
  parts.shims.drain();
  await parts.cgroups.kill(parts.settings.cgroupParent);
  await parts.cgroups.remove(parts.settings.cgroupParent);
}

const userNamespaceFacts = ({ refusal: _, ...facts }: Parts['userNamespaces']) => facts;

function status(parts: RuntimeOptions['parts']): RuntimeStatus {
  const network = parts.network.status();
  // To the kubelet this means that volumes can be idmapped too (api.proto, RuntimeHandlerFeatures).
  const userNamespaces = parts.userNamespaces.supported && parts.userNamespaces.idmapReason === '';
  return {
    conditions: [
      { type: 'RuntimeReady', status: true, reason: '', message: '' },
      { type: 'NetworkReady', status: network.ready, reason: network.reason, message: network.message },
    ],
    handlers: parts.settings.handlers.map((name) => ({
      name,
      recursiveReadOnlyMounts: parts.kernel.recursiveReadOnly,
      userNamespaces,
    })),
    features: {
      supplementalGroupsPolicy: true,
      userNamespacesHostNetwork: userNamespaces,
      mountOptions: true,
    },
  };
}
