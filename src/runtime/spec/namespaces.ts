import { invalid } from '../../kit/errors.js';
import { keyOf } from '../idmap/mapping.js';
import type { NamespaceMode, NamespaceOptions } from '../model.js';

/**
 * Which namespaces a pod and its containers have, and what follows from each. One table says it; mounts, sysctls, names
 * and the network ask here and nowhere else. `test/golden/namespaces.txt` spells out every combination.
 */
export interface SandboxNamespaces extends Consequences {
  /** Made for the pod and held by its shim. */
  readonly own: readonly OwnNamespace[];
}

export type OwnNamespace = 'net' | 'uts' | 'ipc' | 'pid' | 'user';

interface Consequences {
  /** `attached`: plugins or the built-in network give the pod addresses. */
  readonly network: 'attached' | 'host';
  /** Whose hostname, /etc/hostname and /etc/hosts. resolv.conf is the pod's if it names servers, else the node's. */
  readonly names: 'pod' | 'node';
  /** `fresh`: a sysfs of its own, which shows the network namespace. `bound`: the host's, read-only all the way down. */
  readonly sys: 'fresh' | 'bound';
  /** /dev/shm; /dev/mqueue always shows the IPC namespace. */
  readonly shm: 'pod' | 'host';
}

type Option = 'network' | 'ipc' | 'pid' | 'user';

interface Rule {
  readonly own: readonly OwnNamespace[];
  readonly then?: Partial<Consequences>;
  /** What is different, or why it is refused, where the pod has a user namespace. */
  readonly mapped?: Partial<Consequences> | string;
}

const noRights = "the pod's user namespace has no rights over the host's";

const rules = {
  network: {
    // The UTS namespace follows the network: a pod in the host's network also has the host's name.
    pod: { own: ['net', 'uts'], then: { network: 'attached', names: 'pod', sys: 'fresh' } },
    // A sysfs can be mounted only by who has rights over the network namespace it shows.
    node: { own: [], then: { network: 'host', names: 'node', sys: 'fresh' }, mapped: { sys: 'bound' } },
  },
  ipc: {
    pod: { own: ['ipc'], then: { shm: 'pod' } },
    // Nor could it mount the host's message queues.
    node: { own: [], then: { shm: 'host' }, mapped: noRights },
  },
  pid: {
    pod: { own: ['pid'] },
    // Each container makes its own.
    container: { own: [] },
    target: { own: [] },
    // Nor could it mount the host's /proc.
    node: { own: [], mapped: noRights },
  },
  user: { pod: { own: ['user'] }, node: { own: [] } },
} as const satisfies Readonly<Record<Option, Readonly<Partial<Record<NamespaceMode, Rule>>>>>;

/** From an old kubelet, which says nothing of user namespaces, a pod has none. */
export const hasUserNamespace = (options: NamespaceOptions): boolean => options.userns?.mode === 'pod';

export const namespaceOptionsField = 'config.linux.security_context.namespace_options';

/**
 * @param mapped whether the pod has a user namespace, which its handler may have given it without being asked
 * @throws invalid-argument for what a user namespace cannot go with
 */
export function sandboxNamespaces(options: NamespaceOptions, mapped = hasUserNamespace(options)): SandboxNamespaces {
  const chosen: readonly (readonly [Option, Rule])[] = [
    ['network', rules.network[options.network]],
    ['ipc', rules.ipc[options.ipc]],
    ['pid', rules.pid[options.pid]],
    ['user', rules.user[mapped ? 'pod' : 'node']],
  ];
  const consequences: Partial<Consequences>[] = chosen.map(([option, rule]) =>
    mapped ? { ...rule.then, ...inUserNamespace(option, rule) } : (rule.then ?? {}),
  );
  const all = Object.assign({}, ...consequences) as Consequences;
  return { ...all, own: chosen.flatMap(([, rule]) => rule.own) };
}

function inUserNamespace(option: Option, { mapped }: Rule): Partial<Consequences> {
  if (typeof mapped !== 'string') return mapped ?? {};
  throw invalid(`${namespaceOptionsField}.${option}`, `is node, which a pod in a user namespace cannot be: ${mapped}`);
}

