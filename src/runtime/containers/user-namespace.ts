import { invalid } from '../../kit/errors.js';
import { faultOf, type IdMappings } from '../idmap/mapping.js';
import type { UserNamespaceSupport } from '../idmap/support.js';
import type { Mount } from '../model.js';
import { isMapOf } from '../spec/container-mounts.js';
import type { HostDevice } from '../spec/container-spec.js';

/** What a container in a user namespace mounts must never appear on the host. */
export function checkVolumes(mounts: readonly Mount[], mappings: IdMappings | undefined): void {
  if (mappings === undefined) return;
  mounts.forEach(({ propagation }, index) => {
    if (propagation !== 'bidirectional') return;
    throw invalid(`config.mounts[${index}].propagation`, 'bidirectional is not possible in a user namespace');
  });
}

/**
 * The maps of a mount need not be the pod's, nor need the pod have a user namespace: the kernel asks for neither. An
 * image is mapped as the pod's own root is, whatever is said, so there a different map would be a lie.
 */
export function checkMappings(mount: Mount, pod: IdMappings | undefined, field: string): void {
  const { uidMappings, gidMappings } = mount;
  if (uidMappings.length === 0 && gidMappings.length === 0) return;
  for (const [name, lines] of Object.entries({ uidMappings, gidMappings })) {
    if (lines.length === 0) throw invalid(`${field}.${name}`, 'uidMappings and gidMappings must be given together');
    const fault = faultOf(lines);
    if (fault !== undefined) throw invalid(`${field}.${name}`, fault);
  }
  if (mount.image === undefined || (pod !== undefined && isMapOf(mount, pod))) return;
  throw invalid(`${field}.uidMappings`, "an image is mounted with the pod's own id mappings");
}

/** What keeps the tree at a host path from being idmapped: the path's own mount, or one of those below by its name. */
export function refusalOf(
  hostPath: string,
  below: readonly { readonly point: string }[],
  support: UserNamespaceSupport,
): string | undefined {
  const refusal = support.refusal(hostPath, true);
  if (refusal === undefined) return undefined;
  for (const path of [hostPath, ...below.map(({ point }) => point)]) {
    const reason = support.refusal(path, false);
    if (reason !== undefined) return reason;
  }
  return refusal;
}

/** A directory given as the root is idmapped with what is mounted below it; nothing in it ever changes its owner. */
export function checkRootfs(rootfs: string, support: UserNamespaceSupport): void {
  const refusal = support.refusal(rootfs, true);
  if (refusal !== undefined) throw invalid('rootfs', `${rootfs}: ${refusal}`);
}

/** Nodes are bound with their owners, whom the namespace does not know: those only owners may open are of no use. */
export const isForEveryone = ({ fileMode }: HostDevice): boolean => ((fileMode ?? 0) & 0o006) !== 0;
