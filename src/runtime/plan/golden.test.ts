import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { goldenPlans } from '../../../test/support/plan/golden-plans.js';
import { explainPlan } from './explain.js';
import { decodePlan, encodePlan } from './wire.js';

const fileOf = (name: string): string =>
  fileURLToPath(new URL(`../../../test/golden/plan/${name}.txt`, import.meta.url));

/** UPDATE_GOLDEN=1 writes the files anew; read the difference before it is committed. */
describe('launch plans', () => {
  for (const { name, plan } of goldenPlans()) {
    it(`${name} reads as its golden file says`, () => {
      const text = explainPlan(plan);
      if (process.env['UPDATE_GOLDEN'] === '1') {
        mkdirSync(dirname(fileOf(name)), { recursive: true });
        writeFileSync(fileOf(name), text);
      }
      assert.equal(text, readFileSync(fileOf(name), 'utf8'));
    });

    it(`${name} comes back from the wire as it went`, () => {
      assert.deepEqual(decodePlan(encodePlan(plan)), withKindsInOrder(plan));
    });
  }
});

/** Sets of namespaces have no order on the wire. */
function withKindsInOrder(plan: ReturnType<typeof decodePlan>): ReturnType<typeof decodePlan> {
  const order = ['pid', 'net', 'ipc', 'uts', 'mnt', 'user', 'cgroup', 'time'];
  const sorted = <T extends string>(kinds: readonly T[]): T[] =>
    [...kinds].sort((a, b) => order.indexOf(a) - order.indexOf(b));
  return {
    ...plan,
    outer: plan.outer.map((step) => {
      if (step.op === 'clone') return { ...step, create: sorted(step.create) };
      return step.op === 'hold-namespaces' ? { ...step, kinds: sorted(step.kinds) } : step;
    }),
  };
}
