import { readFile } from 'node:fs/promises';
import { invalid, isKind } from '../../kit/errors.js';
import { mountAt, mountsBelow, parseMountTable, type MountEntry } from '../../kit/mount-table.js';
import type { IdMappings } from '../idmap/mapping.js';
import type { UserNamespaceSupport } from '../idmap/support.js';
import type { Mount } from '../model.js';
import type { HostLookups } from './host-path.js';
import { checkMappings, refusalOf } from './user-namespace.js';

export interface MountFacts {
  /** Of the pod's user namespace; absent without one. */
  readonly mappings: IdMappings | undefined;
  readonly support: UserNamespaceSupport;
  readonly recursiveReadOnly: boolean;
  readonly lookups: HostLookups;
}

/**
 * Sources of mounts must exist and be able to do what is asked of them; links in them are followed now, once. What an
 * image is the source of is not looked at (see `volumes.ts`).
 */
export async function gatherMounts(mounts: readonly Mount[], facts: MountFacts): Promise<Mount[]> {
  const readTable = mountTable();
  return await Promise.all(
    mounts.map(async (mount, index) => {
      const field = `config.mounts[${index}]`;
      checkMappings(mount, facts.mappings, field);
      if (mount.image !== undefined) return mount;
      checkReadOnly(mount, facts, field);
      const found = { ...mount, hostPath: await facts.lookups.find(mount.hostPath, `${field}.host_path`) };
      if (found.propagation !== 'private') checkPropagation(found, await readTable(), field);
      if (found.uidMappings.length > 0) await checkIdmap(found, readTable, facts, field);
      return found;
    }),
  );
}

type ReadTable = () => Promise<readonly MountEntry[]>;

/** The host's mounts, read when they are first asked for. */
export function mountTable(): ReadTable {
  let table: ReturnType<ReadTable> | undefined;
  return () => (table ??= readFile('/proc/self/mountinfo', 'utf8').then(parseMountTable));
}

function checkReadOnly(mount: Mount, facts: MountFacts, field: string): void {
  if (!mount.recursiveReadOnly) return;
  const refuse = (reason: string): Error => invalid(`${field}.recursive_read_only`, reason);
  if (!mount.readonly) throw refuse('needs readonly');
  if (mount.propagation !== 'private') throw refuse('needs propagation PRIVATE');
  if (!facts.recursiveReadOnly) throw refuse('needs mount_setattr(2) of Linux 5.12');
}

/** Without it the kernel would do as asked, and nothing would ever be passed on (mount_namespaces(7)). */
function checkPropagation({ hostPath, propagation }: Mount, table: readonly MountEntry[], field: string): void {
  const mount = mountAt(table, hostPath);
  if (mount === undefined || mount.shared || (mount.slave && propagation === 'host-to-container')) return;
  const wanted = propagation === 'bidirectional' ? 'shared' : 'shared or a slave';
  throw invalid(`${field}.propagation`, `${hostPath} is on the mount ${mount.point}, which is not ${wanted}`);
}

/** Volumes are idmapped with all that is mounted in them, or refused by name, before anything starts. */
export async function checkIdmap(
  { hostPath, containerPath }: Pick<Mount, 'hostPath' | 'containerPath'>,
  readTable: ReadTable,
  { support, lookups }: Pick<MountFacts, 'support' | 'lookups'>,
  field: string,
): Promise<void> {
  const below = mountsBelow(await readTable(), hostPath);
  // A mount below that hangs would hang the agent when it is tried; when one is gone again, that is no fault.
  for (const { point } of below) await lookups.find(point, `${field}.host_path`).catch(failWhenHanging);
  const refusal = refusalOf(hostPath, below, support);
  if (refusal !== undefined) throw invalid(field, `volume ${hostPath} for ${containerPath}: ${refusal}`);
}

function failWhenHanging(error: unknown): void {
  if (isKind(error, 'deadline')) throw error;
}
