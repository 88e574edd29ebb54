import { invalid } from '../../kit/errors.js';
import type { OciNamespaceType, OciSpec } from '../spec/oci.js';
import { planBuilder, type PlanBuilder } from './builder.js';
import { compileDevices } from './compile-devices.js';
import { compileMounts, idMapLine, overlayOptions, withLabel } from './compile-mounts.js';
import { compileProcess, idMapsOf, processOf } from './compile-process.js';
import type { LaunchFacts, LaunchNamespace } from './facts.js';
import { namespaceKinds } from './kinds.js';
import { MOUNT_ATTR, MS } from './kernel.js';
import type { InnerStep, LaunchPlan, NamespaceKind } from './plan.js';

export type { CgroupFacts, CgroupJoin, LaunchFacts, LaunchKernelFacts, LaunchNamespace, RootfsFacts } from './facts.js';

const kindOfType: Readonly<Record<OciNamespaceType, NamespaceKind>> = {
  pid: 'pid',
  network: 'net',
  mount: 'mnt',
  ipc: 'ipc',
  uts: 'uts',
  user: 'user',
  cgroup: 'cgroup',
  time: 'time',
};

/**
 * The plan that starts a container's first process. Throws `invalid-argument` with the spec's field for what cannot be
 * honoured: everything a spec can get wrong shows here, before anything exists.
 */
export function compilePlan(spec: OciSpec, facts: LaunchFacts): LaunchPlan {
  const process = processOf(spec.process);
  const namespaces = resolveNamespaces(spec, facts);
  const plan = planBuilder();
  const isNew = (kind: NamespaceKind): boolean => namespaces.get(kind)?.from === 'new';
  if (!isNew('mnt')) throw invalid('linux.namespaces', 'a container needs a mount namespace of its own');
  const ownCgroups = isNew('cgroup');
  const v2 = facts.cgroup.layout.version === 'v2';

  compileRoot(spec, facts, plan);
  for (const target of facts.directories ?? []) plan.inner.push({ op: 'mkdir', target, mode: 0o755 });
  // A cgroup2 mount shows what the namespace shows, so on v2 the namespace comes first. On v1 the first write to a
  // cgroup.procs may take 10 ms, which the mounts use.
  if (ownCgroups && v2) plan.inner.push({ op: 'unshare-cgroup' });
  const readonly = compileMounts(spec, facts, plan);
  compileDevices(spec, facts, plan);
  compileHiddenPaths(spec, plan);
  plan.inner.push({ op: 'pivot' });
  compileRootPropagation(spec, plan);
  plan.inner.push({ op: 'session', terminal: process.terminal === true, console: process.terminal === true });
  if (process.cwd !== '/') plan.inner.push({ op: 'mkdir', target: process.cwd, mode: 0o755 });
  for (const target of readonly.targets) plan.inner.push(makeReadonly(target));
  if (spec.root?.readonly === true) plan.inner.push({ op: 'root-readonly' });
  plan.inner.push(...compileNames(spec, namespaces), ...compileSysctls(spec));
  if (isNew('net')) plan.inner.push({ op: 'loopback' });
  plan.inner.push(
    ...compileProcess({
      process,
      kernel: facts.kernel,
      seccomp: facts.seccomp,
      late: ownCgroups && !v2 ? [{ op: 'unshare-cgroup' }] : [],
      keyring: '',
      ...(inUserNamespace(namespaces) ? { ids: idMapsOf(spec) } : {}),
    }),
  );
  compileClone(spec, facts, namespaces, plan);
  return { kind: 'container', outer: plan.outer, inner: plan.inner };
}

// -------------------------------------------------------------------------------------------------------- namespaces

type Namespaces = ReadonlyMap<NamespaceKind, LaunchNamespace>;

function resolveNamespaces(spec: OciSpec, facts: LaunchFacts): Namespaces {
  const result = new Map<NamespaceKind, LaunchNamespace>();
  spec.linux.namespaces.forEach(({ type, path }, index) => {
    const field = `linux.namespaces[${index}]`;
    const kind = kindOfType[type];
    if (kind === undefined) throw invalid(`${field}.type`, `"${type}" is no namespace`);
    if (result.has(kind)) throw invalid(`${field}.type`, `${type} is given twice`);
    if (path !== undefined && path !== '' && !path.startsWith('/'))
      throw invalid(`${field}.path`, 'is not an absolute path');
    const given: LaunchNamespace = path === undefined || path === '' ? { from: 'new' } : { from: 'path', path };
    result.set(kind, facts.namespaces[kind] ?? given);
  });
  for (const kind of namespaceKinds) {
    const fact = facts.namespaces[kind];
    if (fact !== undefined) result.set(kind, fact);
  }
  return result;
}

const inUserNamespace = (namespaces: Namespaces): boolean => (namespaces.get('user')?.from ?? 'host') !== 'host';

