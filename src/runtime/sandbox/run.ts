import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Call } from '../../kit/call.js';
import { RuntimeError, invalid } from '../../kit/errors.js';
import { StepRecorder } from '../../kit/step-recorder.js';
import { Undo } from '../../kit/undo.js';
import type { Shim } from '../launch/shim.js';
import { lastFromZero, type IdMappings } from '../idmap/mapping.js';
import type { IdMapping, PodSandboxConfig } from '../model.js';
import type { NetworkResult } from '../network/pod-network.js';
import type { Parts } from '../parts.js';
import { compileSandboxPlan } from '../plan/compile-sandbox.js';
import type { IdMapLine } from '../plan/plan.js';
import { encodePlan } from '../plan/wire.js';
import { shmBytes } from '../spec/defaults.js';
import { sandboxNamespaces, type SandboxNamespaces } from '../spec/namespaces.js';
import { admitDefaultSysctls, admitSysctls, sysctlPath } from '../spec/sysctls.js';
import { shimCgroup } from '../settings.js';
import type { SandboxRecord } from '../state/records.js';
import { labelPaths, podLabels, podLevel } from '../containers/selinux.js';
import { makePodDirectory, writePodFiles } from './pod-directory.js';
import { shmName, takeUpShim } from './shim-events.js';
import { namespacesWanted, podMappings, refuseOverlap } from './user-namespace.js';

export interface RunPodSandboxInput {
  readonly config: PodSandboxConfig;
  readonly runtimeHandler: string;
}

export type RunPodSandboxDeps = Pick<
  Parts,
  | 'settings'
  | 'paths'
  | 'host'
  | 'registry'
  | 'residue'
  | 'cgroups'
  | 'shims'
  | 'network'
  | 'userNamespaces'
  | 'idRanges'
  | 'lifecycle'
  | 'rootless'
  | 'selinux'
>;

/**
 * RunPodSandbox: names, cgroup, shim with the pod's namespaces, network, files. Returns the sandbox's id once the pod
 * is READY. Whatever fails, everything made until then is taken back, newest first; what resists becomes residue.
 */
export async function runPodSandbox(input: RunPodSandboxInput, deps: RunPodSandboxDeps, call: Call): Promise<string> {
  const { config } = input;
  const { registry, residue, paths, host, lifecycle } = deps;
  const observer = new StepRecorder(call.observer);
  const undo = new Undo(observer);
  const id = host.newId();
  const wanted = namespacesWanted(config.security.namespaces, input.runtimeHandler, deps);
  const namespaces = sandboxNamespaces(wanted);
  const admitted = admittedSysctls(config, namespaces, deps);
  const cgroup = podCgroup(config, id, deps);

  try {
    const mappings = await undo.step(
      'reserve name and record',
      () => {
        const own = podMappings(wanted, deps);
        refuseOverlap(own, deps);
        const level = podLevel(config, Number.parseInt(id.slice(0, 8), 16), deps);
        registry.addSandbox(firstRecord(id, input, cgroup, own, level, host));
        return own;
      },
      () => registry.deleteSandbox(id),
    );
    const labels = podLabels(registry.sandbox(id).record, deps);
    const ids = mappings ?? deps.rootless?.facts.maps;
    const sysctls = admitted.map(([name, value]) => [name, mappedSysctl(name, value, ids)] as const);
    await undo.step(
      'make pod directory',
      () => makePodDirectory(id, mappings, paths),
      async () => void (await residue.clean('directory', paths.podDir(id))),
    );
    const pauseJoin = await undo.step(
      'create pod cgroup',
      async () =>
        namespaces.own.includes('pid') || cgroup.owned ? await createPodCgroups(cgroup, id, deps) : undefined,
      async () => void (await residue.clean('cgroup', cgroup.owned ? cgroup.path : pauseCgroup(cgroup.path, id))),
    );
    const shim = await undo.step(
      'start shim',
      () => deps.shims.launch(id, paths.podDir(id)),
      async () => void (await residue.clean('shim', id)),
    );
    // Its first container comes soon; what follows here leaves cgroups alone.
    deps.cgroups.expectEntry(shimCgroup(deps.settings.cgroupParent), shim.pid);
    if (namespaces.own.includes('net')) {
      undo.before('unpin network namespace', async () => void (await residue.clean('netns', paths.netnsPin(id))));
    }
    const held = await undo.step('create namespaces', async () => {
      const plan = encodePlan(
        compileSandboxPlan({
          namespaces: namespaces.own,
          netnsPin: paths.netnsPin(id),
          hostname: config.hostname,
          sysctls: sysctls.map(([name, value]) => [sysctlPath(name), value]),
          shm:
            namespaces.shm === 'pod'
              ? { name: shmName, bytes: shmBytes, ...(labels === undefined ? {} : { label: labels.mount }) }
              : undefined,
          cgroup: namespaces.own.includes('pid') ? pauseJoin : undefined,
          ...(mappings === undefined ? {} : { idMaps: planMaps(mappings) }),
        }),
      );
      writeFileSync(join(paths.podDir(id), 'plan'), plan, { mode: 0o600 });
      return await shim.hold(plan, { ...call, observer });
    });
    held.warnings.forEach((warning) => call.observer.note('warn', warning, { sandbox: id }));
    const network =
      namespaces.network === 'host'
        ? undefined
        : await attachNetwork(id, config, shim, undo, deps, { ...call, observer });
    await undo.step('write pod files', () =>
      writePodFiles(id, config, { names: namespaces.names, ips: network?.ips ?? [], mappings }, paths),
    );
    if (labels !== undefined) {
      const files = (['hosts', 'hostname', 'resolv.conf'] as const).map((name) => paths.podFile(id, name));
      await undo.step('label pod files', () => labelPaths(files, labels, { ...call, observer }, deps));
    }
    const made = { shimPid: shim.pid, pausePid: held.pausePid, ips: network?.ips ?? [] };
    using _untilRecorded = await lifecycle.keepOut();
    if (lifecycle.active) {
      const pod = { ...registry.sandbox(id).record, ...made };
      undo.before('tell plugins', () => lifecycle.tell('remove-sandbox', pod));
      await undo.step('ask plugins', () => lifecycle.tell('run-sandbox', pod));
    }
    await undo.step('record ready', () => {
      takeUpShim(id, shim, deps);
      registry.updateSandbox(id, { ...made, stage: 'ready', steps: observer.steps });
    });
    undo.commit();
    return id;
  } catch (error) {
    await undo.run();
    throw error;
  }
}