/** Where each namespace of a container comes from. */
export type ContainerNamespace =
  | { readonly from: 'new' }
  | { readonly from: 'host' }
  | { readonly from: 'pod' }
  | { readonly from: 'container'; readonly id: string };

export interface ContainerNamespaces {
  readonly net: ContainerNamespace;
  readonly uts: ContainerNamespace;
  readonly ipc: ContainerNamespace;
  readonly pid: ContainerNamespace;
  readonly mnt: ContainerNamespace;
  readonly cgroup: ContainerNamespace;
  readonly user: ContainerNamespace;
}

export interface ContainerNamespaceFacts {
  readonly cgroupVersion: 'v1' | 'hybrid' | 'v2';
  readonly privileged: boolean;
  /** Whether the pod has a user namespace, which its handler may have given it without being asked. */
  readonly mapped?: boolean;
}

/**
 * Network and IPC are the pod's, whatever it has; only PID namespaces can differ from container to container.
 *
 * @param sandbox the options the pod was made with
 * @param options the options of the container, which may not ask for the node's network or IPC where the pod has its own
 */
export function containerNamespaces(
  sandbox: NamespaceOptions,
  options: NamespaceOptions,
  facts: ContainerNamespaceFacts,
): ContainerNamespaces {
  for (const kind of ['network', 'ipc'] as const) {
    if (options[kind] === 'node' && sandbox[kind] !== 'node') {
      throw invalid(`${namespaceOptionsField}.${kind}`, `is node, but the pod's is ${sandbox[kind]}`);
    }
  }
  checkSameUserNamespace(sandbox, options);
  const mapped = facts.mapped ?? hasUserNamespace(sandbox);
  const { own } = sandboxNamespaces(sandbox, mapped);
  // The rules of its own PID namespace are those of a pod which asks for the same.
  sandboxNamespaces({ ...sandbox, pid: options.pid }, mapped);
  const fromPodOrHost = (kind: OwnNamespace): ContainerNamespace => ({ from: own.includes(kind) ? 'pod' : 'host' });
  return {
    net: fromPodOrHost('net'),
    uts: fromPodOrHost('uts'),
    ipc: fromPodOrHost('ipc'),
    pid: pidNamespace(sandbox, options),
    mnt: { from: 'new' },
    cgroup: cgroupNamespace(facts, mapped),
    user: fromPodOrHost('user'),
  };
}

/**
 * On v1 none: programs look for the paths of /proc/self/cgroup in its hierarchies. On v2 the hierarchy can be mounted by
 * who owns the namespace it is seen in, so that in a user namespace a privileged container has one of its own too.
 */
const cgroupNamespace = (facts: ContainerNamespaceFacts, mapped: boolean): ContainerNamespace => ({
  from: facts.cgroupVersion === 'v2' && (!facts.privileged || mapped) ? 'new' : 'host',
});

function checkSameUserNamespace(sandbox: NamespaceOptions, options: NamespaceOptions): void {
  const words = (option: NamespaceOptions): string =>
    hasUserNamespace(option)
      ? `pod, uids ${keyOf(option.userns?.uids ?? [])}, gids ${keyOf(option.userns?.gids ?? [])}`
      : 'node';
  const [wanted, own] = [words(options), words(sandbox)];
  if (wanted !== own) throw invalid(`${namespaceOptionsField}.userns_options`, `is ${wanted}, but the pod's is ${own}`);
}

function pidNamespace(sandbox: NamespaceOptions, options: NamespaceOptions): ContainerNamespace {
  const field = `${namespaceOptionsField}.pid`;
  switch (options.pid) {
    case 'node':
      return { from: 'host' };
    case 'container':
      return { from: 'new' };
    case 'pod':
      if (sandbox.pid === 'node') return { from: 'host' };
      if (sandbox.pid !== 'pod') throw invalid(field, `is pod, but the pod was made with ${sandbox.pid}`);
      return { from: 'pod' };
    case 'target':
      if (options.targetId === undefined) throw invalid(`${field}.target_id`, 'is needed with mode target');
      return { from: 'container', id: options.targetId };
  }
}
