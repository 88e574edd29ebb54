import { RuntimeError } from '../../kit/errors.js';
import type { Parts } from '../parts.js';
import type { LaunchNamespace } from '../plan/facts.js';
import type { NamespaceKind } from '../plan/plan.js';
import { adjustSpec, adjustedCgroup, adjustedResources, type SpecAdjustment } from '../spec/adjust.js';
import { sandboxNamespaces } from '../spec/namespaces.js';
import type { OciSpec } from '../spec/oci.js';
import { admitSysctls } from '../spec/sysctls.js';
import { addCdiDevices, type CdiDeps, type WithCdi } from './cdi.js';

export type AdjustDeps = Pick<Parts, 'registry' | 'lifecycle' | 'cgroups'> & CdiDeps;

export interface Adjusted extends WithCdi {
  /** Those that come from elsewhere than the pod's and the container's options say. */
  readonly namespaces: Readonly<Partial<Record<NamespaceKind, LaunchNamespace>>>;
}

/** Lets those who take part change a container that is being made. What they change is on its record too. */
export async function adjustContainer(id: string, spec: OciSpec, deps: AdjustDeps): Promise<Adjusted> {
  const { registry, lifecycle } = deps;
  if (!lifecycle.active) return { spec, devices: [], namespaces: {} };
  const { record } = registry.container(id);
  const pod = registry.sandbox(record.sandboxId).record;
  const adjustment = await lifecycle.createContainer(pod, record, spec);
  const { own } = sandboxNamespaces(pod.config.security.namespaces, pod.mappings !== undefined);
  const sysctls = [...(adjustment.sysctls ?? [])].flatMap(([name, value]) =>
    value === undefined ? [] : [[name, value]],
  );
  admitSysctls(Object.fromEntries(sysctls) as Record<string, string>, own);
  registry.updateContainer(id, {
    resources: adjustedResources(record.resources, adjustment.resources ?? {}),
    ...(adjustment.cgroupsPath === undefined
      ? {}
      : { cgroupPath: newCgroup(record.cgroupPath, adjustment.cgroupsPath, deps) }),
  });
  const adjusted = await addCdiDevices(id, adjustSpec(spec, adjustment), adjustment.cdiDevices ?? [], deps);
  return { ...adjusted, namespaces: launchNamespaces(adjustment) };
}

function newCgroup(now: string, wanted: string, { cgroups }: AdjustDeps): string {
  const path = adjustedCgroup(now, wanted);
  if (path !== now && cgroups.exists(path)) throw new RuntimeError('already-exists', `cgroup ${path} is in use`);
  return path;
}

const kinds = { pid: 'pid', network: 'net', ipc: 'ipc', uts: 'uts', cgroup: 'cgroup' } as const;

function launchNamespaces({ namespaces }: SpecAdjustment): Adjusted['namespaces'] {
  const entries = [...(namespaces ?? [])].map(([type, namespace]): [NamespaceKind, LaunchNamespace] => {
    const { path } = namespace ?? {};
    if (namespace === undefined) return [kinds[type], { from: 'host' }];
    return [kinds[type], path === undefined ? { from: 'new' } : { from: 'path', path }];
  });
  return Object.fromEntries(entries);
}