/** Refuses a handler nobody configured; RunPodSandbox and PullImage share the rule. */
export function checkHandler(name: string, handlers: readonly string[], field: string): void {
  if (name === '' || handlers.includes(name)) return;
  throw invalid(field, `no runtime handler "${name}" is configured; there are: ${handlers.join(', ')}`);
}

function firstRecord(
  id: string,
  input: RunPodSandboxInput,
  cgroup: PodCgroup,
  mappings: IdMappings | undefined,
  selinuxLevel: string,
  host: RunPodSandboxDeps['host'],
): SandboxRecord {
  return {
    id,
    config: input.config,
    runtimeHandler: input.runtimeHandler,
    createdAt: host.now(),
    stage: 'creating',
    bootId: host.bootId,
    cgroupPath: cgroup.path,
    ownsCgroup: cgroup.owned,
    shimPid: 0,
    pausePid: 0,
    ips: [],
    ...(mappings === undefined ? {} : { mappings }),
    ...(selinuxLevel === '' ? {} : { selinuxLevel }),
    steps: [],
  };
}

/** Defaults of the configuration apply where the pod has the namespace and does not say otherwise. */
function admittedSysctls(
  { sysctls }: PodSandboxConfig,
  { own }: SandboxNamespaces,
  { settings }: RunPodSandboxDeps,
): [string, string][] {
  const asked = admitSysctls(sysctls, own);
  const names = new Set(asked.map(([name]) => name));
  return [...admitDefaultSysctls(settings.defaultSysctls, own).filter(([name]) => !names.has(name)), ...asked];
}

/** A range of groups may only name groups that the pod's user namespace has. */
function mappedSysctl(name: string, value: string, mappings: IdMappings | undefined): string {
  const range = /^(\d+)\s+(\d+)$/.exec(value);
  if (mappings === undefined || name !== 'net.ipv4.ping_group_range' || range === null) return value;
  const last = lastFromZero(mappings.gids);
  return `${Math.min(Number(range[1]), last)} ${Math.min(Number(range[2]), last)}`;
}

const planMaps = ({ uids, gids }: IdMappings): { uids: IdMapLine[]; gids: IdMapLine[] } => ({
  uids: uids.map(planLine),
  gids: gids.map(planLine),
});

const planLine = ({ containerId, hostId, size }: IdMapping): IdMapLine => ({
  inside: containerId,
  outside: hostId,
  count: size,
});

interface PodCgroup {
  readonly path: string;
  readonly owned: boolean;
}

/** The kubelet makes the pods' cgroups itself; one that is missing is made, and removed with the pod. */
function podCgroup(config: PodSandboxConfig, id: string, deps: RunPodSandboxDeps): PodCgroup {
  if (config.cgroupParent === '') return { path: join(deps.settings.cgroupParent, `pod-${id}`), owned: true };
  const path = join('/', config.cgroupParent);
  return { path, owned: !deps.cgroups.exists(path) };
}

/** Cgroup of the pause process, beside the containers' ones. */
export const pauseCgroup = (podPath: string, sandboxId: string): string => join(podPath, sandboxId);

async function createPodCgroups(
  cgroup: PodCgroup,
  id: string,
  deps: RunPodSandboxDeps,
): Promise<{ v2Dir?: string; v1Procs: readonly string[] } | undefined> {
  const { config } = deps.registry.sandbox(id).record;
  if (cgroup.owned) await deps.cgroups.create(cgroup.path, config.resources ?? {});
  if (!sandboxNamespaces(config.security.namespaces).own.includes('pid')) return undefined;
  return (await deps.cgroups.create(pauseCgroup(cgroup.path, id), {})).join;
}

/** The undo stands before the ADD: plugins leave things behind even when they fail. */
async function attachNetwork(
  id: string,
  config: PodSandboxConfig,
  shim: Shim,
  undo: Undo,
  deps: RunPodSandboxDeps,
  call: Call,
): Promise<NetworkResult> {
  const status = deps.network.status();
  if (!status.ready) throw new RuntimeError('unavailable', `network not ready: ${status.message}`);
  undo.before('detach network', async () => void (await deps.residue.clean('network', id)));
  const { metadata } = config;
  return await undo.step('attach network', () =>
    deps.network.attach(
      {
        sandboxId: id,
        netnsPath: deps.paths.netnsPin(id),
        pod: { name: metadata.name, namespace: metadata.namespace, uid: metadata.uid },
        portMappings: config.portMappings,
        annotations: config.annotations,
        labels: config.labels,
        ...(config.dns === undefined ? {} : { dns: config.dns }),
        cgroupParent: config.cgroupParent,
        netlink: async (messages) => [...(await shim.netlink(messages))],
      },
      call,
    ),
  );
}
