import { invalid } from '../../kit/errors.js';
import type { OciIdMapping, OciMount, OciSpec } from '../spec/oci.js';
import type { PlanBuilder } from './builder.js';
import { compileCgroupMount } from './compile-cgroup.js';
import type { LaunchFacts, RootfsFacts, VolumeFacts } from './facts.js';
import { MOUNT_ATTR, MS } from './kernel.js';
import { parseMountOptions, type ParsedMountOptions } from './mount-options.js';
import type { FsOption, IdMapLine, OuterStep } from './plan.js';

/** Sources of this form are mounts the shim holds for the pod (`heldMountSource` of the container spec). */
const heldPrefix = 'held:';

/** File systems that an LSM label given for mounts applies to; kernel-made ones have labels of their own. */
const labelled: ReadonlySet<string> = new Set(['tmpfs', 'devpts', 'mqueue', 'overlay']);

/** What the mounts leave for after the pivot: read-only comes last, since devices and links are made before it. */
export interface DeferredReadonly {
  readonly targets: readonly string[];
}

export function compileMounts(spec: OciSpec, facts: LaunchFacts, plan: PlanBuilder): DeferredReadonly {
  const targets: string[] = [];
  const mapped = facts.namespaces.user?.from === 'pod';
  (spec.mounts ?? []).forEach((mount, index) => {
    const field = `mounts[${index}]`;
    checkDestination(mount.destination, `${field}.destination`);
    const options = parseMountOptions(mount.options ?? [], `${field}.options`);
    const type = mount.type ?? '';
    const volume = facts.volumes?.get(mount.source ?? '');
    if (volume?.kind === 'image') compileImage(mount, options, { ...volume, mapped }, spec, plan);
    else if (options.bind || type === 'bind' || type === 'rbind')
      compileBind(mount, options, field, { copyUp: volume !== undefined, mapped }, plan);
    else if (type === 'cgroup' || type === 'cgroup2') targets.push(...compileCgroupMount(mount, options, facts, plan));
    else targets.push(...compileFilesystem(mount, options, field, spec, plan));
  });
  return { targets };
}

function checkDestination(destination: string, field: string): void {
  if (!destination.startsWith('/')) throw invalid(field, `"${destination}" is not an absolute path`);
  if (destination.includes('\0')) throw invalid(field, 'holds a zero byte');
  if (/^\/+$/.test(destination)) throw invalid(field, 'the root cannot be mounted over');
}

// ------------------------------------------------------------------------------------------------------ bind mounts

function compileBind(
  mount: OciMount,
  options: ParsedMountOptions,
  field: string,
  { copyUp, mapped }: { readonly copyUp: boolean; readonly mapped: boolean },
  plan: PlanBuilder,
): void {
  const { data } = options;
  if (data.length > 0) throw invalid(`${field}.options`, `"${data[0]?.key}" is no option of a bind mount`);
  if (options.copyUp) throw invalid(`${field}.options`, '"tmpcopyup" is no option of a bind mount');
  const slot = plan.slot();
  plan.outer.push(bindSource(mount, options, slot, field));
  const own = ownAttributes(options) ? { set: options.set, clear: options.clear } : undefined;
  const attributes = { set: 0, clear: 0, ...own, propagation: 0, recursive: false };
  const locked = mapped && isOfHost(mount, options);
  if (locked) plan.outer.push({ op: 'lock-source', slot, name: mount.destination, attributes });
  plan.inner.push({ op: 'attach', slot, target: mount.destination, kind: 'auto', ...(copyUp ? { copyUp } : {}) });
  if (own !== undefined && !locked) {
    plan.inner.push({ op: 'set-attributes', target: mount.destination, attributes });
  }
}

/**
 * Whether the root of the pod's user namespace must not have more of a bind than was given: whatever comes with mounts
 * below it or with less than all rights. Single files that the pod may write itself are not worth the call.
 */
const isOfHost = (mount: OciMount, options: ParsedMountOptions): boolean =>
  !(mount.source ?? '').startsWith(heldPrefix) &&
  (isDeep(mount, options) || (options.set | options.recursiveSet) !== 0);

/** An image's mount has none below it: all that was said holds for all of it. */
function compileImage(
  mount: OciMount,
  options: ParsedMountOptions,
  volume: Extract<VolumeFacts, { kind: 'image' }> & { readonly mapped: boolean },
  spec: OciSpec,
  plan: PlanBuilder,
): void {
  const { lower, subPath, idmap, mapped } = volume;
  const slot = plan.slot();
  const set = options.set | options.recursiveSet;
  plan.outer.push({
    op: 'image-source',
    slot,
    lower,
    subPath,
    options: withLabel(overlayOptions({ ...volume, volatile: false }), 'overlay', spec.linux.mountLabel),
    idmap,
    name: mount.destination,
    attributes: {
      set: set | MOUNT_ATTR.RDONLY,
      clear: options.clear | options.recursiveClear,
      propagation: MS.PRIVATE,
      recursive: false,
    },
  });
  // Read-only it stays in any case: there is no layer to write to.
  if (mapped && (set & ~MOUNT_ATTR.RDONLY) !== 0) {
    const attributes = { set: 0, clear: 0, propagation: 0, recursive: false };
    plan.outer.push({ op: 'lock-source', slot, name: mount.destination, attributes });
  }
  plan.inner.push({ op: 'attach', slot, target: mount.destination, kind: 'auto' });
}

