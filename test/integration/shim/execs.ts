import assert from 'node:assert/strict';
import { isKind } from '../../../src/kit/errors.js';
import {
  childStates,
  containerPlan,
  joinPlan,
  memory,
  newCall,
  openFiles,
  until,
  type Bench,
  type Build,
} from '../shim-harness.js';

/** Commands run in containers. */
export function execsSuite(current: () => Bench, which: Build): void {
  let bench: Bench;
  beforeEach(() => (bench = current()));

  describe('exec', () => {
    beforeEach(() => bench.start('c', containerPlan(['/bin/sleep', '1000'])));

    it('answers with output and exit code', async () => {
      const result = await bench.exec('c', ['/bin/sh', '-c', 'echo out; echo err >&2; exit 3']);
      assert.equal(Buffer.from(result.stdout).toString(), 'out\n');
      assert.equal(Buffer.from(result.stderr).toString(), 'err\n');
      assert.equal(result.exitCode, 3);
      assert.equal(result.timedOut, false);
      assert.equal((await bench.exec('c', ['/bin/sh', '-c', 'kill -TERM $$'])).exitCode, 143);
    });

    it('carries large output whole, and no more than the limit', async () => {
      const script = 'head -c 3000000 /dev/zero; head -c 500000 /dev/zero >&2';
      const whole = await bench.exec('c', ['/bin/sh', '-c', script]);
      assert.deepEqual([whole.stdout.length, whole.stderr.length], [3_000_000, 500_000]);
      const cut = await bench.exec('c', ['/bin/sh', '-c', script], { limitBytes: 100_001 });
      assert.deepEqual([cut.stdout.length, cut.stderr.length, cut.exitCode], [100_001, 100_001, 0]);
    });

    it('kills the whole tree of a command whose time is over, and only that', async () => {
      const script = 'trap "" TERM; sleep 987 & (setsid sleep 988 &) ; sleep 989';
      const result = await bench.exec('c', ['/bin/sh', '-c', script], {
        timeoutMs: 300,
        plan: joinPlan('c', ['/bin/sh', '-c', script], [{ op: 'session', terminal: false, console: false }]),
      });
      assert.equal(result.timedOut, true);
      const left = (await bench.exec('c', ['/bin/sh', '-c', 'ps -eo args 2>/dev/null || true'])).stdout;
      assert.ok(!Buffer.from(left).includes('sleep 987'));
      assert.ok(!Buffer.from(left).includes('sleep 989'));
      assert.equal((await bench.shim.state()).containers[0]?.exit, undefined);
      assert.equal((await bench.exec('c', ['/bin/true'])).exitCode, 0);
    });

    it('does not wait for a background child beyond the drain time', async () => {
      const result = await bench.exec('c', ['/bin/sh', '-c', 'sleep 30 & echo started'], { drainMs: 100 });
      assert.equal(Buffer.from(result.stdout).toString(), 'started\n');
      assert.equal(result.exitCode, 0);
      const late = await bench.exec('c', ['/bin/sh', '-c', '(sleep 0.2; echo late) & echo early'], {
        drainMs: 10_000,
      });
      assert.equal(Buffer.from(late.stdout).toString(), 'early\nlate\n');
    });

    it('is cancelled with its caller', async () => {
      const controller = new AbortController();
      const pending = bench.shim.execSync(
        { containerId: 'c', plan: joinPlan('c', ['/bin/sleep', '986']), timeoutMs: 0, limitBytes: 1000, drainMs: 0 },
        { ...newCall(), signal: controller.signal },
      );
      await until(() => childStates(bench.shim.pid).size === 2, 'the command');
      controller.abort();
      await assert.rejects(pending, (error) => isKind(error, 'cancelled'));
      await until(() => childStates(bench.shim.pid).size === 1, 'its end');
    });

    it('refuses containers that do not run', async () => {
      await assert.rejects(bench.exec('unknown', ['/bin/true']), (error) => isKind(error, 'not-found'));
      await bench.shim.signal('c', 9, false);
      await bench.exit('c');
      await assert.rejects(bench.exec('c', ['/bin/true']), (error) => isKind(error, 'wrong-state'));
    });

    it('runs many at once', async () => {
      const results = await Promise.all(
        Array.from({ length: 30 }, (_, index) => bench.exec('c', ['/bin/sh', '-c', `echo ${index}; exit ${index}`])),
      );
      results.forEach((result, index) => {
        assert.equal(Buffer.from(result.stdout).toString(), `${index}\n`);
        assert.equal(result.exitCode, index);
      });
    });

    it('leaves no descriptor and no memory behind', async () => {
      const rounds = which.sanitized ? 200 : 2000;
      const run = async (count: number): Promise<void> => {
        for (let done = 0; done < count; done += 10) {
          await Promise.all(Array.from({ length: 10 }, () => bench.exec('c', ['/bin/true'])));
        }
      };
      await run(100);
      await bench.shim.state(); // answered after everything before it is put away
      const [files, dirty] = [openFiles(bench.shim.pid), memory(bench.shim.pid, 'Private_Dirty')];
      await run(rounds);
      await bench.shim.state();
      assert.equal(openFiles(bench.shim.pid), files);
      if (!which.sanitized) {
        const grown = memory(bench.shim.pid, 'Private_Dirty') - dirty;
        assert.ok(grown <= 24, `grew by ${grown} KiB over ${rounds} execs`);
      }
    });
  });
}
