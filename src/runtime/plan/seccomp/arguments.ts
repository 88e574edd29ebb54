import { and, loadWord, ret, test } from './bpf.js';
import type { Code, Instruction } from './bpf.js';
import type { SeccompArg } from './profile.js';

/** Rules of one system call that look at its arguments: the first whose conditions all hold gives its result. */
export interface ConditionalResult {
  readonly args: readonly SeccompArg[];
  /** SECCOMP_RET_* word. */
  readonly result: number;
}

/** Offset of args[0] in struct seccomp_data; each is 64 bits, low word first. */
const argsOffset = 16;

/** Where a step of a comparison goes: on to the next step, to the next condition, or to the next rule. */
type Goal = 'next' | 'holds' | 'fails';

interface Step {
  readonly before: readonly Instruction[];
  readonly kind: 'jumpEqual' | 'jumpGreater' | 'jumpAtLeast';
  readonly k: number;
  readonly yes: Goal;
  readonly no: Goal;
}

const low = (value: bigint): number => Number(value & 0xffffffffn);
const high = (value: bigint): number => Number(value >> 32n);

/** Code that ends in a return on every path; `otherwise` is the result when no rule holds. */
export function conditionalCode(rules: readonly ConditionalResult[], wide: boolean, otherwise: number): Code {
  const tail: Code = [ret(otherwise)];
  return rules.reduceRight<Code>((rest, rule) => [...ruleCode(rule, wide), ...rest], tail);
}

/** Falls out of its end when the rule does not hold. */
function ruleCode({ args, result }: ConditionalResult, wide: boolean): Code {
  let code: Code = [ret(result)];
  for (const arg of [...args].reverse()) {
    // "Fails" is just past the code made so far, "holds" its beginning.
    code = [...stepsCode(comparison(arg, wide), code.length), ...code];
  }
  return code;
}

function stepsCode(steps: readonly Step[], after: number): Code {
  let code: Code = [];
  for (const step of [...steps].reverse()) {
    const distance = (goal: Goal): number =>
      goal === 'next' ? 0 : goal === 'holds' ? code.length : code.length + after;
    code = [...step.before, test(step.kind, step.k, distance(step.yes), distance(step.no)), ...code];
  }
  return code;
}

/** A 64-bit comparison in 32-bit steps, high word first. 32-bit machines have no high word: the value's is ignored. */
function comparison({ index, op, value, valueTwo }: SeccompArg, wide: boolean): Step[] {
  const loadLow = loadWord(argsOffset + 8 * index);
  const loadHigh = loadWord(argsOffset + 8 * index + 4);
  const lowStep = (
    kind: Step['kind'],
    yes: Goal,
    no: Goal,
    extra: readonly Instruction[] = [],
    k = low(value),
  ): Step => ({
    before: [loadLow, ...extra],
    kind,
    k,
    yes,
    no,
  });
  const highEqual = (no: Goal): Step => ({ before: [loadHigh], kind: 'jumpEqual', k: high(value), yes: 'next', no });
  const highGreater = (yes: Goal): Step[] => [
    { before: [loadHigh], kind: 'jumpGreater', k: high(value), yes, no: 'next' },
    { before: [], kind: 'jumpEqual', k: high(value), yes: 'next', no: yes === 'holds' ? 'fails' : 'holds' },
  ];
  const words = (highSteps: Step[], lowPart: Step): Step[] => [...(wide ? highSteps : []), lowPart];
  switch (op) {
    case 'eq':
      return words([highEqual('fails')], lowStep('jumpEqual', 'holds', 'fails'));
    case 'ne':
      return words([highEqual('holds')], lowStep('jumpEqual', 'fails', 'holds'));
    case 'gt':
      return words(highGreater('holds'), lowStep('jumpGreater', 'holds', 'fails'));
    case 'ge':
      return words(highGreater('holds'), lowStep('jumpAtLeast', 'holds', 'fails'));
    case 'lt':
      return words(highGreater('fails'), lowStep('jumpAtLeast', 'fails', 'holds'));
    case 'le':
      return words(highGreater('fails'), lowStep('jumpGreater', 'fails', 'holds'));
    case 'masked-eq': {
      const masked = { before: [loadHigh, and(high(value))], kind: 'jumpEqual', k: high(valueTwo) } as const;
      const lowPart = lowStep('jumpEqual', 'holds', 'fails', [and(low(value))], low(valueTwo));
      return words([{ ...masked, yes: 'next', no: 'fails' }], lowPart);
    }
  }
}
