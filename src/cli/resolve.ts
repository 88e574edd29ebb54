import { notFound, RuntimeError } from '../kit/errors.js';
import type { ContainerView, SandboxView } from '../runtime/facade.js';
import type { RuntimeClient } from './remote/client-types.js';

/** The container meant by an id, a unique prefix of one, or a name; of several with one name the newest. */
export async function resolveContainer(client: RuntimeClient, reference: string): Promise<ContainerView> {
  const found = pick(await client.containers.list({}), reference, (view) => [view.config.metadata.name]);
  if (found === undefined) throw notFound('container', reference);
  return found;
}

/** The pod meant by an id, a unique prefix of one, a name, or `namespace/name`. */
export async function resolvePod(client: RuntimeClient, reference: string): Promise<SandboxView> {
  const found = await findPod(client, reference);
  if (found === undefined) throw notFound('pod', reference);
  return found;
}

const namesOfPod = ({ config: { metadata } }: SandboxView): readonly string[] => [
  metadata.name,
  `${metadata.namespace}/${metadata.name}`,
];

const findPod = async (client: RuntimeClient, reference: string): Promise<SandboxView | undefined> =>
  pick(await client.sandboxes.list({}), reference, namesOfPod);

export type Target =
  { readonly kind: 'container'; readonly view: ContainerView } | { readonly kind: 'pod'; readonly view: SandboxView };

/** A container or else a pod. */
export async function resolveTarget(client: RuntimeClient, reference: string): Promise<Target | undefined> {
  const container = pick(await client.containers.list({}), reference, (view) => [view.config.metadata.name]);
  if (container !== undefined) return { kind: 'container', view: container };
  const pod = await findPod(client, reference);
  return pod === undefined ? undefined : { kind: 'pod', view: pod };
}

interface View {
  readonly id: string;
  readonly createdAt: bigint;
}

function pick<V extends View>(
  views: readonly V[],
  reference: string,
  names: (view: V) => readonly string[],
): V | undefined {
  const exact = views.find(({ id }) => id === reference);
  if (exact !== undefined) return exact;
  const named = views.filter((view) => names(view).includes(reference));
  if (named.length > 0) return named.reduce((a, b) => (b.createdAt > a.createdAt ? b : a));
  const prefixed = /^[0-9a-f]+$/.test(reference) ? views.filter(({ id }) => id.startsWith(reference)) : [];
  if (prefixed.length > 1) throw new RuntimeError('invalid-argument', `"${reference}" is the beginning of several ids`);
  return prefixed[0];
}
