import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { isKind } from '../../src/kit/errors.js';
import { openSeccomp } from '../../src/runtime/launch/seccomp.js';
import type { SeccompParts } from '../../src/runtime/parts.js';
import { defaultContainerCapabilities } from '../../src/runtime/plan/capabilities.js';
import { syscallNumbers } from '../../src/runtime/plan/seccomp/tables.js';

const run = promisify(execFile);

describe('seccomp filters in this kernel', () => {
  const arch = process.arch === 'arm64' ? 'arm64' : 'x86_64';
  let dir: string;
  let seccomp: SeccompParts;

  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'berth-seccomp-'));
    execFileSync('cc', ['-O1', '-o', join(dir, 'probe'), join(import.meta.dirname, 'seccomp-probe.c')]);
    seccomp = openSeccomp({ kernel: { major: 6, minor: 1 } });
  });
  after(() => rmSync(dir, { recursive: true }));

  /** `clone:0x10000000` by name; the answer is an errno name or `ok`. */
  async function ask(profile: unknown, ...calls: string[]): Promise<string[]> {
    const { program, flags } = seccomp.program(profile);
    writeFileSync(join(dir, 'filter'), program);
    const numbered = calls.map((call) =>
      call.replace(/^\w+/, (name) => String(syscallNumbers(arch).get(name) ?? name)),
    );
    const { stdout } = await run(join(dir, 'probe'), [join(dir, 'filter'), String(flags), ...numbered]);
    const names = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));
    return stdout
      .trim()
      .split('\n')
      .map((line) => names.get(Number(line)) ?? (line === '0' ? 'ok' : line));
  }

  it('carry RuntimeDefault: a program runs, what is refused is refused', async () => {
    const profile = seccomp.runtimeDefault(defaultContainerCapabilities);
    const answers = await ask(profile, 'getpid', 'mount', 'keyctl', 'io_uring_setup:1', 'clone3', '5000', 'bpf:99');
    assert.deepEqual(answers, ['ok', 'EPERM', 'EPERM', 'EPERM', 'ENOSYS', 'ENOSYS', 'EPERM']);
    const sockets = await ask(profile, 'socket:1:1', 'socket:38:5', 'socket:40:1', 'unshare:0x10000000');
    assert.deepEqual(sockets, ['ok', 'EPERM', 'EPERM', 'EPERM']);
  });

  it('let a capability open its calls to the kernel, which decides then', async () => {
    const profile = seccomp.runtimeDefault([...defaultContainerCapabilities, 'CAP_SYS_ADMIN']);
    assert.deepEqual(await ask(profile, 'bpf:99', 'clone3'), ['EINVAL', 'EINVAL']);
  });

  it('compare 64-bit arguments', async () => {
    const args = [{ index: 0, value: 0x1_0000_0005, op: 'SCMP_CMP_GE' }];
    const rule = { names: ['getppid'], action: 'SCMP_ACT_ERRNO', errnoRet: constants.errno.E2BIG, args };
    const profile = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule] };
    const answers = await ask(
      profile,
      'getppid:0x100000005',
      'getppid:0x200000000',
      'getppid:0x100000004',
      'getppid:6',
    );
    assert.deepEqual(answers, ['E2BIG', 'E2BIG', 'ok', 'ok']);
  });

  it('kill when told to', async () => {
    const rule = { names: ['getppid'], action: 'SCMP_ACT_KILL_PROCESS' };
    await assert.rejects(ask({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule] }, 'getppid'), { signal: 'SIGSYS' });
  });

  it('come from a file of the node, and a bad file is refused by field', async () => {
    const file = join(dir, 'profile.json');
    const text = {
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO' }],
    };
    writeFileSync(file, JSON.stringify(text));
    const profile = await seccomp.localhost(file, []);
    assert.deepEqual(await ask(profile, 'mkdirat:0', 'getpid'), ['EPERM', 'ok']);
    const again = seccomp.program(JSON.parse(JSON.stringify(profile)));
    assert.deepEqual(again.program, seccomp.program(profile).program);

    writeFileSync(file, readFileSync(file, 'utf8').replace('SCMP_ACT_ERRNO', 'SCMP_ACT_SING'));
    await assert.rejects(seccomp.localhost(file, []), /profile\.json\.syscalls\[0\]\.action: "SCMP_ACT_SING"/);
    await assert.rejects(seccomp.localhost(join(dir, 'none.json'), []), (error) => isKind(error, 'invalid-argument'));
    await assert.rejects(seccomp.localhost('relative.json', []), /absolute/);
    assert.throws(() => openSeccomp({ kernel: { major: 6, minor: 1 }, profilePath: file }), /SCMP_ACT_SING/);
  });

  it('may stand for RuntimeDefault when they are configured', async () => {
    const file = join(dir, 'default.json');
    const rules = [{ names: ['getppid'], action: 'SCMP_ACT_ERRNO', excludes: { caps: ['CAP_SYS_ADMIN'] } }];
    writeFileSync(file, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: rules }));
    const configured = openSeccomp({ kernel: { major: 6, minor: 1 }, profilePath: file });
    assert.deepEqual(await ask(configured.runtimeDefault([]), 'getppid'), ['EPERM']);
    assert.deepEqual(await ask(configured.runtimeDefault(['CAP_SYS_ADMIN']), 'getppid'), ['ok']);
  });
});
