import assert from 'node:assert/strict';
import { isKind } from '../../../kit/errors.js';
import { compileSeccomp } from './compile.js';
import { defaultSeccompProfile } from './default-profile.js';
import { toOciSeccomp } from './profile-json.js';
import { parseSeccompJson, readSeccompProfile } from './profile.js';
import type { SeccompArch, SeccompFacts, SeccompOp, SeccompProfile } from './profile.js';
import { syscallNumbers } from './tables.js';

/** What a filter is asked: struct seccomp_data. */
interface Question {
  readonly arch: number;
  readonly number: number;
  readonly args?: readonly bigint[];
}

const audit = { x86_64: 0xc000003e, x86: 0x40000003, x32: 0xc000003e, arm64: 0xc00000b7 } as const;

/** Runs a filter as the kernel would; an unknown opcode, a jump past the end or a load it would refuse throws. */
function run(program: Uint8Array, { arch, number, args = [] }: Question): number {
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength);
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, number, true);
  data.setUint32(4, arch, true);
  args.forEach((arg, index) => data.setBigUint64(16 + 8 * index, arg, true));
  let accumulator = 0;
  for (let pc = 0; pc * 8 < program.length; pc += 1) {
    const [code, k] = [view.getUint16(pc * 8, true), view.getUint32(pc * 8 + 4, true)];
    const jump = (holds: boolean): number => view.getUint8(pc * 8 + (holds ? 2 : 3));
    if (code === 0x06) return k;
    else if (code === 0x20) accumulator = data.getUint32(k, true);
    else if (code === 0x54) accumulator = (accumulator & k) >>> 0;
    else if (code === 0x05) pc += k;
    else if (code === 0x15) pc += jump(accumulator === k);
    else if (code === 0x25) pc += jump(accumulator > k);
    else if (code === 0x35) pc += jump(accumulator >= k);
    else assert.fail(`opcode ${code}`);
  }
  return assert.fail('falls off the end');
}

const ALLOW = 0x7fff0000;
const errno = (value: number): number => 0x50000 + value;
const facts: SeccompFacts = { arch: 'x86_64', capabilities: [], kernel: { major: 6, minor: 1 } };

function compile(json: unknown, given: Partial<SeccompFacts> = {}): Uint8Array {
  const all = { ...facts, ...given };
  return compileSeccomp(readSeccompProfile(json, all, 'p'), all.arch, 'p').program;
}

/** Asks by name on x86-64. */
const ask = (program: Uint8Array, name: string, ...args: (number | bigint)[]): number =>
  run(program, { arch: audit.x86_64, number: syscallNumbers('x86_64').get(name) ?? -1, args: args.map(BigInt) });

const deny = { defaultAction: 'SCMP_ACT_ERRNO' };
const rule = (names: string, action: string, more: object = {}): object => ({
  names: names.split(' '),
  action,
  ...more,
});
const arg = (index: number, op: string, value: number | string, valueTwo?: number | string): object => ({
  index,
  op: `SCMP_CMP_${op}`,
  value,
  valueTwo,
});

/** The definition, by linear search: what the compiler must agree with. */
function expected(profile: SeccompProfile, arch: SeccompArch, number: number, args: readonly bigint[]): number {
  const value = ({ name, data }: SeccompProfile['defaultAction']): number =>
    ({ allow: ALLOW, log: 0x7ffc0000, trace: 0x7ff00000, notify: 0x7fc00000, errno: 0x50000, trap: 0x30000 })[
      name as string
    ] ?? (name === 'kill-process' ? 0x80000000 : 0) + 0 * data;
  const result = (action: SeccompProfile['defaultAction']): number => value(action) + action.data;
  const numbers = syscallNumbers(arch);
  const otherwise = result(profile.defaultAction);
  const last = Math.max(-1, ...profile.rules.flatMap(({ names }) => names.map((name) => numbers.get(name) ?? -1)));
  if (number > last) {
    const permissive = ['allow', 'log', 'trace'].includes(profile.defaultAction.name);
    return permissive || last < 0 ? otherwise : errno(38);
  }
  const mine = profile.rules.filter(
    ({ names, action }) => result(action) !== otherwise && names.some((name) => numbers.get(name) === number),
  );
  const always = mine.find((item) => item.args.length === 0);
  const cut = (big: bigint): bigint => (arch === 'x86' ? big & 0xffffffffn : big);
  const compare: Record<SeccompOp, (a: bigint, b: bigint, c: bigint) => boolean> = {
    eq: (a, b) => a === b,
    ne: (a, b) => a !== b,
    lt: (a, b) => a < b,
    le: (a, b) => a <= b,
    gt: (a, b) => a > b,
    ge: (a, b) => a >= b,
    'masked-eq': (a, b, c) => (a & b) === c,
  };
  const holds = mine.find((item) =>
    item.args.every(({ index, op, value: one, valueTwo }) =>
      compare[op](cut(args[index] ?? 0n), cut(one), cut(valueTwo)),
    ),
  );
  const chosen = always ?? holds;
  return chosen === undefined ? otherwise : result(chosen.action);
}

