import { RuntimeError } from '../../kit/errors.js';
import { capabilitiesOf } from './capabilities.js';
import type { InnerStep, LaunchPlan, OuterStep } from './plan.js';
import {
  attributeWords,
  attributesWords,
  idMapWords,
  limitName,
  limitValue,
  octal,
  optionWords,
  propagationWord,
  quoted,
  sourceWords,
} from './words.js';

export type Step = OuterStep | InnerStep;
type Of<Op extends Step['op']> = Extract<Step, { op: Op }>;

interface Words<S> {
  /** What the step does to what, in the words of an error: `mount /etc/resolv.conf`. */
  readonly does: (step: S) => string;
  /** The rest of its fields, for `berth plan explain`. */
  readonly with?: (step: S) => readonly string[];
}

const named = (does: string): { readonly does: () => string } => ({ does: () => does });

/** The one table of words for steps: errors, explanations and waterfalls all speak from it. */
const table: { readonly [Op in Step['op']]: Words<Of<Op>> } = {
  overlay: {
    does: () => 'mount rootfs',
    with: (s) => [
      `overlay into slot ${s.slot}`,
      ...s.lower.map((dir) => `lower ${dir}`),
      s.upper === '' ? '' : `upper ${s.upper}`,
      s.work === '' ? '' : `work ${s.work}`,
      ...optionWords(s.options),
      s.idmap === 'none' ? '' : 'idmapped to the pod',
    ],
  },
  'bind-source': {
    does: (s) => `mount ${s.name === '' ? s.path : s.name}`,
    with: (s) => [
      `${s.recursive ? 'rbind' : 'bind'} of ${s.path} into slot ${s.slot}`,
      attributesWords(s.attributes),
      idmapWords(s.idmap),
      s.idmapRecursive === true ? 'idmapped below too' : '',
      s.create === true ? 'made when missing' : '',
    ],
  },
  'image-source': {
    does: (s) => `mount ${s.name}`,
    with: (s) => [
      `image into slot ${s.slot}`,
      ...s.lower.map((dir) => `lower ${dir}`),
      s.subPath === '' ? '' : `${quoted(s.subPath)} of it`,
      ...optionWords(s.options),
      attributesWords(s.attributes),
      s.idmap === 'none' ? '' : 'idmapped to the pod',
    ],
  },
  'lock-source': {
    does: (s) => `lock ${s.name}`,
    with: (s) => [`slot ${s.slot}`, attributesWords(s.attributes)],
  },
  'fs-source': {
    does: (s) => `mount ${s.fstype} ${s.source}`,
    with: (s) => [`into slot ${s.slot}`, ...attributeWords(s.attributes), ...optionWords(s.options)],
  },
  'hold-mount': { does: (s) => `hold mount ${s.name}`, with: (s) => [`from slot ${s.slot}`] },
  'held-source': {
    does: (s) => `mount ${s.name} of the pod`,
    with: (s) => [`into slot ${s.slot}`, attributesWords(s.attributes)],
  },
  open: { does: (s) => `open ${s.path}`, with: (s) => [`into slot ${s.slot}`] },
  enter: { does: (s) => `enter ${s.kind} namespace ${sourceWords(s.source)}` },
  clone: {
    does: () => 'create process',
    with: (s) => [
      s.create.length === 0 ? '' : `new namespaces ${s.create.join(' ')}`,
      s.uidMap.length === 0 ? '' : `uids ${idMapWords(s.uidMap)}`,
      s.gidMap.length === 0 ? '' : `gids ${idMapWords(s.gidMap)}`,
      s.cgroupDir === '' ? '' : `in cgroup ${s.cgroupDir}`,
      ...s.cgroupProcs.map((path) => `joins ${path}`),
    ],
  },
  'hold-namespaces': { does: (s) => `hold namespaces ${s.kinds.join(' ')}` },
  'pin-namespace': { does: (s) => `pin ${s.kind} namespace ${s.path}` },

  propagation: { does: (s) => `make mounts ${propagationWord(s.flags)}` },
  'attach-root': {
    does: () => 'attach rootfs',
    with: (s) => [`from slot ${s.slot} on ${s.on}`, propagationWord(s.propagation)],
  },
  attach: {
    does: (s) => `mount ${s.target}`,
    with: (s) => [
      `from slot ${s.slot}`,
      s.kind === 'auto' ? '' : s.kind,
      s.copyUp === true ? 'with a copy of what is there' : '',
    ],
  },
  mount: {
    does: (s) => `mount ${s.target}`,
    with: (s) => [
      s.fstype,
      ...attributeWords(s.attributes),
      ...optionWords(s.options),
      propagationWord(s.propagation),
      s.copyUp ? 'with what it hides' : '',
    ],
  },
  'bind-inside': {
    does: (s) => `mount ${s.target}`,
    with: (s) => [`rbind of ${s.source} inside`, attributesWords(s.attributes)],
  },
  'set-attributes': { does: (s) => `remount ${s.target}`, with: (s) => [attributesWords(s.attributes)] },
  mkdir: { does: (s) => `make directory ${s.target}`, with: (s) => [octal(s.mode)] },
  symlink: { does: (s) => `link ${s.link}`, with: (s) => [`to ${s.target}`] },
  device: {
    does: (s) => `make device ${s.target}`,
    with: (s) => [
      s.type === 'p' ? 'pipe' : `${s.type} ${s.major}:${s.minor}`,
      octal(s.mode),
      s.uid === 0 && s.gid === 0 ? '' : `owner ${s.uid}:${s.gid}`,
      s.slot === -1 ? '' : `from slot ${s.slot}`,
    ],
  },
  mask: { does: (s) => `mask ${s.target}` },
  'readonly-path': { does: (s) => `make ${s.target} read-only` },
  pivot: named('change root'),
  'root-readonly': named('make rootfs read-only'),
  hostname: { does: (s) => `set hostname ${quoted(s.name)}` },
  domainname: { does: (s) => `set domain name ${quoted(s.name)}` },
  sysctl: { does: (s) => `set sysctl ${s.name}`, with: (s) => [`to ${quoted(s.value)}`] },
  loopback: named('bring up lo'),
  rlimit: {
    does: (s) => `limit ${limitName(s.resource)}`,
    with: (s) => [`soft ${limitValue(s.soft)} hard ${limitValue(s.hard)}`, s.clamp === true ? 'as far as allowed' : ''],
  },
  'oom-score': {
    does: () => 'set OOM score adjustment',
    with: (s) => [`${s.value}`, s.clamp ? 'as far as allowed' : ''],
  },
  umask: { does: (s) => `set umask ${octal(s.mask)}` },
  'session-keyring': { does: () => 'make session keyring', with: (s) => [s.name] },
  session: {
    does: (s) => (s.terminal ? 'take terminal' : 'make session'),
    with: (s) => [s.console ? 'as /dev/console' : ''],
  },
  'chown-stdio': {
    does: () => 'hand over stdio',
    with: (s) => [`to ${s.uid}:${s.gid}`, s.outside === undefined ? '' : `${s.outside} outside`],
  },
  user: {
    does: (s) => `become user ${s.uid}:${s.gid}`,
    with: (s) => [s.groups.length === 0 ? 'no groups' : `groups ${s.groups.join(' ')}`],
  },
  capabilities: { does: () => 'set capabilities', with: capabilityWords },
  'no-new-privileges': named('set no_new_privs'),
  cwd: { does: (s) => `change directory to ${s.path}`, with: (s) => [s.create ? 'made when missing' : ''] },
  apparmor: { does: (s) => `set AppArmor profile ${quoted(s.profile)}` },
  selinux: { does: (s) => `set SELinux label ${quoted(s.label)}` },
  seccomp: { does: () => 'load seccomp filter', with: (s) => [`${s.program.length / 8} instructions`] },
  'unshare-cgroup': named('make cgroup namespace'),
  'enter-mount': { does: (s) => `enter mnt namespace ${sourceWords(s.source)}` },
  exec: {
    does: (s) => `exec ${quoted(s.args[0] ?? '')}`,
    with: (s) => [s.args.slice(1).map(quoted).join(' '), `${s.env.length} environment variables`],
  },
  pause: named('wait as first process of the pod'),
  hold: named('keep namespaces'),
};

