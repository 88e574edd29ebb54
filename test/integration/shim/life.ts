import assert from 'node:assert/strict';
import { existsSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { isKind } from '../../../src/kit/errors.js';
import { FrameSplitter, PayloadReader, frameTypes, okBit, type Frame } from '../../../src/runtime/launch/frames.js';
import { openSupervisor } from '../../../src/runtime/launch/supervisor.js';
import {
  childStates,
  containerPlan,
  hostPidPlan,
  memory,
  newCall,
  sandboxPlan,
  until,
  type Bench,
  type Build,
} from '../shim-harness.js';
import { aliveAs, getLinks, golden, linkNames, nonsense, rawHello } from './by-hand.js';
import { skip } from '../../support/skip.js';

/** The pod's namespaces, and the life of the shim itself. */
export function lifeSuite(current: () => Bench, which: Build): void {
  let bench: Bench;
  beforeEach(() => (bench = current()));

  describe('pod', () => {
    it('holds namespaces, speaks netlink inside them, and knows its pause process', async () => {
      await assert.rejects(bench.shim.netlink([getLinks]), (error) => isKind(error, 'wrong-state'));
      const { pausePid } = await bench.shim.hold(sandboxPlan(true), newCall());
      assert.ok(pausePid > 0);
      assert.equal((await bench.shim.state()).pausePid, pausePid);
      const [answer] = await bench.shim.netlink([getLinks]);
      const names = linkNames(Buffer.from(answer ?? []));
      assert.ok(names.includes('lo') && !names.some((name) => name.startsWith('eth')), names.join());
      await assert.rejects(bench.shim.hold(sandboxPlan(true), newCall()), (error) => isKind(error, 'already-exists'));
    });

    it('needs no process to hold namespaces', async () => {
      assert.equal((await bench.shim.hold(sandboxPlan(false), newCall())).pausePid, 0);
      await until(() => childStates(bench.shim.pid).size === 0, 'no child to be left');
      assert.equal((await bench.shim.netlink([getLinks, getLinks])).length, 2);
    });
  });

  describe('life', () => {
    it('ends with everything it holds when told to', async () => {
      await bench.shim.hold(sandboxPlan(true), newCall());
      const { pid } = await bench.start('c', containerPlan(['/bin/sh', '-c', 'trap "" TERM; sleep 1000; sleep 1000']));
      const shim = bench.shim.pid;
      await bench.supervisor.kill('pod-of-test', bench.dir);
      assert.equal(bench.native.processes.startTime(pid), undefined);
      assert.ok(!existsSync(join(bench.dir, 'shim.sock')));
      await until(() => !aliveAs(shim, 'berth-shim'), 'its end');
      assert.equal(await bench.supervisor.connect('pod-of-test', bench.dir), undefined);
      await bench.supervisor.kill('pod-of-test', bench.dir);
    });

    it('rejects what waits when the shim dies', async () => {
      await bench.start('c', hostPidPlan(['/bin/sleep', '3']));
      const gone = new Promise<string>((resolve) => bench.shim.onGone(resolve));
      const pending = bench.shim.execSync(
        { containerId: 'c', plan: containerPlan(['/bin/sleep', '3']), timeoutMs: 0, limitBytes: 10, drainMs: 0 },
        newCall(),
      );
      bench.native.processes.kill(bench.shim.pid, 9);
      await assert.rejects(pending, (error) => isKind(error, 'unavailable'));
      assert.match(await gone, /closed|ECONNRESET/);
      await assert.rejects(bench.shim.state(), (error) => isKind(error, 'unavailable'));
    });

    it('takes its pause process along when it dies', async () => {
      const { pausePid } = await bench.shim.hold(sandboxPlan(true), newCall());
      bench.native.processes.kill(bench.shim.pid, 9);
      await until(() => !aliveAs(pausePid, 'berth-pause'), 'the end of the pause process');
    });

    it('is ended by force when it does not answer', async () => {
      await bench.start('c', containerPlan(['/bin/sleep', '1000']));
      bench.native.processes.kill(bench.shim.pid, 19);
      const impatient = openSupervisor({
        native: bench.native,
        binary: which.binary,
        env: which.env,
        answerTimeoutMs: 200,
      });
      await impatient.kill('pod-of-test', bench.dir);
      await until(() => !aliveAs(bench.shim.pid, 'berth-shim'), 'its end');
      assert.equal(await impatient.connect('pod-of-test', bench.dir), undefined);
      impatient.close();
    });

    it('understands the golden frames of version 1', async () => {
      await bench.sh('c1', 'cat', { stdin: true, stdinOnce: true });
      const socket = connect(join(bench.dir, 'shim.sock'));
      const splitter = new FrameSplitter();
      const answers = new Map<number, Frame>();
      socket.on('data', (chunk) => splitter.push(chunk).forEach((answer) => answers.set(answer.id, answer)));
      const ask = async (name: string): Promise<Frame> => {
        const frame = Buffer.from(golden[name] ?? '', 'hex');
        const id = frame.readUInt32LE(8);
        answers.delete(id);
        socket.write(frame);
        return await until(() => answers.get(id), `an answer to ${name}`);
      };
      const plain = ['hello', 'state', 'reopenLog', 'attach', 'input', 'closeInput', 'cancel'] as const;
      for (const name of plain) assert.equal((await ask(name)).type, frameTypes[name] | okBit, name);
      // Well formed, and refused for what they say: these plans are none, this container has no terminal.
      for (const name of ['hold', 'start', 'exec', 'netlink', 'resize'] as const) {
        const answer = await ask(name);
        assert.equal(answer.type, frameTypes.error, name);
        assert.ok(!new PayloadReader(answer.payload.subarray(16)).string().startsWith('malformed'), name);
      }
      await bench.exit('c1');
      assert.equal((await ask('signal')).type, frameTypes.signal | okBit);
      assert.equal((await ask('forget')).type, frameTypes.forget | okBit);
      assert.equal((await ask('shutdown')).type, frameTypes.shutdown | okBit);
      socket.destroy();
    });

    it('serves several agents and survives senders of nonsense', async () => {
      await bench.start('c', containerPlan(['/bin/sleep', '1000']));
      for (let round = 0; round < 200; round++) {
        await new Promise<void>((resolve) => {
          const socket = connect(join(bench.dir, 'shim.sock'));
          socket.on('error', () => resolve());
          socket.on('close', () => resolve());
          if (round % 5 > 0) socket.write(rawHello);
          socket.end(nonsense());
          socket.resume();
        });
      }
      const other = await bench.supervisor.connect('pod-of-test', bench.dir);
      assert.equal((await other?.state())?.containers.length, 1);
      other?.disconnect();
      assert.equal((await bench.shim.state()).containers.length, 1);
      await assert.rejects(bench.supervisor.connect('another', bench.dir), /serves pod/);
    });

    it('lets nobody else in', () => {
      assert.equal(statSync(join(bench.dir, 'shim.sock')).mode & 0o777, 0o600);
    });

    it('costs little', function () {
      if (which.sanitized) skip(this, 'sanitizers cost memory');
      const { pid } = bench.shim;
      const [pss, anonymous] = [memory(pid, 'Pss'), memory(pid, 'Pss_Anon')];
      console.log(
        `      idle: PSS ${pss} KiB alone, of it ${anonymous} KiB private; the rest is the program, shared by all`,
      );
      assert.ok(pss <= 200 && anonymous <= 64, `PSS ${pss} KiB, anonymous ${anonymous} KiB`);
    });
  });
}
