import { invalid } from '../../kit/errors.js';
import { keyOf } from '../idmap/mapping.js';
import type { NamespaceOptions, StringMap } from '../model.js';

/**
 * Which namespaces a pod and its containers have. One rule per kind; everything that depends on a namespace (sysctls,
 * hostname, /sys, /dev/shm, network) asks here and nowhere else.
 */
export interface SandboxNamespaces {
  /** Made for the pod and held by its shim. */
  readonly own: readonly ('net' | 'ipc' | 'uts' | 'pid' | 'user')[];
}

export function sandboxNamespaces(options: NamespaceOptions): SandboxNamespaces {
  const own: ('net' | 'ipc' | 'uts' | 'pid' | 'user')[] = [];
  // The UTS namespace follows the network: a pod in the host's network also has the host's name.
  if (options.network === 'pod') own.push('net', 'uts');
  if (options.ipc === 'pod') own.push('ipc');
  if (options.pid === 'pod') own.push('pid');
  if (hasUserNamespace(options)) own.push('user');
  return { own };
}

/** From an old kubelet, which says nothing of user namespaces, a pod has none. */
export const hasUserNamespace = (options: NamespaceOptions): boolean => options.userns?.mode === 'pod';

/**
 * Refuses what a user namespace cannot go with: whoever has no rights over the host's PID or IPC namespace can mount
 * neither its /proc nor its message queues. The host's network is possible (its /sys comes as a read-only bind).
 */
export function checkUserNamespace(options: NamespaceOptions, field: string): void {
  if (hasUserNamespace(options)) refuseHostNamespaces(options, field);
}

function refuseHostNamespaces(options: NamespaceOptions, field: string): void {
  for (const kind of ['pid', 'ipc'] as const) {
    if (options[kind] !== 'node') continue;
    const reason = "the pod's user namespace has no rights over the host's";
    throw invalid(`${field}.${kind}`, `is node, which a pod in a user namespace cannot be: ${reason}`);
  }
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

/**
 * @param sandbox the options the pod was made with; net and ipc of a container are the pod's; it may not ask for the node's where the pod has its own
 * @param options the options of the container
 * @param facts whether the container sees a cgroup namespace of its own: on cgroup v2, unless privileged; and whether
 *   the pod has a user namespace, which its handler may have given it without being asked
 */
export function containerNamespaces(
  sandbox: NamespaceOptions,
  options: NamespaceOptions,
  facts: { readonly cgroupNamespace: boolean; readonly userNamespace?: boolean },
): ContainerNamespaces {
  const field = 'config.linux.security_context.namespace_options';
  for (const kind of ['network', 'ipc'] as const) {
    if (options[kind] === 'node' && sandbox[kind] !== 'node') {
      throw invalid(`${field}.${kind}`, `is node, but the pod's is ${sandbox[kind]}`);
    }
  }
  checkSameUserNamespace(sandbox, options, `${field}.userns_options`);
  const userNamespace = facts.userNamespace ?? hasUserNamespace(sandbox);
  if (userNamespace) refuseHostNamespaces({ ...sandbox, pid: options.pid }, field);
  const net = fromPodOrHost(sandbox.network);
  return {
    net,
    uts: net,
    ipc: fromPodOrHost(sandbox.ipc),
    pid: pidNamespace(sandbox, options, `${field}.pid`),
    mnt: { from: 'new' },
    cgroup: { from: facts.cgroupNamespace ? 'new' : 'host' },
    user: { from: userNamespace ? 'pod' : 'host' },
  };
}

function checkSameUserNamespace(sandbox: NamespaceOptions, options: NamespaceOptions, field: string): void {
  const words = (option: NamespaceOptions): string =>
    hasUserNamespace(option)
      ? `pod, uids ${keyOf(option.userns?.uids ?? [])}, gids ${keyOf(option.userns?.gids ?? [])}`
      : 'node';
  const [wanted, own] = [words(options), words(sandbox)];
  if (wanted !== own) throw invalid(field, `is ${wanted}, but the pod's is ${own}`);
}

const fromPodOrHost = (mode: 'pod' | 'node'): ContainerNamespace => ({ from: mode === 'pod' ? 'pod' : 'host' });

function pidNamespace(sandbox: NamespaceOptions, options: NamespaceOptions, field: string): ContainerNamespace {
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

/** Sysctls that belong to a namespace, with the kind they need (kernel Documentation/admin-guide/sysctl). */
const namespacedSysctls: readonly { readonly pattern: RegExp; readonly needs: 'ipc' | 'net' | 'uts' }[] = [
  { pattern: /^kernel\.(sem|msgmax|msgmnb|msgmni|shmall|shmmax|shmmni|shm_rmid_forced)$/, needs: 'ipc' },
  { pattern: /^fs\.mqueue\./, needs: 'ipc' },
  { pattern: /^net\./, needs: 'net' },
  { pattern: /^kernel\.domainname$/, needs: 'uts' },
];

/**
 * Admits the sysctls of a pod: only ones that live in a namespace which the pod owns, named with dots or slashes, with
 * no way out of /proc/sys in the name. Values are written as they are, alone (CVE-2022-0811).
 *
 * @returns names with dots, in the order given
 */
export function admitSysctls(sysctls: StringMap, options: NamespaceOptions): [string, string][] {
  const own = sandboxNamespaces(options).own;
  return Object.entries(sysctls).map(([name, value]) => {
    const field = `config.linux.sysctls["${name}"]`;
    const dotted = normalizeSysctl(name);
    if (!/^[a-z0-9_]+(\.[A-Za-z0-9_/@-]+)+$/.test(dotted) || dotted.includes('..'))
      throw invalid(field, 'is no sysctl name');
    if (/[\n\0]/.test(value)) throw invalid(field, 'the value holds a line break or a zero byte');
    const rule = namespacedSysctls.find(({ pattern }) => pattern.test(dotted));
    if (rule === undefined) throw invalid(field, 'is not a sysctl of any namespace');
    if (!own.includes(rule.needs)) throw invalid(field, `needs a ${rule.needs} namespace of the pod's own`);
    return [dotted, value];
  });
}

/** As sysctl(8): with a slash before the first dot, slashes separate; a dot is then part of a name. */
function normalizeSysctl(name: string): string {
  const slash = name.indexOf('/');
  const dot = name.indexOf('.');
  if (slash < 0 || (dot >= 0 && dot < slash)) return name;
  return name.replace(/[./]/g, (separator) => (separator === '/' ? '.' : '/'));
}

/** Path below /proc/sys of a dotted sysctl name; a slash inside a name stands for a dot (`net.ipv4.conf.eth0/1.x`). */
export const sysctlPath = (dotted: string): string =>
  dotted.replace(/[./]/g, (separator) => (separator === '.' ? '/' : '.'));
