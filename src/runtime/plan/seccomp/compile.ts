import { RuntimeError, invalid } from '../../../kit/errors.js';
import { conditionalCode } from './arguments.js';
import type { ConditionalResult } from './arguments.js';
import { branch, encode, loadWord, ret } from './bpf.js';
import type { Code } from './bpf.js';
import type { SeccompAction, SeccompActionName, SeccompArch, SeccompProfile } from './profile.js';
import { syscallNumbers } from './tables.js';

/**
 * A profile to a filter program. For each architecture the system calls fall into ranges of equal result, found by a
 * binary search on the number; ranges whose result hangs on arguments carry their own code. In detail:
 *
 * - An unconditional rule for a call outweighs conditional ones, the first of several counts; conditional rules count
 *   in the order of the profile. A rule that says what the default says is left out before that. This is how libseccomp
 *   and the runtimes on it read profiles, and profiles rely on it.
 * - Calls newer than any the profile names answer ENOSYS when the default action would deny them, so that the C
 *   library falls back to the older call instead of failing with EPERM.
 * - Names unknown to an architecture are skipped there. A foreign architecture gets the default action.
 */
export interface SeccompProgram {
  /** struct sock_filter records. */
  readonly program: Uint8Array;
  /** SECCOMP_FILTER_FLAG_* for seccomp(2). */
  readonly flags: number;
  /** A rule notifies: a supervisor must take the listener. */
  readonly notifies: boolean;
}

/** BPF_MAXINSNS of linux/bpf_common.h. */
const maxInstructions = 4096;
const x32Bit = 0x4000_0000;
const ENOSYS = 38;
/** Offsets of nr and arch in struct seccomp_data. */
const offset = { number: 0, arch: 4 } as const;

const results: Readonly<Record<SeccompActionName, number>> = {
  'kill-process': 0x8000_0000,
  'kill-thread': 0x0000_0000,
  trap: 0x0003_0000,
  errno: 0x0005_0000,
  notify: 0x7fc0_0000,
  trace: 0x7ff0_0000,
  log: 0x7ffc_0000,
  allow: 0x7fff_0000,
};

const resultOf = ({ name, data }: SeccompAction): number => results[name] + data;

/** AUDIT_ARCH_* of linux/audit.h. */
const auditArch = { x86_64: 0xc000_003e, x86: 0x4000_0003, arm64: 0xc000_00b7 } as const;

const flagBits: Readonly<Record<string, number>> = {
  SECCOMP_FILTER_FLAG_TSYNC: 1,
  SECCOMP_FILTER_FLAG_LOG: 2,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4,
  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: 32,
};

/** Throws `invalid-argument` naming the field when the profile cannot be expressed. */
export function compileSeccomp(profile: SeccompProfile, native: 'x86_64' | 'arm64', field: string): SeccompProgram {
  const archs = new Set<SeccompArch>([native, ...profile.architectures]);
  const code =
    native === 'arm64'
      ? perArch([{ audit: auditArch.arm64, body: archBody(profile, 'arm64') }], profile)
      : perArch(x86Bodies(profile, archs), profile);
  if (code.length > maxInstructions) {
    throw invalid(field, `the filter needs ${code.length} instructions, the kernel takes ${maxInstructions}`);
  }
  const notifies = [profile.defaultAction, ...profile.rules.map((rule) => rule.action)].some(
    ({ name }) => name === 'notify',
  );
  return { program: encode(code), flags: flagsOf(profile, field), notifies };
}

/**
 * A profile that names no flags gets SPEC_ALLOW: the speculative store bypass mitigation that the kernel otherwise ties
 * to seccomp costs every container speed, and since 5.16 the kernel itself no longer does it by default.
 */
function flagsOf(profile: SeccompProfile, field: string): number {
  const names = profile.flags ?? ['SECCOMP_FILTER_FLAG_SPEC_ALLOW'];
  return names.reduce((flags, name, index) => {
    const bit = flagBits[name];
    if (bit === undefined) throw invalid(`${field}.flags[${index}]`, `"${name}" is no seccomp flag`);
    return flags | bit;
  }, 0);
}

interface ArchBody {
  readonly audit: number;
  readonly body: Code;
}