function capabilityWords(step: Of<'capabilities'>): string[] {
  const words = (name: string, set: bigint): string =>
    `${name} ${
      set === 0n
        ? 'none'
        : capabilitiesOf(set)
            .map((each) => each.slice('CAP_'.length).toLowerCase())
            .join(' ')
    }`;
  const same = step.permitted === step.bounding && step.effective === step.bounding;
  return [
    ...(same
      ? [words('all sets', step.bounding)]
      : [words('bounding', step.bounding), words('permitted', step.permitted), words('effective', step.effective)]),
    step.inheritable === 0n ? '' : words('inheritable', step.inheritable),
    step.ambient === 0n ? '' : words('ambient', step.ambient),
  ];
}

function idmapWords(idmap: Of<'bind-source'>['idmap']): string {
  if (typeof idmap === 'string') return idmap === 'none' ? '' : 'idmapped to the pod';
  return `idmapped uids ${idMapWords(idmap.uids)} gids ${idMapWords(idmap.gids)}`;
}

/** The table's entry always fits its own step. */
const wordsOf = (step: Step): Words<Step> => table[step.op] as unknown as Words<Step>;

/** What the step does to what: `mount /etc/resolv.conf`. */
export const stepName = (step: Step): string => wordsOf(step).does(step);

/** One line with every field that matters. */
export function describeStep(step: Step): string {
  const words = wordsOf(step);
  const rest = (words.with?.(step) ?? []).filter((word) => word !== '').join(', ');
  return rest === '' ? words.does(step) : `${words.does(step)} (${rest})`;
}

