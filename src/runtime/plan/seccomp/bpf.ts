/**
 * Classic BPF for seccomp (seccomp(2); struct sock_filter of linux/filter.h). An instruction is a number triple; code
 * is built back to front from finished pieces, so that every jump is forward and its distance is known.
 */
export interface Instruction {
  readonly code: number;
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

const opcode = {
  loadWord: 0x20, // LD | W | ABS: a word of struct seccomp_data
  and: 0x54, // ALU | AND | K
  jump: 0x05, // JMP | JA
  jumpEqual: 0x15, // JMP | JEQ | K
  jumpGreater: 0x25, // JMP | JGT | K
  jumpAtLeast: 0x35, // JMP | JGE | K
  return: 0x06, // RET | K
} as const;

export type Test = 'jumpEqual' | 'jumpGreater' | 'jumpAtLeast';
export type Code = readonly Instruction[];

export const loadWord = (offset: number): Instruction => ({ code: opcode.loadWord, jt: 0, jf: 0, k: offset });
export const and = (mask: number): Instruction => ({ code: opcode.and, jt: 0, jf: 0, k: mask });
export const ret = (value: number): Instruction => ({ code: opcode.return, jt: 0, jf: 0, k: value });

/** Jumps on the accumulator by distances that must fit in a byte. */
export const test = (kind: Test, k: number, jt: number, jf: number): Instruction => ({ code: opcode[kind], jt, jf, k });

/** `then` when the test holds, else `otherwise`; both must end in a return. Distances beyond a byte take a long jump. */
export function branch(kind: Test, k: number, then: Code, otherwise: Code): Code {
  if (otherwise.length <= 255) return [test(kind, k, otherwise.length, 0), ...otherwise, ...then];
  const far: Instruction = { code: opcode.jump, jt: 0, jf: 0, k: otherwise.length };
  return [test(kind, k, 0, 1), far, ...otherwise, ...then];
}

/** Records of 8 bytes in the host's order; both architectures are little endian. */
export function encode(code: Code): Uint8Array {
  const bytes = new Uint8Array(code.length * 8);
  const view = new DataView(bytes.buffer);
  code.forEach((instruction, index) => {
    view.setUint16(index * 8, instruction.code, true);
    view.setUint8(index * 8 + 2, instruction.jt);
    view.setUint8(index * 8 + 3, instruction.jf);
    view.setUint32(index * 8 + 4, instruction.k, true);
  });
  return bytes;
}
