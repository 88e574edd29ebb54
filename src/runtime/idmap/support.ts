import { readFileSync } from 'node:fs';
import { messageOf, RuntimeError } from '../../kit/errors.js';
import { mountAt, parseMountTable } from '../../kit/mount-table.js';
import type { Descriptor } from '../../native/descriptor.js';
import type { KernelFacts } from '../../native/kernel-facts.js';
import type { Native } from '../../native/native.js';
import type { RemapWay } from '../snapshots/snapshotter.js';
import { metacopyRefusal } from './metacopy.js';

/** What user namespaces can do on this host: found out at start by trying, asked for by the requests. */
export interface UserNamespaceSupport {
  /** Pods can have user namespaces. */
  readonly supported: boolean;
  /** Why not; '' when they can. */
  readonly reason: string;
  /** How the files of images get a pod's ids: the best way that works here, or the configured one. */
  readonly way: RemapWay;
  /** Why no better way is taken; '' for the best. */
  readonly wayReason: string;
  /** Why no mount can be idmapped, wherever it lies; '' when those of some file systems can. */
  readonly idmapReason: string;
  /**
   * Tries to idmap the mount at a host path. Returns what is in the way (`file system nfs4 …`), or undefined. The mount
   * itself stays as it is: a clone of it is tried.
   */
  refusal(path: string, recursive: boolean): string | undefined;
}

export interface SupportOptions {
  readonly native: Pick<Native, 'mounts' | 'files'>;
  readonly kernel: KernelFacts;
  /** Makes a user namespace; throws where there can be none. */
  readonly openUserNamespace: () => Descriptor;
  /** Two directories, neither in the other, on the file system of the images' layers. What is tried is made in the second. */
  readonly layers: readonly [string, string];
  /** Paths on further file systems that volumes may lie on. */
  readonly volumes: readonly string[];
  readonly way: 'auto' | RemapWay;
}

/** linux/mount.h */
const MOUNT_ATTR_IDMAP = 0x100000;

export function probeUserNamespaces(options: SupportOptions): UserNamespaceSupport {
  const { native, kernel, layers } = options;
  let userns: Descriptor;
  try {
    userns = options.openUserNamespace();
  } catch (error) {
    const reason = `user namespaces cannot be made: ${messageOf(error)}`;
    return { supported: false, reason, way: 'copy', wayReason: reason, idmapReason: reason, refusal: () => reason };
  }
  const attempt = (path: string, recursive: boolean): void => {
    using tree = native.mounts.openTree(path, { clone: true, recursive });
    native.mounts.setAttributes(tree.fd, { set: MOUNT_ATTR_IDMAP, clear: 0, userns: userns.fd }, recursive);
  };
  const refusal = (path: string, recursive: boolean): string | undefined => {
    try {
      attempt(path, recursive);
      return undefined;
    } catch (error) {
      return refusalWords(path, messageOf(error), kernel.release);
    }
  };
  const [layer, workshop] = layers;
  const refusals = [layer, ...options.volumes].map((path) => refusal(path, false));
  const idmapReason = refusals.every((each) => each !== undefined) ? (refusals[0] ?? '') : '';
  const ways = chooseWay(options.way, {
    idmapped: () => refusals[0] ?? overlayRefusal(options, userns),
    metacopy: () => metacopyRefusal(native, workshop),
    copy: () => undefined,
  });
  return { supported: true, reason: '', ...ways, idmapReason, refusal };
}

/**
 * The first way that nothing is in the way of. One that is configured is taken or refused at start, so that nobody
 * believes in what is not there.
 */
export function chooseWay(
  wanted: 'auto' | RemapWay,
  refusals: Readonly<Record<RemapWay, () => string | undefined>>,
): Pick<UserNamespaceSupport, 'way' | 'wayReason'> {
  if (wanted !== 'auto') {
    const reason = refusals[wanted]();
    if (reason === undefined) return { way: wanted, wayReason: 'userns.snapshots says so' };
    throw new RuntimeError('unimplemented', `userns.snapshots: ${wanted} is not possible here: ${reason}`);
  }
  const reasons: string[] = [];
  for (const way of ['idmapped', 'metacopy'] as const) {
    const reason = refusals[way]();
    if (reason === undefined) return { way, wayReason: reasons.join('; ') };
    reasons.push(reason);
  }
  return { way: 'copy', wayReason: reasons.join('; ') };
}

/** An overlay of two idmapped layers. Before 6.13 it would have to be mounted somewhere: then the release decides. */
function overlayRefusal({ native, kernel, layers }: SupportOptions, userns: Descriptor): string | undefined {
  if (!kernel.overlayIdmapped) return `overlays of idmapped layers need Linux 5.19, this is ${kernel.release}`;
  if (!kernel.overlayLowerByDescriptor) return undefined;
  try {
    using context = native.mounts.openFileSystem('overlay');
    using one = native.mounts.openTree(layers[0], { clone: true, recursive: false });
    using two = native.mounts.openTree(layers[1], { clone: true, recursive: false });
    for (const layer of [one, two]) {
      native.mounts.setAttributes(layer.fd, { set: MOUNT_ATTR_IDMAP, clear: 0, userns: userns.fd }, false);
      native.mounts.configureFd(context.fd, 'lowerdir+', layer.fd);
    }
    native.mounts.create(context.fd, 0)[Symbol.dispose]();
    return undefined;
  } catch (error) {
    return `overlay over idmapped layers below ${layers[0]}: ${messageOf(error)}`;
  }
}

function refusalWords(path: string, message: string, release: string): string {
  const { fstype, point } = mountOf(path, readFileSync('/proc/self/mountinfo', 'utf8'));
  return `file system ${fstype} (mounted on ${point}) cannot be idmapped by Linux ${release}: ${message}`;
}

/** The mount that a path without symbolic links lies on, of the text of /proc/PID/mountinfo; the last one wins. */
export function mountOf(path: string, mountinfo: string): { readonly fstype: string; readonly point: string } {
  const { fstype = 'unknown', point = '' } = mountAt(parseMountTable(mountinfo), path) ?? {};
  return { fstype, point };
}

/** Refuses a pod that wants what the host cannot give. */
export function requireUserNamespaces(support: UserNamespaceSupport): void {
  if (!support.supported) throw new RuntimeError('unimplemented', `user namespace: ${support.reason}`);
}
