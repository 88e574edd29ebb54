import type { OciNamespaceType, OciSpec } from '../spec/oci.js';
import { compileProcess, idMapsOf, processOf } from './compile-process.js';
import type { ExecFacts } from './facts.js';
import type { LaunchPlan, NamespaceKind, NamespaceSource, OuterStep } from './plan.js';

export type { ExecFacts } from './facts.js';

/** The mount namespace is entered by a step of the child's; all of these before it. */
const entered: readonly (readonly [OciNamespaceType, NamespaceKind])[] = [
  ['pid', 'pid'],
  ['network', 'net'],
  ['ipc', 'ipc'],
  ['uts', 'uts'],
  ['user', 'user'],
  ['cgroup', 'cgroup'],
  ['time', 'time'],
];

/**
 * The plan of a process that joins a running container: its namespaces, cgroup, user, capabilities, labels and filter.
 * No keyring is made: the process belongs to the container's session, as far as keys go, only by its user.
 */
export function compileExecPlan(spec: OciSpec, facts: ExecFacts): LaunchPlan {
  const base = processOf(spec.process);
  const process = { ...base, args: facts.args, env: facts.env ?? base.env, cwd: facts.cwd ?? base.cwd };
  const source: NamespaceSource = { from: 'container', id: facts.containerId };
  const types = new Set(spec.linux.namespaces.map(({ type }) => type));
  const enter = entered
    .filter(([type]) => types.has(type))
    .map(([, kind]): OuterStep => ({ op: 'enter', kind, source }));
  return {
    kind: 'join',
    outer: [
      ...enter,
      {
        op: 'clone',
        create: [],
        uidMap: [],
        gidMap: [],
        cgroupDir: facts.cgroup.join.v2Dir ?? '',
        cgroupProcs: facts.cgroup.join.v1Procs,
      },
    ],
    inner: [
      { op: 'enter-mount', source },
      { op: 'session', terminal: facts.terminal, console: false },
      ...compileProcess({
        process,
        kernel: facts.kernel,
        seccomp: facts.seccomp,
        late: [],
        keyring: '',
        ...(types.has('user') ? { ids: idMapsOf(spec) } : {}),
      }),
    ],
  };
}
