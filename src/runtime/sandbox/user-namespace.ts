import { invalid } from '../../kit/errors.js';
import { faultOf, linesOf, overlap, type IdKind, type IdMappings } from '../idmap/mapping.js';
import { requireUserNamespaces } from '../idmap/support.js';
import type { NamespaceOptions } from '../model.js';
import type { Parts } from '../parts.js';
import { hasUserNamespace, namespaceOptionsField as field } from '../spec/namespaces.js';

type UserNamespaceDeps = Pick<Parts, 'registry' | 'userNamespaces' | 'idRanges' | 'settings'>;

/** What a pod asks for with what its handler gives it anyway. */
export function namespacesWanted(
  asked: NamespaceOptions,
  runtimeHandler: string,
  deps: Pick<Parts, 'settings'>,
): NamespaceOptions {
  if (hasUserNamespace(asked) || !deps.settings.usernsHandlers.includes(runtimeHandler)) return asked;
  return { ...asked, userns: { mode: 'pod', uids: [], gids: [] } };
}

/**
 * The maps of a pod's user namespace, checked, or chosen where it leaves that to us; undefined without one. They are the
 * pod's as soon as its record is there: whoever calls this writes it at once.
 */
export function podMappings(options: NamespaceOptions, deps: UserNamespaceDeps): IdMappings | undefined {
  if (!hasUserNamespace(options)) return undefined;
  requireUserNamespaces(deps.userNamespaces);
  const mappings = { uids: options.userns?.uids ?? [], gids: options.userns?.gids ?? [] };
  if (mappings.uids.length === 0 && mappings.gids.length === 0) {
    const taken = [...deps.registry.sandboxes()].flatMap(({ record }) => record.mappings ?? []);
    return deps.idRanges.allocate(taken);
  }
  for (const kind of ['uid', 'gid'] as const) {
    const fault = faultOf(linesOf(mappings, kind));
    if (fault !== undefined) throw invalid(`${field}.userns_options.${kind}s`, fault);
  }
  return mappings;
}

/**
 * Refuses ids that a live pod has: whoever is root of both could read and change what belongs to either. A pod that has
 * stopped runs nothing any more; the kubelet may give its ids to the next.
 */
export function refuseOverlap(mappings: IdMappings | undefined, { registry }: Pick<Parts, 'registry'>): void {
  if (mappings === undefined) return;
  for (const { record } of registry.sandboxes()) {
    if (record.mappings === undefined || record.stage === 'stopped') continue;
    const theirs = record.mappings;
    const common = (kind: IdKind): number | undefined => overlap(linesOf(mappings, kind), linesOf(theirs, kind));
    for (const kind of ['uid', 'gid'] as const) {
      const id = common(kind);
      if (id === undefined) continue;
      const { namespace, name } = record.config.metadata;
      throw invalid(`${field}.userns_options.${kind}s`, `host ${kind} ${id} is in use by pod ${namespace}/${name}`);
    }
  }
}
