import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { compileDeviceProgram } from './device-program.js';
import { devicePolicy, deviceWrites, parseDevicesList } from './devices.js';
import type { DeviceRule } from './types.js';

/** `allow c 1:3 rw`, `deny a`. */
function rule(text: string): DeviceRule {
  const [verb, type, numbers = '*:*', access = 'rwm'] = text.split(' ');
  const [major, minor] = numbers.split(':');
  return {
    allow: verb === 'allow',
    type: type as DeviceRule['type'],
    access,
    ...(major === '*' ? {} : { major: Number(major) }),
    ...(minor === '*' ? {} : { minor: Number(minor) }),
  };
}

const rules = (...lines: string[]): DeviceRule[] => lines.map(rule);

const writes = (from: string, to: DeviceRule[]): string[] =>
  deviceWrites(parseDevicesList(from), devicePolicy(to)).map(({ file, value }) => `${file.slice(8)} ${value}`);

describe('device rules on cgroup v1', () => {
  it('start from everything denied', () => {
    assert.deepEqual(writes('a *:* rwm\n', rules()), ['deny a']);
    assert.deepEqual(writes('a *:* rwm\n', rules('deny a', 'allow c 1:3 rwm', 'allow c *:* m')), [
      'deny a',
      'allow c 1:3 rwm',
      'allow c *:* m',
    ]);
  });

  it('change a list by its difference, allowing first', () => {
    assert.deepEqual(writes('c 1:3 rwm\nc 1:5 rwm\n', rules('allow c 1:3 rw', 'allow b 8:* r')), [
      'allow b 8:* r',
      'deny c 1:3 m',
      'deny c 1:5 rwm',
    ]);
    assert.deepEqual(writes('c 1:3 rwm\n', rules('allow c 1:3 mrw')), []);
  });

  it('keep order: a later rule takes back an earlier one, a rule for all takes back everything', () => {
    assert.deepEqual(devicePolicy(rules('allow c 1:3 rwm', 'deny c 1:* w')).exceptions, [
      { type: 'c', major: 1, minor: 3, access: 'rm' },
    ]);
    assert.deepEqual(devicePolicy(rules('allow c 1:3 rwm', 'deny a', 'allow c 1:5 r')).exceptions.length, 1);
    assert.deepEqual(devicePolicy(rules('allow a', 'deny c 1:3 w')), {
      allowByDefault: true,
      exceptions: [{ type: 'c', major: 1, minor: 3, access: 'w' }],
    });
  });

  it('refuse a hole in a wider permission, which v1 would silently not make', () => {
    assert.throws(
      () => devicePolicy(rules('allow c *:* rwm', 'deny c 1:3 w')),
      (error) => isKind(error, 'invalid-argument') && /^deviceRules\[1\]: .*cannot express/.test(error.message),
    );
    // Access that does not meet is no hole.
    assert.doesNotThrow(() => devicePolicy(rules('allow c *:* m', 'deny c 1:3 w')));
  });
});

describe('device rules that cannot be', () => {
  const bad: [DeviceRule, RegExp][] = [
    [{ allow: true, type: 'c', access: '' }, /^deviceRules\[0\]\.access/],
    [{ allow: true, type: 'c', access: 'rx' }, /^deviceRules\[0\]\.access/],
    [{ allow: true, type: 'p' as 'c', access: 'r' }, /^deviceRules\[0\]\.type/],
    [{ allow: true, type: 'c', major: -1, access: 'r' }, /^deviceRules\[0\]\.major/],
    [{ allow: true, type: 'c', minor: 2 ** 20, access: 'r' }, /^deviceRules\[0\]\.minor/],
  ];
  for (const [item, message] of bad) {
    it(JSON.stringify(item), () => {
      for (const use of [devicePolicy, compileDeviceProgram]) assert.throws(() => use([item]), { message });
    });
  }
});

interface Request {
  readonly type: 'b' | 'c';
  readonly major: number;
  readonly minor: number;
  readonly access: string;
}

