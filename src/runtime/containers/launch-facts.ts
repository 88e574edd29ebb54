import { RuntimeError } from '../../kit/errors.js';
import type { Parts } from '../parts.js';
import type { ExecFacts, LaunchFacts, LaunchKernelFacts, RootfsFacts } from '../plan/facts.js';
import type { HostDevice } from '../spec/container-spec.js';
import type { ContainerNamespaces } from '../spec/namespaces.js';
import type { OciSpec } from '../spec/oci.js';
import type { ContainerRecord } from '../state/records.js';

type FactDeps = Pick<
  Parts,
  'settings' | 'paths' | 'registry' | 'cgroups' | 'snapshots' | 'seccomp' | 'kernel' | 'rootless'
>;

/** What the plan compiler must know of this host and this container beyond the spec. */
export function launchFacts(
  record: ContainerRecord,
  namespaces: ContainerNamespaces,
  spec: OciSpec,
  devices: readonly HostDevice[],
  deps: FactDeps,
): LaunchFacts {
  const mapped = namespaces.user.from !== 'host';
  return {
    rootfs: rootfsFacts(record, mapped, deps),
    // Nobody but the host's root may walk to the pod's own directory; every host has this one.
    rootOn: mapped ? '/proc' : deps.paths.rootMountpoint(record.sandboxId),
    ...(mapped || deps.rootless !== undefined ? { devices: 'bind', deviceSources: sourcesOf(devices) } : {}),
    namespaces,
    cgroup: { path: record.cgroupPath, join: deps.cgroups.handle(record.cgroupPath).join, layout: deps.cgroups.layout },
    kernel: kernelFacts(deps),
    ...seccompFilter(spec, deps),
  };
}

/** The same for a process that joins the container. */
export function joinFacts(
  record: ContainerRecord,
  command: { readonly args: readonly string[]; readonly terminal: boolean },
  deps: Pick<Parts, 'cgroups' | 'kernel' | 'settings'>,
): ExecFacts {
  return {
    containerId: record.id,
    ...command,
    cgroup: { join: deps.cgroups.handle(record.cgroupPath).join },
    kernel: kernelFacts(deps),
  };
}

const sourcesOf = (devices: readonly HostDevice[]): ReadonlyMap<string, string> =>
  new Map(devices.map(({ path, hostPath }) => [path, hostPath ?? path]));

function rootfsFacts(record: ContainerRecord, mapped: boolean, deps: FactDeps): RootfsFacts {
  if (record.rootfs !== '') return { kind: 'directory', path: record.rootfs, idmap: mapped ? 'pod' : 'none' };
  return overlayFacts(record.id, deps);
}

export function overlayFacts(
  key: string,
  deps: Pick<Parts, 'snapshots' | 'rootless'>,
): Extract<RootfsFacts, { kind: 'overlay' }> {
  const snapshot = deps.snapshots.snapshot(key);
  if (snapshot === undefined) throw new RuntimeError('internal', `there is no snapshot ${key}`);
  return {
    kind: 'overlay',
    lower: snapshot.lowerDirs,
    upper: snapshot.upperDir,
    work: snapshot.workDir,
    idmap: snapshot.way === 'idmapped' ? 'pod' : 'none',
    metacopy: snapshot.way === 'metacopy',
    userXattr: deps.rootless !== undefined,
  };
}

const kernelFacts = ({ kernel, settings }: Pick<Parts, 'kernel' | 'settings'>): LaunchKernelFacts => ({
  lastCapability: kernel.lastCapability,
  capabilities: kernel.capabilities.permitted,
  canRaiseLimits: !settings.restrictOomScoreAdj,
});

function seccompFilter(spec: OciSpec, deps: Pick<Parts, 'seccomp'>): Pick<LaunchFacts, 'seccomp'> {
  if (spec.linux.seccomp === undefined) return {};
  const { program, flags } = deps.seccomp.program(spec.linux.seccomp);
  return { seccomp: { program, flags } };
}
