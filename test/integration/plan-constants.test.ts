import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MOUNT_ATTR, MS, RLIMIT } from '../../src/runtime/plan/kernel.js';
import { namespaceKinds } from '../../src/runtime/plan/kinds.js';
import { recordBytes, stepFlags } from '../../src/runtime/plan/wire-codec.js';
import { innerTable, outerTable } from '../../src/runtime/plan/wire-table.js';
import { maxSteps, planVersion } from '../../src/runtime/plan/wire.js';

const header = fileURLToPath(new URL('../../src/native/shim/plan.h', import.meta.url));

/** Compiles a program that prints `name=value` for each C expression, and reads it back. */
function askCompiler(expressions: ReadonlyMap<string, string>): Map<string, number> {
  const dir = mkdtempSync(join(tmpdir(), 'berth-constants-'));
  try {
    const prints = [...expressions].map(([name, c]) => `printf("%s=%lld\\n", "${name}", (long long)(${c}));`);
    const includes = ['<stdio.h>', '<stddef.h>', '<linux/mount.h>', '<sys/resource.h>', `"${header}"`];
    const source = `${includes.map((each) => `#include ${each}`).join('\n')}\nint main(void) { ${prints.join('\n')} }\n`;
    writeFileSync(join(dir, 'ask.c'), source);
    execFileSync('gcc', ['-D_GNU_SOURCE', join(dir, 'ask.c'), '-o', join(dir, 'ask')], { stdio: 'pipe' });
    const lines = execFileSync(join(dir, 'ask'), { encoding: 'utf8' }).trim().split('\n');
    return new Map(lines.map((line) => [line.split('=')[0] ?? '', Number(line.split('=')[1])]));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const cName = (op: string): string => `OP_${op.toUpperCase().replaceAll('-', '_')}`;

describe('constants of launch plans', function () {
  this.timeout(30_000);

  it('agree with the C header', () => {
    const entries = [...Object.entries(outerTable), ...Object.entries(innerTable)] as [string, { code: number }][];
    const wanted = new Map<string, number>([
      ...entries.map(([op, { code }]): [string, number] => [cName(op), code]),
      ...namespaceKinds.map((kind, i): [string, number] => [`NAMESPACE_${kind.toUpperCase()}`, i]),
      ['NAMESPACE_KINDS', namespaceKinds.length],
      ['PLAN_VERSION', planVersion],
      ['PLAN_MAX_STEPS', maxSteps],
      ['sizeof(struct plan_step)', recordBytes],
      ['sizeof(struct plan_header)', 32],
      ['offsetof(struct plan_step, w)', 8],
      ['offsetof(struct plan_step, s)', 48],
      ['STEP_RECURSIVE', stepFlags.recursive],
      ['STEP_CREATE', stepFlags.create],
      ['STEP_CLAMP', stepFlags.clamp],
      ['STEP_TERMINAL', stepFlags.terminal],
      ['STEP_CONSOLE', stepFlags.console],
      ['STEP_COPY_UP', stepFlags.copyUp],
      ['STEP_DEEP_ATTRS', stepFlags.deepAttributes],
      ['STEP_DEEP_IDMAP', stepFlags.deepIdmap],
    ]);
    const found = askCompiler(new Map([...wanted.keys()].map((name) => [name, name])));
    assert.deepEqual(found, wanted);
  });

  it('agree with the kernel’s headers', () => {
    const { ATIME_MASK, ...attributes } = MOUNT_ATTR;
    const wanted = new Map<string, number>([
      ...Object.entries(MS).map(([name, value]): [string, number] => [`MS_${name}`, value]),
      ...Object.entries(attributes).map(([name, value]): [string, number] => [`MOUNT_ATTR_${name}`, value]),
      ['MOUNT_ATTR__ATIME', ATIME_MASK],
      ...[...RLIMIT].filter(([name]) => name !== 'RLIMIT_LOCKS'),
    ]);
    assert.deepEqual(askCompiler(new Map([...wanted.keys()].map((name) => [name, name]))), wanted);
  });
});
