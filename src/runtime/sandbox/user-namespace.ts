import { invalid } from '../../kit/errors.js';
import { faultOf, linesOf, overlap, type IdKind, type IdMappings } from '../idmap/mapping.js';
import { requireUserNamespaces } from '../idmap/support.js';
import type { PodSandboxConfig } from '../model.js';
import type { Parts } from '../parts.js';
import { checkUserNamespace, hasUserNamespace } from '../spec/namespaces.js';

type UserNamespaceDeps = Pick<Parts, 'registry' | 'userNamespaces'>;

const field = 'config.linux.security_context.namespace_options';

/** The maps of a pod's user namespace, checked; undefined without one. */
export function podMappings(config: PodSandboxConfig, deps: UserNamespaceDeps): IdMappings | undefined {
  const options = config.security.namespaces;
  if (!hasUserNamespace(options)) return undefined;
  checkUserNamespace(options, field);
  requireUserNamespaces(deps.userNamespaces);
  const mappings = { uids: options.userns?.uids ?? [], gids: options.userns?.gids ?? [] };
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
export function refuseOverlap(mappings: IdMappings | undefined, { registry }: UserNamespaceDeps): void {
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
