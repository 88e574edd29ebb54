import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { SyscallError } from '../../src/kit/errors.js';
import { deviceProgramCalls } from '../../src/native/bpf.js';
import type { DevicePrograms } from '../../src/native/bpf.js';
import { loadLibrary } from '../../src/native/library.js';
import { compileDeviceProgram } from '../../src/runtime/cgroups/device-program.js';
import { detectLayout } from '../../src/runtime/cgroups/layout.js';
import type { DeviceRule } from '../../src/runtime/cgroups/types.js';
import { skip } from '../support/skip.js';

const run = promisify(execFile);

/** Device programs work on the v2 hierarchy of hybrid hosts too, so this runs there and on v2. */
describe('device programs of cgroup v2', () => {
  let dir: string;
  let programs: DevicePrograms;

  before(function () {
    const text = (name: string): string => readFileSync(`/proc/${name}`, 'utf8');
    const { v2Root } = detectLayout(text('self/mountinfo'), text('cgroups'), '/sys/fs/cgroup');
    if (process.getuid?.() !== 0 || v2Root === undefined) skip(this, 'needs root and a cgroup v2 hierarchy');
    dir = join(v2Root, `berth-test-devices-${process.pid}`);
    programs = deviceProgramCalls(loadLibrary(), process.arch);
  });

  beforeEach(() => mkdirSync(dir));
  afterEach(() => rmdirSync(dir));

  const allow = (minor: number, access: string): DeviceRule => ({ allow: true, type: 'c', major: 1, minor, access });

  /** Which of /dev/zero (1:5) and /dev/full (1:7) a process of the cgroup can open how. */
  async function openable(): Promise<string> {
    const tries = ['r:zero:<', 'w:zero:>', 'r:full:<', 'rw:full:<>'].map((item) => {
      const [name = '', device = '', redirect = ''] = item.split(':');
      return `(: ${redirect}/dev/${device}) 2>/dev/null && echo ${device}-${name}`;
    });
    const script = `echo $$ > ${dir}/cgroup.procs; ${tries.join('; ')}; :`;
    const { stdout } = await run('/bin/sh', ['-c', script]);
    return stdout.trim().split('\n').join(' ');
  }

  it('decide in the kernel what the rules say', async () => {
    programs.attach(dir, compileDeviceProgram([allow(5, 'r'), allow(3, 'rw')]));
    assert.equal(await openable(), 'zero-r');
    assert.equal(programs.attached(dir).length, 1);
  });

  it('replace one another, and one stays', async () => {
    programs.attach(dir, compileDeviceProgram([allow(3, 'rw')]));
    assert.equal(await openable(), '');
    programs.attach(dir, compileDeviceProgram([allow(5, 'rw'), allow(7, 'r'), allow(3, 'rw')]));
    assert.equal(await openable(), 'zero-r zero-w full-r');
    programs.attach(dir, compileDeviceProgram([{ allow: true, type: 'a', access: 'rwm' }]));
    assert.equal(await openable(), 'zero-r zero-w full-r full-rw');
    assert.equal(programs.attached(dir).length, 1);
  });

  it('pass the verifier with many rules', () => {
    const many = Array.from({ length: 500 }, (_, minor) => allow(minor, minor % 2 === 0 ? 'rw' : 'rwm'));
    programs.attach(dir, compileDeviceProgram([...many, { allow: false, type: 'b', access: 'w' }]));
    programs.attach(dir, compileDeviceProgram([]));
  });

  it('say which call failed on what', () => {
    assert.throws(
      () => programs.attach(`${dir}/none`, compileDeviceProgram([])),
      (error) => error instanceof SyscallError && error.errnoName === 'ENOENT' && error.message.includes(dir),
    );
    assert.throws(() => programs.attach(dir, new Uint8Array(8)), /^SyscallError: bpf device program: EINVAL$/);
  });
});
