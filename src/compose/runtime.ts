import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { RuntimeError } from '../kit/errors.js';
import type { Observer } from '../kit/observer.js';
import type { Config } from '../config.js';
import { deviceProgramCalls } from '../native/bpf.js';
import { gatherKernelFacts, type KernelFacts } from '../native/kernel-facts.js';
import { openNative, type Native } from '../native/native.js';
import { openUserNamespace } from '../native/user-namespace.js';
import { killGroup, openCriu } from '../runtime/checkpoint/criu.js';
import { openWorkspace } from '../runtime/checkpoint/workspace.js';
import { openCdiDevices } from '../runtime/cdi/devices.js';
import type { Cgroups } from '../runtime/cgroups/types.js';
import { openCgroups } from '../runtime/cgroups/cgroups.js';
import type { Runtime } from '../runtime/facade.js';
import { openRanges } from '../runtime/idmap/ranges.js';
import { probeUserNamespaces } from '../runtime/idmap/support.js';
import type { ExplainFailure } from '../runtime/launch/plan-failed.js';
import { openSupervisor } from '../runtime/launch/supervisor.js';
import { recoverCheckpoints } from '../runtime/containers/checkpoint.js';
import { openHostLookups } from '../runtime/containers/host-path.js';
import { JoinTemplateCache } from '../runtime/containers/join-templates.js';
import { openSeccomp } from '../runtime/launch/seccomp.js';
import { listPins, unpin } from '../runtime/network/netns.js';
import type { HostParts, Parts } from '../runtime/parts.js';
import { createRuntime } from '../runtime/runtime.js';
import { hostPaths, shimCgroup, type RuntimeSettings } from '../runtime/settings.js';
import { openSelinux } from '../runtime/selinux/selinux.js';
import { recordExit, takeUpShim } from '../runtime/sandbox/shim-events.js';
import { cleaners } from '../runtime/cleaners.js';
import { recover } from '../runtime/recover.js';
import { recordVersions, type ContainerRecord, type SandboxRecord } from '../runtime/state/records.js';
import { Registry } from '../runtime/registry.js';
import { openResidue, type ResidueRecord } from '../runtime/state/residue.js';
import { openStore } from '../runtime/state/store.js';
import { failureWords, noStep } from '../runtime/plan/explain.js';
import { decodePlan } from '../runtime/plan/wire.js';
import { builtPrograms } from './programs.js';
import { openImageParts } from './images.js';
import { openNetwork } from './network.js';
import { rootlessHost } from './rootless/host.js';
import { openPlugins } from './nri.js';

/** What an opened runtime gives beside its requests. */
export interface OpenedRuntime {
  readonly runtime: Runtime;
  readonly native: Native;
  readonly kernel: KernelFacts;
  readonly parts: Parts;
}

/**
 * Opens the runtime over the configured directories: locks them, gathers what the kernel can do, makes every part,
 * and recovers what an earlier agent left. One runtime at a time holds a data directory; `in-progress` names the
 * directory when another does.
 */
