import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { RuntimeError } from '../../src/kit/errors.js';
import { decodePlan, encodePlan } from '../../src/runtime/plan/wire.js';
import { goldenPlans } from '../support/plan/golden-plans.js';

const at = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const rounds = process.env['FUZZ_ROUNDS'] ?? '150000';
const seed = process.env['FUZZ_SEED'] ?? `${Date.now()}`;

describe('decoders of launch plans, given damaged ones', function () {
  this.timeout(180_000);
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'berth-fuzz-'));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it(`the shim’s never reads outside them (seed ${seed})`, () => {
    const binary = join(dir, 'plan-fuzz');
    const flags = [
      '-g',
      '-O1',
      '-fsanitize=address,undefined',
      '-fno-sanitize-recover=all',
      '-Wall',
      '-Wextra',
      '-Werror',
    ];
    execFileSync('gcc', [
      ...flags,
      '-D_GNU_SOURCE',
      at('test/fuzz/plan-fuzz.c'),
      at('src/native/shim/plan.c'),
      '-o',
      binary,
    ]);
    const files = goldenPlans().map(({ name, plan }) => {
      const file = join(dir, name);
      writeFileSync(file, encodePlan(plan));
      return file;
    });
    const text = execFileSync(binary, [rounds, seed, ...files], { encoding: 'utf8' });
    const passed = Number(text.split(' ')[0]);
    assert.ok(passed > 0 && passed < Number(rounds), text);
  });

  it('the agent’s throws `corrupt` or decodes', () => {
    let random = Number(BigInt(seed) % 2147483647n) || 1;
    const next = (below: number): number => (random = (random * 48271) % 2147483647) % below;
    for (const { plan } of goldenPlans()) {
      const bytes = encodePlan(plan);
      for (let round = 0; round < 300; round++) {
        const damaged = bytes.slice(0, next(8) === 0 ? next(bytes.length) : bytes.length);
        for (let change = 0; change < 3 && damaged.length > 0; change++) damaged[next(damaged.length)] = next(256);
        try {
          decodePlan(damaged);
        } catch (error) {
          assert.ok(error instanceof RuntimeError && error.kind === 'corrupt', `${error}`);
        }
      }
    }
  });
});