const interesting = [0n, 1n, 2n, 37n, 38n, 39n, 40n, 41n, 0x20000n, 0xffffffffn, 0x100000000n, 0x100000001n].concat([
  0x7fffffffn,
  0x80000000n,
  1n << 63n,
  (1n << 64n) - 1n,
]);

describe('seccomp filter', () => {
  it('allows, denies and tells apart every action', () => {
    const program = compile({
      ...deny,
      syscalls: [
        rule('read write', 'SCMP_ACT_ALLOW'),
        rule('mount', 'SCMP_ACT_ERRNO', { errnoRet: 13 }),
        rule('umount2', 'SCMP_ACT_ERRNO', { errno: 'ENOSYS' }),
        rule('kill', 'SCMP_ACT_KILL'),
        rule('tkill', 'SCMP_ACT_KILL_PROCESS'),
        rule('bpf', 'SCMP_ACT_TRAP'),
        rule('ptrace', 'SCMP_ACT_TRACE', { errnoRet: 7 }),
        rule('open', 'SCMP_ACT_LOG'),
        rule('close', 'SCMP_ACT_NOTIFY'),
      ],
    });
    const answers = ['read', 'mount', 'umount2', 'kill', 'tkill', 'bpf', 'ptrace', 'open', 'close', 'stat'];
    assert.deepEqual(
      answers.map((name) => ask(program, name)),
      [ALLOW, errno(13), errno(38), 0, 0x80000000, 0x30000, 0x7ff00007, 0x7ffc0000, 0x7fc00000, errno(1)],
    );
  });

  it('compares 64-bit arguments in every way', () => {
    const values = ['0', '1', '38', '4294967295', '4294967296', '4294967297', '18446744073709551615'];
    for (const op of ['NE', 'LT', 'LE', 'EQ', 'GE', 'GT', 'MASKED_EQ']) {
      for (const value of values) {
        const json = { ...deny, syscalls: [rule('socket', 'SCMP_ACT_ALLOW', { args: [arg(2, op, value, 1)] })] };
        const architectures = ['SCMP_ARCH_X86'];
        const profile = readSeccompProfile({ ...json, architectures }, facts, 'p');
        const { program } = compileSeccomp(profile, 'x86_64', 'p');
        for (const given of interesting) {
          for (const arch of ['x86_64', 'x86'] as const) {
            // A 32-bit machine hands over 32 bits.
            const args = [0n, 0n, arch === 'x86' ? given & 0xffffffffn : given];
            const number = syscallNumbers(arch).get('socket') ?? 0;
            const answer = run(program, { arch: audit[arch], number, args });
            assert.equal(answer, expected(profile, arch, number, args), `${arch} ${op} ${value} ${given}`);
          }
        }
      }
    }
  });

  it('wants all conditions of a rule, and any rule of a call', () => {
    const program = compile({
      ...deny,
      syscalls: [
        rule('clone', 'SCMP_ACT_ALLOW', { args: [arg(0, 'EQ', 1), arg(1, 'GT', 5)] }),
        rule('clone', 'SCMP_ACT_ERRNO', { errnoRet: 9, args: [arg(0, 'EQ', 2)] }),
      ],
    });
    assert.equal(ask(program, 'clone', 1, 6), ALLOW);
    assert.equal(ask(program, 'clone', 1, 5), errno(1));
    assert.equal(ask(program, 'clone', 2, 0), errno(9));
  });

  it('takes two conditions on one argument for two rules', () => {
    const args = [arg(0, 'EQ', 1), arg(0, 'EQ', 2)];
    const program = compile({ ...deny, syscalls: [rule('personality', 'SCMP_ACT_ALLOW', { args })] });
    assert.deepEqual(
      [1, 2, 3].map((value) => ask(program, 'personality', value)),
      [ALLOW, ALLOW, errno(1)],
    );
  });

  it('lets an unconditional rule outweigh conditional ones, wherever it stands', () => {
    const syscalls = [
      rule('socket', 'SCMP_ACT_ERRNO', { errnoRet: 5, args: [arg(0, 'EQ', 1)] }),
      rule('socket', 'SCMP_ACT_ALLOW'),
      rule('socket', 'SCMP_ACT_KILL'),
    ];
    assert.equal(ask(compile({ ...deny, syscalls }), 'socket', 1), ALLOW);
  });

  it('answers ENOSYS to calls newer than the profile, unless the default permits', () => {
    const syscalls = [rule('read statx', 'SCMP_ACT_ALLOW')];
    const program = compile({ ...deny, syscalls });
    assert.equal(ask(program, 'statx'), ALLOW);
    assert.equal(ask(program, 'clone3'), errno(38));
    assert.equal(run(program, { arch: audit.x86_64, number: 5000 }), errno(38));
    assert.equal(ask(program, 'write'), errno(1));
    assert.equal(
      ask(compile({ defaultAction: 'SCMP_ACT_LOG', syscalls: [rule('read', 'SCMP_ACT_KILL')] }), 'clone3'),
      0x7ffc0000,
    );
    assert.equal(ask(compile(deny), 'clone3'), errno(1));
  });

  it('gives foreign architectures the default action', () => {
    const json = { ...deny, syscalls: [rule('read', 'SCMP_ACT_ALLOW')] };
    const alone = compile(json);
    assert.equal(run(alone, { arch: audit.x86, number: 3 }), errno(1));
    assert.equal(run(alone, { arch: audit.arm64, number: 63 }), errno(1));
    assert.equal(run(alone, { arch: audit.x86_64, number: 0x40000000 }), errno(1));
    const all = compile({ ...json, architectures: ['SCMP_ARCH_X86', 'SCMP_ARCH_X32', 'SCMP_ARCH_S390X'] });
    assert.equal(run(all, { arch: audit.x86, number: 3 }), ALLOW);
    assert.equal(run(all, { arch: audit.x86_64, number: 0x40000000 }), ALLOW);
    assert.equal(run(all, { arch: audit.x86_64, number: 0 }), ALLOW);
  });

  it('compiles for arm64', () => {
    const program = compile({ ...deny, syscalls: [rule('read open', 'SCMP_ACT_ALLOW')] }, { arch: 'arm64' });
    assert.equal(run(program, { arch: audit.arm64, number: 63 }), ALLOW);
    assert.equal(run(program, { arch: audit.x86_64, number: 0 }), errno(1));
  });

  it('skips names that nobody knows', () => {
    assert.equal(ask(compile({ ...deny, syscalls: [rule('no_such_call read', 'SCMP_ACT_ALLOW')] }), 'read'), ALLOW);
  });

  it('agrees with the definition on every call and many arguments of random profiles', () => {
    let seed = 7;
    const next = (below: number): number => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31) % below;
    const pick = <T>(items: readonly T[]): T => items[next(items.length)] as T;
    const names = [...syscallNumbers('x86_64').keys()];
    const actions = ['SCMP_ACT_ALLOW', 'SCMP_ACT_ERRNO', 'SCMP_ACT_KILL_PROCESS', 'SCMP_ACT_LOG', 'SCMP_ACT_TRAP'];
    for (let round = 0; round < 12; round += 1) {
      const syscalls = Array.from({ length: 30 }, () => {
        const count = next(3);
        const args = Array.from({ length: count }, (_, index) =>
          arg(index, pick(['NE', 'LT', 'LE', 'EQ', 'GE', 'GT', 'MASKED_EQ']), String(pick(interesting)), next(2)),
        );
        return { names: Array.from({ length: 1 + next(10) }, () => pick(names)), action: pick(actions), args };
      });
      const json = { defaultAction: pick(actions), architectures: ['SCMP_ARCH_X86', 'SCMP_ARCH_X32'], syscalls };
      const profile = readSeccompProfile(json, facts, 'p');
      const { program } = compileSeccomp(profile, 'x86_64', 'p');
      for (const arch of ['x86_64', 'x86', 'x32'] as const) {
        for (let number = 0; number < 600; number += 1) {
          const args = [pick(interesting), pick(interesting)].map((big) => (arch === 'x86' ? big & 0xffffffffn : big));
          const asked = { arch: audit[arch], number: arch === 'x32' ? 0x40000000 + number : number, args };
          assert.equal(run(program, asked), expected(profile, arch, number, args), `${arch} ${number} ${args.join()}`);
        }
      }
    }
  });

  it('survives the trip through config.json', () => {
    const json = {
      ...deny,
      syscalls: [rule('socket', 'SCMP_ACT_ALLOW', { args: [arg(0, 'EQ', '18446744073709551615')] })],
    };
    const oci: unknown = JSON.parse(JSON.stringify(toOciSeccomp(readSeccompProfile(json, facts, 'p'))));
    assert.deepEqual(compile(oci), compile(json));
  });

  it('refuses a filter the kernel would not take', () => {
    const args = (value: number): object => ({ args: [arg(0, 'EQ', value), arg(1, 'EQ', value), arg(2, 'EQ', value)] });
    const syscalls = Array.from({ length: 400 }, (_, index) => rule('socket', 'SCMP_ACT_ALLOW', args(index)));
    assert.throws(() => compile({ ...deny, syscalls }), /^RuntimeError: p: the filter needs \d+ instructions/);
  });
});

