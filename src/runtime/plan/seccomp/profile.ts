import { constants } from 'node:os';
import { invalid } from '../../../kit/errors.js';

/**
 * Seccomp profiles as people write them, checked and brought to one form.
 *
 * Two dialects are read: the OCI `linux.seccomp` object (runtime-spec, config-linux.md, "Seccomp"), and the file format
 * of container engines, which adds `archMap` and, per rule, `includes` and `excludes` by capability, architecture and
 * kernel version. What depends on the host is decided here; the result is what `compileSeccomp` takes.
 */
export interface SeccompProfile {
  readonly defaultAction: SeccompAction;
  /** Architectures beside the native one. */
  readonly architectures: readonly SeccompArch[];
  /** SECCOMP_FILTER_FLAG_* as the profile names them; undefined: not said. */
  readonly flags: readonly string[] | undefined;
  readonly rules: readonly SeccompRule[];
}

export type SeccompActionName = keyof typeof actionNames;

export interface SeccompAction {
  readonly name: SeccompActionName;
  /** errno of `errno`, message of `trace`; 0 otherwise. */
  readonly data: number;
}

export interface SeccompRule {
  readonly names: readonly string[];
  readonly action: SeccompAction;
  /** All must hold, unless two look at one argument: then each counts by itself (the field's reading). */
  readonly args: readonly SeccompArg[];
}

export interface SeccompArg {
  readonly index: number;
  readonly op: SeccompOp;
  readonly value: bigint;
  readonly valueTwo: bigint;
}

export type SeccompOp = keyof typeof opNames;
export type SeccompArch = 'x86_64' | 'x86' | 'x32' | 'arm64';

/** Facts by which engine-style rules apply or do not. */
export interface SeccompFacts {
  readonly arch: 'x86_64' | 'arm64';
  /** `CAP_SYS_ADMIN` and so on: the bounding set of the process. */
  readonly capabilities: readonly string[];
  readonly kernel: { readonly major: number; readonly minor: number };
}

export const actionNames = {
  'kill-process': 'SCMP_ACT_KILL_PROCESS',
  'kill-thread': 'SCMP_ACT_KILL_THREAD',
  trap: 'SCMP_ACT_TRAP',
  errno: 'SCMP_ACT_ERRNO',
  notify: 'SCMP_ACT_NOTIFY',
  trace: 'SCMP_ACT_TRACE',
  log: 'SCMP_ACT_LOG',
  allow: 'SCMP_ACT_ALLOW',
} as const;

const actions = new Map<string, SeccompActionName>([
  ...Object.entries(actionNames).map(([name, oci]) => [oci, name as SeccompActionName] as const),
  ['SCMP_ACT_KILL', 'kill-thread'],
]);

export const opNames = {
  ne: 'SCMP_CMP_NE',
  lt: 'SCMP_CMP_LT',
  le: 'SCMP_CMP_LE',
  eq: 'SCMP_CMP_EQ',
  ge: 'SCMP_CMP_GE',
  gt: 'SCMP_CMP_GT',
  'masked-eq': 'SCMP_CMP_MASKED_EQ',
} as const;

const ops = new Map<string, SeccompOp>(Object.entries(opNames).map(([name, oci]) => [oci, name as SeccompOp]));

/** Undefined: a machine this filter never meets, whose rules are left out. */
const architectures = new Map<string, SeccompArch | undefined>([
  ['SCMP_ARCH_X86_64', 'x86_64'],
  ['SCMP_ARCH_X86', 'x86'],
  ['SCMP_ARCH_X32', 'x32'],
  ['SCMP_ARCH_AARCH64', 'arm64'],
  ...['ARM', 'MIPS', 'MIPS64', 'MIPS64N32', 'MIPSEL', 'MIPSEL64', 'MIPSEL64N32', 'PPC', 'PPC64', 'PPC64LE', 'S390']
    .concat(['S390X', 'PARISC', 'PARISC64', 'RISCV64', 'LOONGARCH64', 'M68K', 'SH', 'SHEB', 'NATIVE'])
    .map((name) => [`SCMP_ARCH_${name}`, undefined] as const),
]);