function perArch(bodies: readonly ArchBody[], profile: SeccompProfile): Code {
  const foreign: Code = [ret(resultOf(profile.defaultAction))];
  const choice = bodies.reduceRight<Code>((rest, { audit, body }) => branch('jumpEqual', audit, body, rest), foreign);
  return [loadWord(offset.arch), ...choice];
}

/** x32 calls carry x86-64's architecture and a bit in their number; without x32 they get the default action. */
function x86Bodies(profile: SeccompProfile, archs: ReadonlySet<SeccompArch>): ArchBody[] {
  const x32 = archs.has('x32') ? searchTree(rangesOf(profile, 'x32', x32Bit)) : [ret(resultOf(profile.defaultAction))];
  const x64 = searchTree(rangesOf(profile, 'x86_64', 0));
  const bodies = [
    { audit: auditArch.x86_64, body: [loadWord(offset.number), ...branch('jumpAtLeast', x32Bit, x32, x64)] },
  ];
  if (!archs.has('x86')) return bodies;
  return [...bodies, { audit: auditArch.x86, body: archBody(profile, 'x86') }];
}

const archBody = (profile: SeccompProfile, arch: SeccompArch): Code => [
  loadWord(offset.number),
  ...searchTree(rangesOf(profile, arch, 0)),
];

/** Calls from `start` up to the next range's share one piece of code. */
interface Range {
  readonly start: number;
  readonly code: Code;
}

/** Binary search; every path is about log2 of the number of ranges long. */
function searchTree(ranges: readonly Range[]): Code {
  const [only] = ranges;
  if (only === undefined) throw new RuntimeError('internal', 'seccomp: no range to search');
  if (ranges.length === 1) return only.code;
  const middle = ranges.length >> 1;
  const right = ranges.slice(middle);
  return branch('jumpAtLeast', right[0]?.start ?? 0, searchTree(right), searchTree(ranges.slice(0, middle)));
}

function rangesOf(profile: SeccompProfile, arch: SeccompArch, base: number): Range[] {
  const verdicts = verdictsOf(profile, arch);
  const otherwise = resultOf(profile.defaultAction);
  const last = lastNamed(profile, arch);
  const ranges: Range[] = [];
  let current: string | undefined;
  const push = (start: number, verdict: Verdict): void => {
    // Equal results join; code that looks at arguments stays by itself.
    const key = typeof verdict === 'number' ? String(verdict) : undefined;
    if (key !== undefined && key === current) return;
    current = key;
    const code = typeof verdict === 'number' ? [ret(verdict)] : conditionalCode(verdict, arch !== 'x86', otherwise);
    ranges.push({ start: base + start, code });
  };
  for (let number = 0; number <= last; number += 1) push(number, verdicts.get(number) ?? otherwise);
  push(last + 1, last >= 0 && denies(profile.defaultAction) ? results.errno + ENOSYS : otherwise);
  return ranges;
}

/** A result, or the conditional results in order. */
type Verdict = number | readonly ConditionalResult[];

function verdictsOf(profile: SeccompProfile, arch: SeccompArch): Map<number, Verdict> {
  const numbers = syscallNumbers(arch);
  const otherwise = resultOf(profile.defaultAction);
  const verdicts = new Map<number, Verdict>();
  for (const { names, action, args } of profile.rules) {
    const result = resultOf(action);
    if (result === otherwise) continue;
    for (const name of names) {
      const number = numbers.get(name);
      if (number === undefined) continue;
      const known = verdicts.get(number) ?? [];
      if (typeof known === 'number') continue;
      verdicts.set(number, args.length === 0 ? result : [...known, { args, result }]);
    }
  }
  return verdicts;
}

/** The newest call that the profile names, whatever it says of it. */
function lastNamed(profile: SeccompProfile, arch: SeccompArch): number {
  const numbers = syscallNumbers(arch);
  let last = -1;
  for (const { names } of profile.rules) for (const name of names) last = Math.max(last, numbers.get(name) ?? -1);
  return last;
}

/** With a permissive default unknown calls run as well; and a default of ENOSYS needs no help. */
const denies = ({ name }: SeccompAction): boolean => !['allow', 'log', 'trace'].includes(name);