describe('seccomp profile', () => {
  const applies = (condition: object, given: Partial<SeccompFacts> = {}): boolean =>
    ask(
      compile(
        { ...deny, syscalls: [rule('read', 'SCMP_ACT_ALLOW', condition), rule('statx', 'SCMP_ACT_KILL')] },
        given,
      ),
      'read',
    ) === ALLOW;

  it('includes and excludes by capability, architecture and kernel', () => {
    const admin = { capabilities: ['CAP_SYS_ADMIN'] };
    assert.equal(applies({ includes: { caps: ['CAP_SYS_ADMIN'] } }), false);
    assert.equal(applies({ includes: { caps: ['CAP_SYS_ADMIN'] } }, admin), true);
    assert.equal(applies({ excludes: { caps: ['CAP_SYS_ADMIN', 'CAP_BPF'] } }, admin), false);
    assert.equal(applies({ includes: { arches: ['arm64'] } }), false);
    assert.equal(applies({ includes: { arches: ['amd64', 'x32'] } }), true);
    assert.equal(applies({ excludes: { arches: ['amd64'] } }), false);
    assert.equal(applies({ includes: { minKernel: '4.8' } }), true);
    assert.equal(applies({ includes: { minKernel: '6.2' } }), false);
    assert.equal(applies({ excludes: { minKernel: '6.1' } }), false);
  });

  it('takes the architectures of this machine from archMap', () => {
    const archMap = [
      { architecture: 'SCMP_ARCH_AARCH64', subArchitectures: ['SCMP_ARCH_ARM'] },
      { architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86', 'SCMP_ARCH_X32'] },
    ];
    assert.deepEqual(readSeccompProfile({ ...deny, archMap }, facts, 'p').architectures, ['x86_64', 'x86', 'x32']);
  });

  it('reads numbers a double cannot hold', () => {
    const json = parseSeccompJson('{"a": 18446744073709551615, "b": "12345678901234567890", "c": [-5, 7]}', 'p');
    assert.deepEqual(json, { a: '18446744073709551615', b: '12345678901234567890', c: [-5, 7] });
  });

  const bad: [name: string, json: unknown, message: RegExp][] = [
    ['no object', [], /^p: is not an object/],
    ['no default action', {}, /^p\.defaultAction: is missing/],
    [
      'an unknown action',
      { defaultAction: 'SCMP_ACT_SING' },
      /^p\.defaultAction: "SCMP_ACT_SING" is no seccomp action/,
    ],
    ['an unknown architecture', { ...deny, architectures: ['X'] }, /^p\.architectures\[0\]: "X"/],
    [
      'a rule without names',
      { ...deny, syscalls: [{ action: 'SCMP_ACT_ALLOW' }] },
      /^p\.syscalls\[0\]\.names: is empty/,
    ],
    ['a rule with an unknown action', { ...deny, syscalls: [rule('read', 'X')] }, /^p\.syscalls\[0\]\.action: "X"/],
    [
      'an unknown comparison',
      { ...deny, syscalls: [rule('read', 'SCMP_ACT_ALLOW', { args: [{ index: 0, op: 'X' }] })] },
      /^p\.syscalls\[0\]\.args\[0\]\.op: "X" is no comparison/,
    ],
    [
      'an argument that is not there',
      { ...deny, syscalls: [rule('read', 'SCMP_ACT_ALLOW', { args: [arg(6, 'EQ', 0)] })] },
      /^p\.syscalls\[0\]\.args\[0\]\.index: 6/,
    ],
    [
      'a negative value',
      { ...deny, syscalls: [rule('read', 'SCMP_ACT_ALLOW', { args: [arg(0, 'EQ', -1)] })] },
      /^p\.syscalls\[0\]\.args\[0\]\.value: -1/,
    ],
    ['an errno out of range', { ...deny, defaultErrnoRet: 4096 }, /^p\.defaultErrnoRet: 4096 is no errno/],
    [
      'an errno for an action without',
      { ...deny, syscalls: [rule('read', 'SCMP_ACT_ALLOW', { errnoRet: 1 })] },
      /takes no errno/,
    ],
    ['an unknown flag', { ...deny, flags: ['X'] }, /^p\.flags\[0\]: "X" is no seccomp flag/],
  ];
  for (const [name, json, message] of bad) {
    it(`refuses ${name}`, () => {
      assert.throws(
        () => compile(json),
        (error) => isKind(error, 'invalid-argument') && message.test(error.message),
      );
    });
  }
});

describe('RuntimeDefault', () => {
  const program = (...capabilities: string[]): Uint8Array => compile(defaultSeccompProfile(capabilities, 'x86_64'));

  it('names only calls that some machine has', () => {
    const known = new Set(
      (['x86_64', 'x86', 'x32', 'arm64'] as const).flatMap((arch) => [...syscallNumbers(arch).keys()]),
    );
    const everything = ['CAP_SYS_ADMIN', 'CAP_SYS_TIME', 'CAP_SYS_NICE', 'CAP_SYS_MODULE', 'CAP_SYS_PTRACE'];
    for (const { names } of defaultSeccompProfile(everything, 'x86_64').syscalls) {
      for (const name of names) assert.ok(known.has(name), name);
    }
  });

  it('refuses what administers the host or has been a way out', () => {
    const plain = program();
    const refused =
      'mount umount2 setns unshare bpf keyctl add_key io_uring_setup userfaultfd reboot kexec_load swapon init_module perf_event_open open_by_handle_at';
    for (const name of refused.split(' ')) assert.equal(ask(plain, name), errno(1), name);
    for (const name of ['read', 'execve', 'fork', 'statx', 'openat2', 'ptrace', 'futex_waitv', 'landlock_add_rule']) {
      assert.equal(ask(plain, name), ALLOW, name);
    }
  });

  it('makes no namespaces without CAP_SYS_ADMIN', () => {
    assert.equal(ask(program(), 'clone', 0x11), ALLOW);
    for (const flag of [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]) {
      assert.equal(ask(program(), 'clone', 0x11 | flag), errno(1));
      assert.equal(ask(program('CAP_SYS_ADMIN'), 'clone', 0x11 | flag), ALLOW);
    }
    assert.equal(ask(program(), 'clone3'), errno(38));
    assert.equal(ask(program('CAP_SYS_ADMIN'), 'clone3'), ALLOW);
  });

  it('opens no socket of the kernel crypto and hypervisor families', () => {
    for (const [family, answer] of [
      [1, ALLOW],
      [2, ALLOW],
      [16, ALLOW],
      [38, errno(1)],
      [39, ALLOW],
      [40, errno(1)],
      [41, ALLOW],
    ] as const) {
      assert.equal(ask(program(), 'socket', family), answer, String(family));
    }
  });

  it('knows five personalities', () => {
    for (const value of [0, 8, 0x20000, 0x20008, 0xffffffff]) assert.equal(ask(program(), 'personality', value), ALLOW);
    assert.equal(ask(program(), 'personality', 0x40000), errno(1));
  });

  it('opens with each capability what it guards', () => {
    const pairs = 'CAP_SYS_CHROOT:chroot CAP_SYS_TIME:clock_settime CAP_BPF:bpf CAP_SYS_BOOT:reboot CAP_SYSLOG:syslog';
    for (const [cap = '', call = ''] of pairs.split(' ').map((pair) => pair.split(':'))) {
      assert.equal(ask(program(), call), errno(1));
      assert.equal(ask(program(cap), call), ALLOW);
    }
  });

  it('fits, on both machines', () => {
    assert.ok(program().length / 8 < 1000);
    assert.ok(compile(defaultSeccompProfile([], 'arm64'), { arch: 'arm64' }).length > 0);
  });
});
