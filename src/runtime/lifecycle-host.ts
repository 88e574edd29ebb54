import { isErrno } from '../kit/errors.js';
import { silentObserver } from '../kit/observer.js';
import { bundleSpec } from './containers/bundle.js';
import { stopContainer } from './containers/stop.js';
import { applyResources } from './containers/update.js';
import type { LifecycleHost } from './lifecycle.js';
import type { Parts } from './parts.js';
import { sandboxNamespaces } from './spec/namespaces.js';
import type { StateChange } from './state/changes.js';

type HostDeps = Pick<Parts, 'registry' | 'cgroups' | 'host' | 'paths'>;

/** Seconds of grace of a container that is ended for others: what a pod has that says nothing (Kubernetes). */
const evictionGraceSeconds = 30;

/** What those who take part in pods' lives see and do. */
export function lifecycleHost(deps: () => HostDeps): LifecycleHost {
  const readyPods = () => [...deps().registry.sandboxes()].filter(({ record }) => record.stage === 'ready');
  const call = { signal: new AbortController().signal, observer: silentObserver };
  return {
    pods: () => readyPods().map(({ record }) => record),
    containers: () =>
      readyPods()
        .flatMap(({ record }) => deps().registry.containersOf(record.id))
        .map(({ record }) => record)
        .filter(({ stage, exit }) => stage !== 'creating' && exit === undefined),
    container: (id) => deps().registry.findContainer(id)?.record,
    networkNamespace: ({ id, config, mappings }) => {
      const { own } = sandboxNamespaces(config.security.namespaces, mappings !== undefined);
      return own.includes('net') ? deps().paths.netnsPin(id) : undefined;
    },
    spec: ({ sandboxId, id }) => {
      try {
        return bundleSpec(deps().paths.bundle(sandboxId, id));
      } catch (error) {
        if (isErrno(error, 'ENOENT')) return undefined;
        throw error;
      }
    },
    updateContainer: (id, resources) => applyResources(id, resources, deps(), call),
    stopContainer: (id) => stopContainer(id, evictionGraceSeconds, deps(), call),
  };
}

/** However a container came to its end, those who take part hear of it. */
export function tellOfStop(
  { type, objectId }: StateChange,
  { registry, lifecycle }: Pick<Parts, 'registry' | 'lifecycle'>,
): void {
  if (type !== 'stopped' || !lifecycle.active) return;
  const container = registry.findContainer(objectId)?.record;
  if (container === undefined) return;
  void lifecycle.tell('container-stopped', registry.sandbox(container.sandboxId).record, container);
}
