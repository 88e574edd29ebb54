import { RuntimeError } from '../../src/kit/errors.js';
import type { NamespaceMode, NamespaceOptions } from '../../src/runtime/model.js';
import {
  containerNamespaces,
  sandboxNamespaces,
  type ContainerNamespace,
  type ContainerNamespaces,
} from '../../src/runtime/spec/namespaces.js';
import { admitSysctls } from '../../src/runtime/spec/sysctls.js';
import { namespaces } from './userns.js';

/**
 * Every combination of namespaces as lines of text: what the rules say (compared with test/golden/namespaces.txt) and
 * what the kernel shall show (test/integration/namespaces.test.ts takes its cases from there).
 */

const podOrNode = ['pod', 'node'] as const;
const podPids = ['pod', 'container', 'node'] as const;
const containerPids = ['pod', 'container', 'target', 'node'] as const;

interface Choice {
  readonly network: 'pod' | 'node';
  readonly ipc: 'pod' | 'node';
  readonly pid: NamespaceMode;
  readonly user: 'pod' | 'node';
}

export function optionsOf({ network, ipc, pid, user }: Choice): NamespaceOptions {
  const { userns, ...plain } = namespaces({ network, ipc, pid });
  return { ...plain, ...(user === 'pod' && userns !== undefined ? { userns } : {}) };
}

const choices = (pids: readonly NamespaceMode[]): Choice[] =>
  podOrNode.flatMap((user) =>
    podOrNode.flatMap((network) => podOrNode.flatMap((ipc) => pids.map((pid) => ({ network, ipc, pid, user })))),
  );

const sysctlOf = { net: 'net.ipv4.ip_forward', ipc: 'kernel.msgmax', uts: 'kernel.domainname' } as const;

const columns = ['user', 'network', 'ipc', 'pid'] as const;
const effects = ['own', 'addresses', 'names', 'sys', 'shm', 'mqueue', 'sysctls'] as const;

/** Of what lists most words. */
const ownWidth = 'net,uts,ipc,pid,user'.length;

const row = (words: readonly string[]): string =>
  words
    .map((word, column) => word.padEnd(column === columns.length ? ownWidth : 9))
    .join(' ')
    .trimEnd();

/** The words of a refusal instead of a result. */
function orRefusal(work: () => readonly string[]): readonly string[] {
  try {
    return work();
  } catch (error) {
    if (error instanceof RuntimeError) return [`refused: ${error.message.replace(/^config\.[\w.]+\.(\w+): /, '$1 ')}`];
    throw error;
  }
}

function podEffects(options: NamespaceOptions): readonly string[] {
  const { own, network, names, sys, shm } = sandboxNamespaces(options);
  const admitted = (['net', 'ipc', 'uts'] as const).filter((kind) => {
    try {
      return admitSysctls({ [sysctlOf[kind]]: '1' }, own).length === 1;
    } catch {
      return false;
    }
  });
  const mqueue = own.includes('ipc') ? 'pod' : 'host';
  return [own.join(',') || '-', network, names, sys, shm, mqueue, admitted.join(',') || '-'];
}

const from = (source: ContainerNamespace): string =>
  source.from === 'container' ? "the target's" : source.from === 'pod' ? "the pod's" : source.from;

const pods = (): string[] => [
  row([...columns, ...effects]),
  ...choices(podPids).map((choice) =>
    row([...columns.map((name) => choice[name]), ...orRefusal(() => podEffects(optionsOf(choice)))]),
  ),
];

const anywhere = { cgroupVersion: 'v2', privileged: false } as const;

/** What one kind of namespace comes to, for every choice of the pod and of the container; the rest does not matter. */
function containers(option: 'network' | 'ipc' | 'pid', kinds: readonly (keyof ContainerNamespaces)[]): string[] {
  const [ofPod, ofContainer] = option === 'pid' ? [podPids, containerPids] : [podOrNode, podOrNode];
  const usual: Choice = { network: 'pod', ipc: 'pod', pid: 'container', user: 'node' };
  return podOrNode.flatMap((user) =>
    ofPod.flatMap((pod) =>
      ofContainer.flatMap((own) => {
        const sandbox = optionsOf({ ...usual, user, [option]: pod });
        const target = own === 'target' ? { targetId: 'other' } : {};
        const words = orRefusal(() => {
          const result = containerNamespaces(sandbox, { ...sandbox, [option]: own, ...target }, anywhere);
          return [kinds.map((kind) => `${kind} ${from(result[kind])}`).join(', ')];
        });
        return row([user, option, pod, own, ...words]);
      }),
    ),
  );
}

function cgroups(): string[] {
  return podOrNode.flatMap((user) =>
    (['v1', 'hybrid', 'v2'] as const).flatMap((cgroupVersion) =>
      [false, true].map((privileged) => {
        const options = optionsOf({ network: 'pod', ipc: 'pod', pid: 'container', user });
        const { cgroup } = containerNamespaces(options, options, { cgroupVersion, privileged });
        return row([user, cgroupVersion, privileged ? 'yes' : 'no', from(cgroup)]);
      }),
    ),
  );
}

export function namespaceTable(): string {
  return `${[
    '# Pods: what is asked for, the namespaces made for the pod, and what follows',
    ...pods(),
    '',
    '# Containers: what the pod and the container ask for, and where the namespace comes from',
    row(['user', 'kind', 'pod', 'container', 'comes from']),
    ...containers('network', ['net', 'uts']),
    ...containers('ipc', ['ipc']),
    ...containers('pid', ['pid']),
    '',
    '# Cgroup namespaces of containers',
    row(['user', 'cgroups', 'privileged', 'comes from']),
    ...cgroups(),
  ].join('\n')}\n`;
}

export interface PodRow extends Choice {
  readonly own: readonly string[];
  readonly addresses: string;
  readonly names: string;
  readonly sys: string;
  readonly shm: string;
  readonly mqueue: string;
  readonly sysctls: readonly string[];
  /** The reason; everything else is empty then. */
  readonly refused?: string;
}

const list = (text = ''): string[] => (text === '-' || text === '' ? [] : text.split(','));

/** The first part of the table, from text. */
export function readPodRows(text: string): PodRow[] {
  const lines = text.split('\n\n')[0]?.trim().split('\n').slice(2) ?? [];
  return lines.map((line) => {
    const [user, network, ipc, pid, own = '', addresses = '', names = '', sys = '', shm = '', mqueue = '', sysctls] =
      line.split(/ +/);
    const choice = { user, network, ipc, pid } as Choice;
    if (own === 'refused:') {
      const none = { own: [], addresses: '', names: '', sys: '', shm: '', mqueue: '', sysctls: [] };
      return { ...choice, ...none, refused: line.slice(line.indexOf('refused: ') + 9) };
    }
    return { ...choice, own: list(own), addresses, names, sys, shm, mqueue, sysctls: list(sysctls) };
  });
}
