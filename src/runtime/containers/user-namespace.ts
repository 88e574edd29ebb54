import { invalid } from '../../kit/errors.js';
import type { IdMappings } from '../idmap/mapping.js';
import type { UserNamespaceSupport } from '../idmap/support.js';
import type { Mount } from '../model.js';
import type { HostDevice } from '../spec/container-spec.js';

/** What a container in a user namespace mounts must never appear on the host. */
export function checkVolumes(mounts: readonly Mount[], mappings: IdMappings | undefined): void {
  if (mappings === undefined) return;
  mounts.forEach(({ propagation }, index) => {
    if (propagation !== 'bidirectional') return;
    throw invalid(`config.mounts[${index}].propagation`, 'bidirectional is not possible in a user namespace');
  });
}

/** Volumes are idmapped or refused by name, before anything starts. */
export function checkIdmaps(mounts: readonly Mount[], support: UserNamespaceSupport): void {
  mounts.forEach(({ hostPath, containerPath, uidMappings, gidMappings }, index) => {
    if (uidMappings.length === 0 && gidMappings.length === 0) return;
    const refusal = support.refusal(hostPath, false);
    if (refusal === undefined) return;
    throw invalid(`config.mounts[${index}]`, `volume ${hostPath} for ${containerPath}: ${refusal}`);
  });
}

/** A directory given as the root is idmapped with what is mounted below it; nothing in it ever changes its owner. */
export function checkRootfs(rootfs: string, support: UserNamespaceSupport): void {
  const refusal = support.refusal(rootfs, true);
  if (refusal !== undefined) throw invalid('rootfs', `${rootfs}: ${refusal}`);
}

/** Nodes are bound with their owners, whom the namespace does not know: those only owners may open are of no use. */
export const isForEveryone = ({ fileMode }: HostDevice): boolean => ((fileMode ?? 0) & 0o006) !== 0;