/** Names the engine format uses for architectures in `includes` and `excludes`. */
const engineArch: Readonly<Record<SeccompFacts['arch'], string>> = { x86_64: 'amd64', arm64: 'arm64' };

/** JSON of a profile. Numbers past 2^53, which arguments may be, arrive as strings of digits. */
export function parseSeccompJson(text: string, field: string): unknown {
  const exact = text.replace(/"(?:[^"\\]|\\.)*"|-?\d{16,}/g, (token) => (token.startsWith('"') ? token : `"${token}"`));
  try {
    return JSON.parse(exact);
  } catch (error) {
    throw invalid(field, `not JSON: ${(error as Error).message}`);
  }
}

/** Throws `invalid-argument` naming the field, `${field}.syscalls[3].args[0].op`. */
export function readSeccompProfile(json: unknown, facts: SeccompFacts, field: string): SeccompProfile {
  const profile = object(json, field);
  if (profile['defaultAction'] === undefined) throw invalid(`${field}.defaultAction`, 'is missing');
  const errno = errnoOf(profile, 'defaultErrno', 'defaultErrnoRet', field);
  const flags = profile['flags'] ?? undefined;
  return {
    defaultAction: actionOf(profile['defaultAction'], errno, `${field}.defaultAction`),
    architectures: architecturesOf(profile, facts, field),
    flags: flags === undefined ? undefined : strings(flags, `${field}.flags`),
    rules: list(profile['syscalls'], `${field}.syscalls`).flatMap((rule, index) =>
      rulesOf(rule, facts, `${field}.syscalls[${index}]`),
    ),
  };
}

function architecturesOf(profile: Json, facts: SeccompFacts, field: string): SeccompArch[] {
  const known = (name: string, path: string): SeccompArch[] => {
    if (!architectures.has(name)) throw invalid(path, `"${name}" is no architecture`);
    const arch = architectures.get(name);
    return arch === undefined ? [] : [arch];
  };
  const all = (value: unknown, path: string): SeccompArch[] =>
    strings(value, path).flatMap((name, index) => known(name, `${path}[${index}]`));
  const listed = all(profile['architectures'], `${field}.architectures`);
  const mapped = list(profile['archMap'], `${field}.archMap`).flatMap((entry, index) => {
    const path = `${field}.archMap[${index}]`;
    const main = known(string(object(entry, path)['architecture'], `${path}.architecture`), `${path}.architecture`);
    const others = all(object(entry, path)['subArchitectures'], `${path}.subArchitectures`);
    return main[0] === facts.arch ? [...main, ...others] : [];
  });
  return [...new Set([...listed, ...mapped])];
}

function rulesOf(json: unknown, facts: SeccompFacts, field: string): SeccompRule[] {
  const rule = object(json, field);
  const names = [...strings(rule['names'], `${field}.names`), ...strings(rule['name'], `${field}.name`)];
  if (names.length === 0) throw invalid(`${field}.names`, 'is empty');
  const errno = errnoOf(rule, 'errno', 'errnoRet', field);
  const action = actionOf(rule['action'], errno, `${field}.action`);
  const args = list(rule['args'], `${field}.args`).map((arg, index) => argOf(arg, `${field}.args[${index}]`));
  if (!applies(rule, facts, field)) return [];
  const indexes = args.map(({ index }) => index);
  if (new Set(indexes).size === indexes.length) return [{ names, action, args }];
  return args.map((arg) => ({ names, action, args: [arg] }));
}

function applies(rule: Json, facts: SeccompFacts, field: string): boolean {
  const includes = filterOf(rule['includes'], `${field}.includes`);
  const excludes = filterOf(rule['excludes'], `${field}.excludes`);
  const arch = engineArch[facts.arch];
  return (
    includes.caps.every((name) => facts.capabilities.includes(name)) &&
    (includes.arches.length === 0 || includes.arches.includes(arch)) &&
    (includes.minKernel === undefined || atLeast(facts.kernel, includes.minKernel)) &&
    !excludes.caps.some((name) => facts.capabilities.includes(name)) &&
    !excludes.arches.includes(arch) &&
    (excludes.minKernel === undefined || !atLeast(facts.kernel, excludes.minKernel))
  );
}