export async function openRuntime(config: Config, observer: Observer): Promise<OpenedRuntime> {
  if (config.cgroup.driver !== 'cgroupfs') {
    throw new RuntimeError('unimplemented', `cgroup.driver: ${config.cgroup.driver} is not offered by this release`);
  }
  const native = openNative();
  const note: Observer['note'] = (level, message, facts) => observer.note(level, message, facts);
  for (const dir of [config.root, config.state]) prepareDirectory(dir);
  const lock = lockDirectory(config.root, native);
  const gathered = gatherKernelFacts(native);
  const rootless = rootlessHost(config, native, gathered, observer);
  // Capabilities of a user namespace count for nothing where limits are the host's.
  const kernel = rootless === undefined ? gathered : { ...gathered, canRaiseLimits: false };
  const settings = settingsOf(config, kernel);
  const paths = hostPaths(config.root, config.state, config.network.netnsDir);
  mkdirSync(paths.pods, { recursive: true, mode: 0o700 });
  mkdirSync(paths.netns, { recursive: true, mode: 0o755 });
  const host = hostParts();
  const cgroupsOptions = {
    bpf: deviceProgramCalls(native.library, process.arch),
    tolerateMissingHugetlb: config.cgroup.tolerateMissingHugetlb,
  };
  const cgroups = rootless?.openCgroups(cgroupsOptions, () => registry) ?? openCgroups(cgroupsOptions);
  const store = openStore({
    path: join(config.root, 'metadata'),
    quickPath: join(config.state, 'records'),
    onCopyFailed: (reason) => note('error', `records cannot be written to ${config.root}: ${reason}`),
    onQuarantine: (table, key, reason) =>
      observer.note('error', `record ${table}/${key} is unreadable and was set aside: ${reason}`),
  });
  const tables = {
    sandboxes: store.quickTable<SandboxRecord>('sandboxes', recordVersions.sandboxes),
    containers: store.quickTable<ContainerRecord>('containers', recordVersions.containers),
  };
  const registry = new Registry(tables);
  const { images, snapshots } = await openImageParts(config, store, native, observer, rootless !== undefined);
  const { network, teardown: teardownNetwork } =
    rootless?.openNetwork(() => registry) ?? openNetwork(config, native, observer);
  const shims = openSupervisor({
    native,
    binary: builtPrograms().shim,
    cgroupProcs: await shimProcs(config.cgroup.parent, cgroups),
    note,
    explain: explainFailure,
  });
  const residue = openResidue(
    store.quickTable<ResidueRecord>('residue', recordVersions.residue),
    cleaners({
      cgroups,
      snapshots,
      images,
      shims,
      network,
      paths,
      unpin: (path) => unpin(native.mounts, path),
      podIdentity: (id) => registry.findSandbox(id)?.record.config.metadata ?? { name: '', namespace: '', uid: '' },
    }),
    observer,
    host.now,
  );
  const plugins = openPlugins(config, (): Parts => parts, note);
  const seccomp = openSeccomp({ kernel, profilePath: config.runtime.seccompProfile });
  const parts = {
    settings,
    paths,
    host,
    kernel,
    registry,
    residue,
    cgroups,
    shims,
    network,
    images,
    snapshots,
    seccomp,
    idRanges: openRanges(rootless?.idRanges(config.userns) ?? config.userns),
    userNamespaces: probeUserNamespaces({
      native,
      kernel,
      openUserNamespace: () =>
        openUserNamespace(native, builtPrograms().shim, { hostId: rootless === undefined ? probedId : 1, size: 1 }),
      layers: [join(config.root, 'snapshots', 'empty'), join(config.root, 'snapshots', 'tmp')],
      volumes: [config.state, '/'],
      way: config.userns.snapshots,
    }),
    templates: new JoinTemplateCache({ paths, seccomp }),
    lookups: openHostLookups(),
    checkpoints: {
      criu: openCriu({ path: config.checkpoint.criu, searchPath: process.env['PATH'] ?? defaultSearchPath }),
      workspace: openWorkspace(join(config.root, 'checkpoints'), { processes: native.processes, killGroup }),
      files: native.files,
    },
    cdi: openCdiDevices(config.runtime.cdiSpecDirs, note),
    ...(kernel.selinux && config.runtime.selinux && rootless === undefined
      ? { selinux: openSelinux(native.files) }
      : {}),
    lifecycle: plugins.lifecycle,
    ...(rootless === undefined ? {} : { rootless: rootless.part }),
  };
  await recover({
    ...parts,
    tables,
    observer,
    takeUp: (id, shim) => takeUpShim(id, shim, parts),
    recordExit: (exit) => recordExit(exit, parts),
    listNetnsPins: () => listPins(paths.netns),
  });
  await recoverCheckpoints(parts);
  const retry = setInterval(() => void residue.retry(), residueRetryMs);
  retry.unref();
  const runtime = createRuntime({
    parts,
    facts: { config, kernel: kernel.release, cgroup: cgroups.layout.version },
    listNetnsPins: () => listPins(paths.netns),
    teardownNetwork,
    openToPlugins: (version) => plugins.start(version),
    close: async () => {
      await plugins.close();
      clearInterval(retry);
      const podsGoOn = [...registry.sandboxes()].some(({ record }) => record.stage === 'ready');
      for (const { shim } of registry.sandboxes()) shim?.disconnect();
      shims.close();
      await network.close();
      await images.close();
      await snapshots.close();
      await store.close();
      lock[Symbol.dispose]();
      await rootless?.leave(podsGoOn);
    },
  });
  rootless?.watch(runtime);
  return { runtime, native, kernel, parts };
}