/** Runs the program as the kernel would; throws on an opcode, jump or register the verifier would refuse. */
function interpret(program: Uint8Array, { type, major, minor, access }: Request): number {
  const view = new DataView(program.buffer);
  const bits = [...access].reduce((sum, letter) => sum | ({ m: 1, r: 2, w: 4 }[letter] ?? 0), 0);
  const context = [(bits << 16) | (type === 'b' ? 1 : 2), major, minor];
  const r: (number | undefined)[] = [undefined, 0];
  const get = (index: number): number => {
    const value = r[index];
    assert.ok(value !== undefined, `r${index} is read before it is written`);
    return value;
  };
  for (let pc = 0; ; pc += 1) {
    assert.ok(pc * 8 < program.length, 'falls off the end');
    const [code, regs] = [view.getUint8(pc * 8), view.getUint8(pc * 8 + 1)];
    const [off, imm, dst, src] = [
      view.getInt16(pc * 8 + 2, true),
      view.getInt32(pc * 8 + 4, true),
      regs & 15,
      regs >> 4,
    ];
    if (code === 0x95) return get(0);
    else if (code === 0x61) r[dst] = context[off / 4];
    else if (code === 0xbc) r[dst] = get(src);
    else if (code === 0xb4) r[dst] = imm;
    else if (code === 0x54) r[dst] = get(dst) & imm;
    else if (code === 0x74) r[dst] = get(dst) >>> imm;
    else if (code === 0x05) pc += off;
    else if (code === 0x56) pc += get(dst) !== imm ? off : 0;
    else if (code === 0x46) pc += (get(dst) & imm) !== 0 ? off : 0;
    else assert.fail(`opcode ${code}`);
  }
}

/** The definition: each wanted letter is decided by the last rule that names it, none means no. */
function expected(list: readonly DeviceRule[], request: Request): number {
  const decided = (letter: string): boolean =>
    list.findLast(
      ({ type, major, minor, access }) =>
        type === 'a' ||
        (type === request.type &&
          (major ?? request.major) === request.major &&
          (minor ?? request.minor) === request.minor &&
          access.includes(letter)),
    )?.allow ?? false;
  return [...request.access].every(decided) ? 1 : 0;
}

describe('device program of cgroup v2', () => {
  const lists = [
    rules(),
    rules('allow a'),
    rules('deny a', 'allow c 1:3 rwm', 'allow c 5:2 rw', 'allow b 8:* r', 'allow c *:* m'),
    rules('allow a', 'deny c 1:3 w', 'deny b *:0 rwm'),
    rules('allow c *:* rwm', 'deny c 1:3 w', 'allow c 1:3 r'),
    rules('allow c 1:3 r', 'allow c 1:* w', 'deny c *:3 m'),
    rules('allow c 1:3 rwm', 'deny a', 'allow b 8:0 rw'),
  ];
  const accesses = ['r', 'w', 'm', 'rw', 'rm', 'wm', 'rwm'];

  lists.forEach((list, index) => {
    it(`decides every request as list ${index} says`, () => {
      const program = compileDeviceProgram(list);
      for (const type of ['b', 'c'] as const) {
        for (const major of [0, 1, 5, 8]) {
          for (const minor of [0, 2, 3]) {
            for (const access of accesses) {
              const request = { type, major, minor, access };
              assert.equal(interpret(program, request), expected(list, request), JSON.stringify(request));
            }
          }
        }
      }
    });
  });

  it('agrees with the definition on random lists', () => {
    let seed = 42;
    const next = (below: number): number => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31) % below;
    const pick = <T>(items: readonly T[]): T => items[next(items.length)] as T;
    for (let round = 0; round < 300; round += 1) {
      const list = Array.from({ length: next(8) }, () =>
        rule(
          `${pick(['allow', 'deny'])} ${pick(['a', 'b', 'c', 'c'])} ${pick(['*', '1', '2'])}:${pick(['*', '1', '2'])} ${pick(accesses)}`,
        ),
      );
      const program = compileDeviceProgram(list);
      for (const access of accesses) {
        const request = { type: pick(['b', 'c'] as const), major: next(3), minor: next(3), access };
        assert.equal(interpret(program, request), expected(list, request), JSON.stringify({ list, request }));
      }
    }
  });
});