/** The whole plan for people: one line a step, numbered as failures count. */
export function explainPlan(plan: LaunchPlan): string {
  const width = `${plan.outer.length + plan.inner.length - 1}`.length;
  const lines = (steps: readonly Step[], from: number): string[] =>
    steps.map((step, index) => `${`${from + index}`.padStart(width + 2)}  ${describeStep(step)}`);
  return [
    `${plan.kind} plan`,
    'outer, in the shim:',
    ...lines(plan.outer, 0),
    'inner, in the new process:',
    ...lines(plan.inner, plan.outer.length),
    '',
  ].join('\n');
}

/** `enum launch_detail` of src/native/shim/plan.h: which call of a step failed, where errno alone would mislead. */
const details: ReadonlyMap<number, string> = new Map([
  [1, 'source'],
  [2, 'target'],
  [3, 'option'],
  [4, 'attributes'],
  [5, 'attach'],
  [6, 'id map'],
  [7, 'cgroup'],
  [8, 'namespace'],
  [9, 'not what it claims to be'],
  [10, 'leads out of the container'],
  [11, 'the shim went away'],
  [12, 'not known to the shim'],
  [13, 'terminal'],
]);

/** Says `0xffffffff` of the wire: the failure was at no step. */
export const noStep = 0xffff_ffff;

/**
 * The words for a failure: `mount /etc/resolv.conf: ENOENT`, `exec /bin/foo: ENOENT`.
 *
 * @param index of the step, outer ones first, or `noStep`
 * @param errno its symbol; '' when the process was killed
 */
export function failureWords(plan: LaunchPlan, index: number, errno: string, detail = 0): string {
  const step = index < plan.outer.length ? plan.outer[index] : plan.inner[index - plan.outer.length];
  const reason = errno === '' ? 'the process was killed' : errno;
  const what = details.get(detail);
  const where = step === undefined ? 'launch' : stepName(step);
  return what === undefined ? `${where}: ${reason}` : `${where}: ${reason} (${what})`;
}

/** The same as an error of kind `denied` for what the kernel's access control refused, else `internal`. */
export function failureOf(plan: LaunchPlan, index: number, errno: string, detail = 0): RuntimeError {
  const kind = errno === 'EPERM' || errno === 'EACCES' ? 'denied' : 'internal';
  return new RuntimeError(kind, failureWords(plan, index, errno, detail), { facts: { step: index, errno, detail } });
}