/** The words of the step table for where a plan failed. */
const explainFailure: ExplainFailure = (bytes, { side, step, errnoName, detail }) => {
  const plan = decodePlan(bytes);
  const index = side === 'none' ? noStep : side === 'outer' ? step : plan.outer.length + step;
  return failureWords(plan, index, errnoName, detail);
};

async function shimProcs(parent: string, cgroups: Cgroups): Promise<string[]> {
  const { join: files } = await cgroups.create(shimCgroup(parent), {});
  return [...files.v1Procs, ...(files.v2Dir === undefined ? [] : [join(files.v2Dir, 'cgroup.procs')])];
}

const defaultSearchPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Any id but 0 shows whether a mount can be idmapped. */
const probedId = 65536;

/** Milliseconds between attempts to remove what resisted. */
const residueRetryMs = 30_000;

/** Made 0700; one that is there is narrowed (CVE-2024-25621). */
function prepareDirectory(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  chmodSync(path, 0o700);
}

function lockDirectory(root: string, native: Native): Disposable {
  const fd = openSync(join(root, 'lock'), 'a', 0o600);
  const lock = native.library;
  if (!native.files.tryLock(fd, true)) {
    throw new RuntimeError('in-progress', `another berth holds ${root}: use its socket, or another --root`);
  }
  return { [Symbol.dispose]: () => void lock.now('close', root, fd) };
}

function settingsOf(config: Config, kernel: KernelFacts): RuntimeSettings {
  const { runtime } = config;
  return {
    cgroupParent: config.cgroup.parent,
    pidsLimit: runtime.pidsLimit,
    imageVolumes: runtime.imageVolumes,
    deviceOwnership: runtime.deviceOwnershipFromSecurityContext,
    logLineBytes: runtime.logLineBytes,
    drainMs: runtime.drainMs,
    checkpointTimeoutMs: config.checkpoint.timeoutMs,
    execOutputBytes: runtime.execOutputBytes,
    restrictOomScoreAdj: runtime.restrictOomScoreAdj || !kernel.canRaiseLimits,
    defaultSysctls: {
      ...(runtime.unprivilegedPorts ? { 'net.ipv4.ip_unprivileged_port_start': '0' } : {}),
      ...(runtime.unprivilegedPing ? { 'net.ipv4.ping_group_range': '0 2147483647' } : {}),
      ...runtime.defaultSysctls,
    },
    defaultCapabilities: runtime.capabilities.map((name) => (name.startsWith('CAP_') ? name : `CAP_${name}`)),
    rlimits: runtime.rlimits,
    handlers: [...new Set([runtime.defaultHandler, ...config.userns.handlers])],
    usernsHandlers: config.userns.handlers,
  };
}

function hostParts(): HostParts {
  const start = process.hrtime.bigint();
  const wall = BigInt(Date.now()) * 1_000_000n;
  return {
    // Date has milliseconds; between two readings of it the monotonic clock tells moments apart.
    now: () => wall + (process.hrtime.bigint() - start),
    newId: () => randomBytes(32).toString('hex'),
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
  };
}