interface Filter {
  readonly caps: readonly string[];
  readonly arches: readonly string[];
  readonly minKernel: { readonly major: number; readonly minor: number } | undefined;
}

function filterOf(json: unknown, field: string): Filter {
  const filter = json === undefined || json === null ? {} : object(json, field);
  const min = filter['minKernel'];
  const match = min === undefined || min === '' ? undefined : /^(\d+)\.(\d+)$/.exec(string(min, `${field}.minKernel`));
  if (match === null) throw invalid(`${field}.minKernel`, `"${String(min)}" is not like 4.8`);
  return {
    caps: strings(filter['caps'], `${field}.caps`),
    arches: strings(filter['arches'], `${field}.arches`),
    minKernel: match === undefined ? undefined : { major: Number(match[1]), minor: Number(match[2]) },
  };
}

const atLeast = (kernel: SeccompFacts['kernel'], min: SeccompFacts['kernel']): boolean =>
  kernel.major > min.major || (kernel.major === min.major && kernel.minor >= min.minor);

function actionOf(value: unknown, errno: number | undefined, field: string): SeccompAction {
  const name = actions.get(string(value, field));
  if (name === undefined) throw invalid(field, `"${String(value)}" is no seccomp action`);
  // EPERM is what runtime-spec says for both when no value is given.
  if (name === 'errno' || name === 'trace') return { name, data: errno ?? constants.errno.EPERM };
  if (errno !== undefined && errno !== 0) throw invalid(field, `${String(value)} takes no errno value`);
  return { name, data: 0 };
}

/** A number, or the symbol some profiles carry instead. The kernel knows errno up to 4095. */
function errnoOf(json: Json, symbol: string, number: string, field: string): number | undefined {
  const value = json[number] ?? undefined;
  if (value !== undefined) {
    const errno = Number(value);
    if (Number.isInteger(errno) && errno >= 0 && errno <= 4095) return errno;
    throw invalid(`${field}.${number}`, `${String(value)} is no errno`);
  }
  const name = json[symbol] ?? undefined;
  if (name === undefined || name === '') return undefined;
  const errno = (constants.errno as Readonly<Record<string, number>>)[string(name, `${field}.${symbol}`)];
  if (errno === undefined) throw invalid(`${field}.${symbol}`, `"${String(name)}" is no errno`);
  return errno;
}

function argOf(json: unknown, field: string): SeccompArg {
  const arg = object(json, field);
  const index = Number(arg['index'] ?? 0);
  if (!Number.isInteger(index) || index < 0 || index > 5)
    throw invalid(`${field}.index`, `${String(arg['index'])} is not 0 to 5`);
  const op = ops.get(string(arg['op'], `${field}.op`));
  if (op === undefined) throw invalid(`${field}.op`, `"${String(arg['op'])}" is no comparison`);
  return { index, op, value: u64(arg['value'], `${field}.value`), valueTwo: u64(arg['valueTwo'], `${field}.valueTwo`) };
}

function u64(value: unknown, field: string): bigint {
  if (value === undefined || value === null) return 0n;
  const text = String(value);
  const number = /^\d+$/.test(text) ? BigInt(text) : -1n;
  if (number < 0n || number >= 1n << 64n) throw invalid(field, `${text} is no unsigned 64-bit number`);
  return number;
}

type Json = Readonly<Record<string, unknown>>;

function object(value: unknown, field: string): Json {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json;
  throw invalid(field, 'is not an object');
}

function list(value: unknown, field: string): readonly unknown[] {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value)) return value;
  throw invalid(field, 'is not a list');
}

function string(value: unknown, field: string): string {
  if (typeof value === 'string') return value;
  throw invalid(field, value === undefined ? 'is missing' : 'is not a string');
}

/** A list of strings, one string, or nothing. */
const strings = (value: unknown, field: string): string[] =>
  typeof value === 'string'
    ? value === ''
      ? []
      : [value]
    : list(value, field).map((item, index) => string(item, `${field}[${index}]`));