const isDeep = (mount: OciMount, options: ParsedMountOptions): boolean =>
  options.recursiveBind || mount.type === 'rbind';

/** With mounts below, attributes of the top alone need a call of their own. */
const ownAttributes = (options: ParsedMountOptions): boolean =>
  options.recursiveBind && (options.set | options.clear) !== 0;

/** A bind that says nothing of propagation is private (runc's default), all of it. */
function bindSource(mount: OciMount, options: ParsedMountOptions, slot: number, field: string): OuterStep {
  const source = mount.source ?? '';
  const deep = isDeep(mount, options);
  const own = ownAttributes(options);
  const attributes = {
    set: options.recursiveSet | (own ? 0 : options.set),
    clear: options.recursiveClear | (own ? 0 : options.clear),
    propagation: options.propagation === 0 ? MS.PRIVATE : options.propagation,
    recursive: deep && (options.propagation === 0 || options.recursivePropagation || options.recursiveSet !== 0),
  };
  if (source.startsWith(heldPrefix)) {
    return { op: 'held-source', slot, name: source.slice(heldPrefix.length), attributes };
  }
  if (!source.startsWith('/')) throw invalid(`${field}.source`, `"${source}" is not an absolute path`);
  const idmap = bindIdmap(mount, options, field);
  return {
    op: 'bind-source',
    slot,
    path: source,
    name: mount.destination,
    recursive: deep,
    attributes,
    idmap,
    ...(options.recursiveIdmap && idmap !== 'none' ? { idmapRecursive: true } : {}),
  };
}

function bindIdmap(
  mount: OciMount,
  options: ParsedMountOptions,
  field: string,
): 'none' | 'pod' | { uids: IdMapLine[]; gids: IdMapLine[] } {
  const uids = mount.uidMappings ?? [];
  const gids = mount.gidMappings ?? [];
  if (uids.length === 0 && gids.length === 0) return options.idmap ? 'pod' : 'none';
  if (uids.length === 0 || gids.length === 0) throw invalid(field, 'needs both uidMappings and gidMappings');
  return { uids: uids.map(idMapLine), gids: gids.map(idMapLine) };
}

export const idMapLine = (line: OciIdMapping): IdMapLine => ({
  inside: line.containerID,
  outside: line.hostID,
  count: line.size,
});

// ----------------------------------------------------------------------------------------------- other file systems

/** Returns the target when it is to become read-only later. */
function compileFilesystem(
  mount: OciMount,
  options: ParsedMountOptions,
  field: string,
  spec: OciSpec,
  plan: PlanBuilder,
): string[] {
  const fstype = mount.type ?? '';
  if (fstype === '' || fstype === 'none') throw invalid(`${field}.type`, 'is needed for what is no bind mount');
  if (!/^[\w.-]+$/.test(fstype)) throw invalid(`${field}.type`, `"${fstype}" is no file system type`);
  if (options.idmap || mount.uidMappings !== undefined) throw invalid(field, 'only bind mounts can be idmapped');
  if (options.copyUp && fstype !== 'tmpfs') throw invalid(`${field}.options`, '"tmpcopyup" needs a tmpfs');
  const set = options.set | options.recursiveSet;
  const later = fstype === 'tmpfs' && (set & MOUNT_ATTR.RDONLY) !== 0;
  plan.inner.push({
    op: 'mount',
    fstype,
    source: mount.source ?? fstype,
    target: mount.destination,
    options: withLabel(options.data, fstype, mayLabel(fstype, spec) ? spec.linux.mountLabel : undefined),
    attributes: later ? set & ~MOUNT_ATTR.RDONLY : set,
    propagation: options.propagation,
    copyUp: options.copyUp,
  });
  return later ? [mount.destination] : [];
}

/** SELinux refuses contexts for the message queues of a user namespace, and for no other of ours (selinux_set_mnt_opts). */
const mayLabel = (fstype: string, { linux }: OciSpec): boolean =>
  fstype !== 'mqueue' || !linux.namespaces.some(({ type }) => type === 'user');

/** Only an overlay with an upper layer can be volatile. */
export const overlayOptions = ({
  volatile = true,
  metacopy = false,
  userXattr = false,
}: Pick<Extract<RootfsFacts, { kind: 'overlay' }>, 'volatile' | 'metacopy' | 'userXattr'>): FsOption[] => [
  ...(volatile ? [{ key: 'volatile' }] : []),
  ...(metacopy ? [{ key: 'metacopy', value: 'on' }] : []),
  ...(userXattr ? [{ key: 'userxattr' }] : []),
];

export const withLabel = (
  options: readonly FsOption[],
  fstype: string,
  label: string | undefined,
): readonly FsOption[] =>
  label === undefined || label === '' || !labelled.has(fstype)
    ? options
    : [...options, { key: 'context', value: label }];
