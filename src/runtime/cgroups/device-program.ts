import { checkDeviceRules } from './devices.js';
import type { DeviceRule } from './types.js';

/**
 * Device rules to a BPF_PROG_TYPE_CGROUP_DEVICE program (kernel Documentation/admin-guide/cgroup-v2.rst, "Device
 * controller"; instruction set: Documentation/bpf/standardization/instruction-set.rst).
 *
 * The kernel runs it on mknod and open with {access << 16 | type, major, minor} and forbids what returns 0. Access is
 * decided letter by letter: for each wanted letter the last rule that names it decides, and the request passes when
 * all of its letters do. So the program walks the rules backwards and keeps the letters not yet decided in r3:
 *
 *     allow: r3 &= ~access; if r3 == 0 return 1        deny: if r3 & access return 0
 */

const accessBits: Readonly<Record<string, number>> = { m: 1, r: 2, w: 4 };
const typeNumbers = { b: 1, c: 2 } as const;

/** BPF opcodes: class | operation | source (K is an immediate operand). */
const op = {
  loadWord: 0x61, // LDX | MEM | W
  and: 0x54, // ALU32 | AND | K
  shiftRight: 0x74, // ALU32 | RSH | K
  moveReg: 0xbc, // ALU32 | MOV | X
  move: 0xb4, // ALU32 | MOV | K
  jump: 0x05, // JMP | JA
  jumpNotEqual: 0x56, // JMP32 | JNE | K
  jumpSet: 0x46, // JMP32 | JSET | K
  exit: 0x95,
} as const;

interface Instruction {
  readonly code: number;
  readonly dst: number;
  readonly src?: number;
  readonly off?: number;
  readonly imm?: number;
}

/** r1 is the context, r2 the device type, r3 the undecided access, r4 major, r5 minor. */
const prologue: readonly Instruction[] = [
  { code: op.loadWord, dst: 2, src: 1, off: 0 },
  { code: op.moveReg, dst: 3, src: 2 },
  { code: op.and, dst: 2, imm: 0xffff },
  { code: op.shiftRight, dst: 3, imm: 16 },
  { code: op.loadWord, dst: 4, src: 1, off: 4 },
  { code: op.loadWord, dst: 5, src: 1, off: 8 },
];

const returns = (value: 0 | 1): Instruction[] => [
  { code: op.move, dst: 0, imm: value },
  { code: op.exit, dst: 0 },
];

/** Bytes in the host's order; x86-64 and arm64 are little endian. */
export function compileDeviceProgram(rules: readonly DeviceRule[]): Uint8Array {
  checkDeviceRules(rules);
  const program = [...prologue];
  let decided = false;
  for (const rule of [...rules].reverse()) {
    program.push(...ruleBlock(rule));
    // Nothing before a rule for every device can matter, and code that is never reached does not pass the verifier.
    decided = rule.type === 'a';
    if (decided) break;
  }
  if (!decided) program.push(...returns(0));
  return encode(program);
}

function ruleBlock(rule: DeviceRule): Instruction[] {
  if (rule.type === 'a') return returns(rule.allow ? 1 : 0);
  const mask = [...rule.access].reduce((bits, letter) => bits | (accessBits[letter] ?? 0), 0);
  const verdict = rule.allow ? allowBlock(mask) : denyBlock(mask);
  const tests: [register: number, wanted: number][] = [[2, typeNumbers[rule.type]]];
  if (rule.major !== undefined) tests.push([4, rule.major]);
  if (rule.minor !== undefined) tests.push([5, rule.minor]);
  const skips = tests.map(([dst, imm], index): Instruction => {
    const off = tests.length - 1 - index + verdict.length;
    return { code: op.jumpNotEqual, dst, imm, off };
  });
  return [...skips, ...verdict];
}

const allowBlock = (mask: number): Instruction[] => [
  { code: op.and, dst: 3, imm: 7 & ~mask },
  { code: op.jumpNotEqual, dst: 3, imm: 0, off: 2 },
  ...returns(1),
];

const denyBlock = (mask: number): Instruction[] => [
  { code: op.jumpSet, dst: 3, imm: mask, off: 1 },
  { code: op.jump, dst: 0, off: 2 },
  ...returns(0),
];

function encode(program: readonly Instruction[]): Uint8Array {
  const bytes = new Uint8Array(program.length * 8);
  const view = new DataView(bytes.buffer);
  program.forEach(({ code, dst, src = 0, off = 0, imm = 0 }, index) => {
    const at = index * 8;
    view.setUint8(at, code);
    view.setUint8(at + 1, (src << 4) | dst);
    view.setInt16(at + 2, off, true);
    view.setInt32(at + 4, imm, true);
  });
  return bytes;
}
