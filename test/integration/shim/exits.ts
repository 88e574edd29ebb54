import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { isKind } from '../../../src/kit/errors.js';
import { gatherKernelFacts } from '../../../src/native/kernel-facts.js';
import { PlanFailed } from '../../../src/runtime/launch/plan-failed.js';
import { childStates, containerPlan, hostPidPlan, newCall, openFiles, until, type Bench } from '../shim-harness.js';
import { badPlan } from './by-hand.js';

/** How the end of containers is told. */
export function exitsSuite(current: () => Bench): void {
  let bench: Bench;
  beforeEach(() => (bench = current()));

  describe('exits', () => {
    it('reports codes and signals, with a record on disk until it is forgotten', async () => {
      await bench.sh('code', 'exit 42');
      await bench.start('signal', containerPlan(['/bin/sleep', '1000']));
      await bench.shim.signal('signal', 9, false);
      assert.equal((await bench.exit('code')).code, 42);
      const killed = await bench.exit('signal');
      assert.equal(killed.code, 137);
      assert.ok(killed.finishedAt > 1_700_000_000_000_000_000n);
      assert.deepEqual(readdirSync(join(bench.dir, 'exits')).sort(), ['code', 'signal']);
      await bench.shim.forget('code');
      await bench.shim.forget('code');
      assert.deepEqual(readdirSync(join(bench.dir, 'exits')), ['signal']);
      const state = await bench.shim.state();
      assert.deepEqual(
        state.containers.map(({ containerId, exit }) => [containerId, exit?.code]),
        [['signal', 137]],
      );
    });

    it('tells of a program that ends at once after its start', async () => {
      const ids = Array.from({ length: 20 }, (_, index) => `c${index}`);
      await Promise.all(ids.map((id) => bench.start(id, containerPlan(['/bin/true']))));
      const exits = await Promise.all(ids.map((id) => bench.exit(id)));
      assert.ok(exits.every(({ code }) => code === 0));
    });

    it('names the step that failed and keeps nothing of the container', async () => {
      const before = openFiles(bench.shim.pid);
      await assert.rejects(bench.start('c', containerPlan(['/nonexistent'])), (error: unknown) => {
        assert.ok(error instanceof PlanFailed);
        assert.equal(error.failure.side, 'inner');
        assert.equal(error.failure.errnoName, 'ENOENT');
        return true;
      });
      assert.deepEqual((await bench.shim.state()).containers, []);
      assert.equal(openFiles(bench.shim.pid), before);
      await bench.sh('c', 'exit 0');
      await assert.rejects(bench.sh('c', 'exit 0'), (error) => isKind(error, 'already-exists'));
      await assert.rejects(bench.shim.start({ ...badPlan, logPath: '' }, newCall()), /EINVAL/);
    });

    it('tells which values had to be clamped', async () => {
      const inner = [{ op: 'oom-score', value: -1000, clamp: true }] as const;
      const { warnings } = await bench.start('c', containerPlan(['/bin/true'], { inner }));
      if (gatherKernelFacts(bench.native).canRaiseLimits) assert.deepEqual(warnings, []);
      else assert.match(warnings[0] ?? '', /oom.*: asked for -1000, -?\d+ is in force/i);
    });

    it('reaps strangers that are left to it', async () => {
      await bench.start('c', hostPidPlan(['/bin/sh', '-c', '(sleep 0.1 &) ; exit 0']));
      await bench.exit('c');
      await until(() => childStates(bench.shim.pid).size === 0, 'no child to be left');
    });

    it('refuses to forget what runs', async () => {
      await bench.start('c', containerPlan(['/bin/sleep', '1000']));
      await assert.rejects(bench.shim.forget('c'), (error) => isKind(error, 'wrong-state'));
    });
  });
}