/** The clone comes last of the outer steps: everything the child needs is open by then. */
function compileClone(spec: OciSpec, facts: LaunchFacts, namespaces: Namespaces, plan: PlanBuilder): void {
  const create: NamespaceKind[] = [];
  for (const kind of namespaceKinds) {
    const source = namespaces.get(kind);
    if (source === undefined || source.from === 'host') continue;
    // The cgroup namespace is taken after the cgroup was entered, or its root would be the wrong one.
    if (source.from !== 'new') plan.outer.push({ op: 'enter', kind, source });
    else if (kind !== 'cgroup') create.push(kind);
  }
  const maps = namespaces.get('user')?.from === 'new';
  plan.outer.push({
    op: 'clone',
    create,
    uidMap: maps ? (spec.linux.uidMappings ?? []).map(idMapLine) : [],
    gidMap: maps ? (spec.linux.gidMappings ?? []).map(idMapLine) : [],
    cgroupDir: facts.cgroup.join.v2Dir ?? '',
    cgroupProcs: facts.cgroup.join.v1Procs,
  });
}

// -------------------------------------------------------------------------------------------------------------- root

function compileRoot(spec: OciSpec, facts: LaunchFacts, plan: PlanBuilder): void {
  const { rootfs } = facts;
  const slot = plan.slot();
  if (rootfs.kind === 'overlay') {
    plan.outer.push({
      op: 'overlay',
      slot,
      lower: rootfs.lower,
      upper: rootfs.upper,
      work: rootfs.work,
      options: withLabel(overlayOptions(rootfs), 'overlay', spec.linux.mountLabel),
      idmap: rootfs.idmap ?? 'none',
    });
  } else {
    if (!rootfs.path.startsWith('/')) throw invalid('root.path', `"${rootfs.path}" is not an absolute path`);
    plan.outer.push({
      op: 'bind-source',
      slot,
      path: rootfs.path,
      name: 'rootfs',
      recursive: true,
      attributes: { set: 0, clear: 0, propagation: MS.PRIVATE, recursive: true },
      idmap: rootfs.idmap ?? 'none',
      ...(rootfs.idmap === 'pod' ? { idmapRecursive: true } : {}),
    });
  }
  plan.inner.push(
    // What the setup mounts must not reach the host; what the host unmounts meanwhile should reach us.
    { op: 'propagation', flags: MS.REC | MS.SLAVE },
    { op: 'attach-root', slot, on: facts.rootOn, propagation: 0 },
  );
}

const rootPropagations: ReadonlyMap<string, number> = new Map([
  ['', 0],
  ['private', 0],
  ['rprivate', 0],
  ['slave', 0],
  ['rslave', 0],
  ['shared', MS.SHARED],
  ['rshared', MS.SHARED],
  ['unbindable', MS.UNBINDABLE],
  ['runbindable', MS.UNBINDABLE],
]);

/**
 * The root is a mount nobody else has, so private and slave are what it is. Mounts below have a propagation of their
 * own, which making all of them shared would spoil.
 */
function compileRootPropagation(spec: OciSpec, plan: PlanBuilder): void {
  const name = spec.linux.rootfsPropagation ?? '';
  const flags = rootPropagations.get(name);
  if (flags === undefined) throw invalid('linux.rootfsPropagation', `"${name}" is no propagation`);
  if (flags !== 0) plan.inner.push({ op: 'propagation', flags });
}

function compileHiddenPaths(spec: OciSpec, plan: PlanBuilder): void {
  const steps = (op: 'mask' | 'readonly-path', name: string, paths: readonly string[] = []): void =>
    paths.forEach((target, index) => {
      if (!target.startsWith('/')) throw invalid(`linux.${name}[${index}]`, `"${target}" is not an absolute path`);
      plan.inner.push({ op, target });
    });
  steps('mask', 'maskedPaths', spec.linux.maskedPaths);
  steps('readonly-path', 'readonlyPaths', spec.linux.readonlyPaths);
}

const makeReadonly = (target: string): InnerStep => ({
  op: 'set-attributes',
  target,
  attributes: { set: MOUNT_ATTR.RDONLY, clear: 0, propagation: 0, recursive: false },
});

// ------------------------------------------------------------------------------------------------- names and sysctls

/** In a namespace of the pod the pod's own plan has set the names. */
function compileNames(spec: OciSpec, namespaces: Namespaces): InnerStep[] {
  const source = namespaces.get('uts')?.from ?? 'host';
  const named = [spec.hostname, spec.domainname].some((name) => name !== undefined && name !== '');
  if (named && source === 'host') throw invalid('hostname', "needs a UTS namespace other than the host's");
  if (source !== 'new') return [];
  checkName(spec.hostname, 'hostname');
  checkName(spec.domainname, 'domainname');
  return [
    ...(spec.hostname === undefined || spec.hostname === '' ? [] : [{ op: 'hostname', name: spec.hostname } as const]),
    ...(spec.domainname === undefined || spec.domainname === ''
      ? []
      : [{ op: 'domainname', name: spec.domainname } as const]),
  ];
}

function checkName(name: string | undefined, field: string): void {
  if (name !== undefined && (name.length > 64 || name.includes('\0'))) throw invalid(field, 'is longer than 64 bytes');
}

function compileSysctls(spec: OciSpec): InnerStep[] {
  return Object.entries(spec.linux.sysctl ?? {}).map(([name, value]) => {
    const path = name.includes('/') ? name : name.replaceAll('.', '/');
    if (!/^[\w./-]+$/.test(path) || path.startsWith('/') || path.includes('..')) {
      throw invalid(`linux.sysctl["${name}"]`, 'is no sysctl name');
    }
    return { op: 'sysctl', name: path, value };
  });
}
