import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { isKind } from '../../src/kit/errors.js';
import { PlanFailed } from '../../src/runtime/launch/plan-failed.js';
import { gatherKernelFacts } from '../../src/native/kernel-facts.js';
import { FrameSplitter, PayloadReader, frameTypes, okBit, type Frame } from '../../src/runtime/launch/frames.js';
import { openSupervisor, readExitRecords } from '../../src/runtime/launch/supervisor.js';
import {
  build,
  childStates,
  containerPlan,
  hostPidPlan,
  joinLog,
  joinPlan,
  memory,
  newCall,
  openBench,
  openFiles,
  parseLog,
  readLog,
  sandboxPlan,
  until,
  type Bench,
  type Build,
} from './shim-harness.js';

/** What every build of the shim must do. */
export function shimSuite(which: Build): void {
  describe(which.name, function () {
    this.timeout(120_000);
    let bench: Bench;

    before(() => build(which));
    beforeEach(async () => (bench = await openBench(which)));
    afterEach(async () => bench.close());

    describe('logs', () => {
      it('writes one record a line, with stream, tag and time', async () => {
        const before = new Date().toISOString();
        await bench.sh('c', 'echo one; echo two >&2; echo; printf end');
        await bench.exit('c');
        const records = readLog(bench.logPath('c'));
        assert.deepEqual(
          records.filter(({ stream }) => stream === 'stdout').map(({ tag, text }) => `${tag} ${text.toString()}`),
          ['F one', 'F ', 'P end'],
        );
        assert.equal(joinLog(records, 'stderr').toString(), 'two\n');
        for (const { time } of records) {
          assert.ok(time.slice(0, 23) >= before.slice(0, 23) && time.slice(0, 23) <= new Date().toISOString(), time);
        }
        assert.equal(statSync(bench.logPath('c')).mode & 0o777, 0o640);
      });

      it('splits long lines and joins to the same bytes, whatever they are', async () => {
        const file = join(bench.dir, 'data');
        const lines = [16383, 16384, 16385, 0, 40000, 32768, 1].map((length) => Buffer.alloc(length, 'x'));
        const data = Buffer.concat([...lines.flatMap((line) => [line, Buffer.from('\n')]), randomBytes(300_000)]);
        writeFileSync(file, data);
        await bench.start('c', containerPlan(['/bin/cat', file]));
        await bench.exit('c');
        const records = readLog(bench.logPath('c'));
        assert.ok(joinLog(records).equals(data));
        assert.deepEqual(
          records.slice(0, 11).map(({ tag, text }) => [tag, text.length]),
          [
            ['F', 16383],
            ['F', 16384],
            ['P', 16384],
            ['F', 1],
            ['F', 0],
            ['P', 16384],
            ['P', 16384],
            ['F', 7232],
            ['P', 16384],
            ['F', 16384],
            ['F', 1],
          ],
        );
      });

      it('joins a line that was written in pieces, with a bound of its own', async () => {
        await bench.sh('c', 'printf ab; sleep 0.1; printf cd; sleep 0.1; echo efghij', { logLineBytes: 6 });
        await bench.exit('c');
        assert.deepEqual(
          readLog(bench.logPath('c')).map(({ tag, text }) => `${tag} ${text.toString()}`),
          ['P abcdef', 'F ghij'],
        );
      });

      it('loses and doubles no line when the file is rotated under load', async () => {
        const count = which.sanitized ? 30_000 : 200_000;
        await bench.sh('c', `i=0; while [ $i -lt ${count} ]; do i=$((i+1)); echo line $i; done`);
        const rotated: string[] = [];
        while (!bench.exits.has('c')) {
          const aside = join(bench.dir, `c.log.${rotated.length}`);
          renameSync(bench.logPath('c'), aside);
          rotated.push(aside);
          await bench.shim.reopenLog('c');
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
        const text = [...rotated, bench.logPath('c')].map((path) => joinLog(readLog(path)).toString()).join('');
        assert.ok(rotated.length > 1);
        assert.equal(text, Array.from({ length: count }, (_, index) => `line ${index + 1}\n`).join(''));
      });

      it('keeps the old file when the new one cannot be opened', async () => {
        const path = join(bench.dir, 'logs', 'c.log');
        await assert.rejects(bench.sh('c', 'true', { logPath: path }), /open container log: ENOENT/);
        await bench.sh('c', 'read x; echo more', { stdin: true, stdinOnce: true });
        renameSync(bench.logPath('c'), `${bench.logPath('c')}.1`);
        writeFileSync(`${bench.logPath('c')}.target`, '');
        symlinkSync(`${bench.logPath('c')}.target`, bench.logPath('c'));
        await assert.rejects(bench.shim.reopenLog('c'), /reopen container log: ELOOP/);
        const streams = await bench.shim.attach('c');
        await streams.write(Buffer.from('go\n'));
        await bench.exit('c');
        streams.close();
        assert.equal(joinLog(readLog(`${bench.logPath('c')}.1`)).toString(), 'more\n');
        assert.equal(readFileSync(`${bench.logPath('c')}.target`, 'utf8'), '');
      });

      it('drops output, never the container, while the disk is full', async () => {
        const small = join(bench.dir, 'small');
        mkdirSync(small);
        bench.native.mounts.mount('tmpfs', small, 'tmpfs', 0, 'size=64k');
        try {
          const logPath = join(small, 'c.log');
          await bench.sh('c', 'head -c 1000000 /dev/zero | tr "\\0" "a" | fold -w 99; read x; echo after', {
            logPath,
            stdin: true,
            stdinOnce: true,
          });
          const streams = await bench.shim.attach('c');
          for (let dropped = 0n; dropped < 940_000n;) {
            dropped = (await bench.shim.state()).containers[0]?.droppedBytes ?? 0n;
          }
          parseLog(readFileSync(logPath));
          unlinkSync(logPath);
          await bench.shim.reopenLog('c');
          await streams.write(Buffer.from('\n'));
          assert.equal((await bench.exit('c')).code, 0);
          streams.close();
          const tail = joinLog(readLog(logPath)).toString();
          assert.ok(tail.endsWith('after\n'), tail.slice(-50));
          const dropped = (await bench.shim.state()).containers[0]?.droppedBytes ?? 0n;
          assert.ok(dropped > 800_000n && dropped < 1_020_000n, String(dropped));
          await bench.shim.forget('c');
        } finally {
          bench.native.mounts.unmountNow(small, 2);
        }
      });

      it('goes on while no agent is there', async () => {
        await bench.sh('c', 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done; exit 5');
        bench.shim.disconnect();
        await until(() => existsSync(join(bench.dir, 'exits', 'c')), 'the exit record');
        await bench.reconnect();
        const exit = await bench.exit('c');
        assert.equal(exit.code, 5);
        assert.equal(readLog(bench.logPath('c')).length, 20_000);
        assert.deepEqual(await readExitRecords(bench.dir), [exit]);
      });

      it('does not wait for a child that keeps the streams, and logs what it says later', async () => {
        await bench.start('c', hostPidPlan(['/bin/sh', '-c', '(sleep 0.3; echo late) & echo early']));
        await bench.exit('c');
        assert.equal(joinLog(readLog(bench.logPath('c'))).toString(), 'early\n');
        await until(() => joinLog(readLog(bench.logPath('c'))).toString() === 'early\nlate\n', 'the late line');
      });
    });

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

    describe('attach', () => {
      it('passes output to the reader and input to the program', async () => {
        await bench.sh('c', 'while read line; do echo "got $line"; done; echo end >&2', {
          stdin: true,
          stdinOnce: true,
        });
        const streams = await bench.shim.attach('c');
        const seen: string[] = [];
        streams.onOutput((stream, data) => seen.push(`${stream} ${Buffer.from(data).toString()}`));
        await streams.write(Buffer.from('a\n'));
        await until(() => seen.join('').includes('got a'), 'an answer');
        await streams.write(Buffer.from('b\n'));
        streams.end();
        await streams.ended;
        assert.equal((await bench.exit('c')).code, 0);
        assert.equal(seen.filter((line) => line.startsWith('stdout')).join(''), 'stdout got a\nstdout got b\n');
        assert.ok(seen.includes('stderr end\n'));
        assert.equal(joinLog(readLog(bench.logPath('c'))).toString(), 'got a\ngot b\n');
        streams.close();
      });

      it('hands over input larger than a pipe, and says when nobody reads', async () => {
        await bench.sh('c', 'wc -c', { stdin: true, stdinOnce: true });
        const streams = await bench.shim.attach('c');
        await streams.write(Buffer.alloc(1_000_000));
        streams.end();
        await bench.exit('c');
        assert.equal(
          joinLog(readLog(bench.logPath('c')))
            .toString()
            .trim(),
          '1000000',
        );
        await assert.rejects(streams.write(Buffer.from('x')), /stdin is closed|no such program/);
        streams.close();
      });

      it('never lets a slow reader stop the container', async () => {
        await bench.sh('c', 'read x; head -c 5000000 /dev/zero', { stdin: true, stdinOnce: true });
        const slow = connect(join(bench.dir, 'shim.sock'));
        slow.pause();
        slow.write(rawHello);
        slow.write(rawAttach('c'));
        const streams = await bench.shim.attach('c');
        await streams.write(Buffer.from('\n'));
        await bench.exit('c');
        slow.destroy();
        streams.close();
        assert.equal(joinLog(readLog(bench.logPath('c'))).length, 5_000_000);
      });
    });

    describe('terminals', () => {
      const terminal = [{ op: 'session', terminal: true, console: false }] as const;
      const withTerminal = (script: string): Uint8Array =>
        containerPlan(['/bin/sh', '-c', script], { inner: terminal });

      it('log what programs see as a terminal, carriage returns included', async () => {
        await bench.start('c', withTerminal('test -t 0 && test -t 1 && echo yes; echo err >&2; exit 4'), {
          terminal: true,
        });
        assert.equal((await bench.exit('c')).code, 4);
        await until(() => readLog(bench.logPath('c')).length >= 2, 'both lines');
        assert.equal(joinLog(readLog(bench.logPath('c'))).toString('latin1'), 'yes\r\nerr\r\n');
      });

      it('have a size and take input', async () => {
        await bench.start('c', withTerminal('read x; stty size; read x; echo "got $x"'), {
          terminal: true,
          stdin: true,
        });
        await bench.shim.resize('c', 33, 77);
        const streams = await bench.shim.attach('c');
        await streams.write(Buffer.from('\n'));
        await until(() => joinLog(readLog(bench.logPath('c'))).includes('33 77'), 'the size');
        await streams.write(Buffer.from('word\n'));
        await streams.ended;
        assert.equal((await bench.exit('c')).code, 0);
        assert.ok(joinLog(readLog(bench.logPath('c'))).includes('got word\r\n'));
        streams.close();
        await assert.rejects(bench.shim.resize('c', 1, 1), (error) => isKind(error, 'not-found'));
      });
    });

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
        const { pid } = await bench.start(
          'c',
          containerPlan(['/bin/sh', '-c', 'trap "" TERM; sleep 1000; sleep 1000']),
        );
        const shim = bench.shim.pid;
        await bench.supervisor.kill('pod-of-test', bench.dir);
        assert.equal(bench.native.processes.startTime(pid), undefined);
        assert.ok(!existsSync(join(bench.dir, 'shim.sock')));
        await until(() => bench.native.processes.startTime(shim) === undefined, 'its end');
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
        if (which.sanitized) return this.skip();
        const { pid } = bench.shim;
        const [pss, anonymous] = [memory(pid, 'Pss'), memory(pid, 'Pss_Anon')];
        console.log(
          `      idle: PSS ${pss} KiB alone, of it ${anonymous} KiB private; the rest is the program, shared by all`,
        );
        assert.ok(pss <= 200 && anonymous <= 64, `PSS ${pss} KiB, anonymous ${anonymous} KiB`);
      });
    });
  });
}

const golden = JSON.parse(readFileSync(new URL('../golden/protocol/v1.json', import.meta.url), 'utf8')) as Record<
  string,
  string
>;

/** Whether a process of this number and name runs; a zombie does not. */
function aliveAs(pid: number, name: string): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.includes(`(${name})`) && !stat.includes(') Z ');
  } catch {
    return false;
  }
}

const badPlan = {
  containerId: 'bad',
  plan: Buffer.from('this is not a plan, whatever it says about itself'),
  logLineBytes: 0,
  stdin: false,
  stdinOnce: false,
  terminal: false,
  oomFile: '',
};

function frame(type: number, id: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt32LE(8 + payload.length, 0);
  header.writeUInt16LE(type, 4);
  header.writeUInt32LE(id, 8);
  return Buffer.concat([header, payload]);
}

const string = (text: string): Buffer => {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([length, bytes]);
};

const rawHello = frame(1, 1, Buffer.concat([Buffer.from([1, 0, 0, 0]), string('raw'), Buffer.alloc(4)]));
const rawAttach = (id: string): Buffer => frame(11, 2, string(id));

/** Golden frames with bytes changed or cut off, in any order, and sometimes bytes that are no frame at all. */
function nonsense(): Buffer {
  if (randomInt(10) === 0) return randomBytes(200);
  const seeds = Object.entries(golden).filter(([name]) => name !== 'shutdown');
  return Buffer.concat(
    Array.from({ length: 20 }, () => {
      const bytes = Buffer.from(seeds[randomInt(seeds.length)]?.[1] ?? '', 'hex');
      for (let change = randomInt(4); change > 0 && bytes.length > 12; change--) {
        bytes[12 + randomInt(bytes.length - 12)] = randomInt(256);
      }
      const cut = bytes.subarray(
        0,
        randomInt(5) === 0 ? Math.min(bytes.length, 12 + randomInt(bytes.length)) : bytes.length,
      );
      cut.writeUInt32LE(cut.length - 4, 0);
      return cut;
    }),
  );
}

/** RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP. */
const getLinks = ((): Buffer => {
  const message = Buffer.alloc(32);
  message.writeUInt32LE(32, 0);
  message.writeUInt16LE(18, 4);
  message.writeUInt16LE(0x301, 6);
  message.writeUInt32LE(1, 8);
  return message;
})();

/** IFLA_IFNAME of each RTM_NEWLINK. */
function linkNames(answer: Buffer): string[] {
  const names: string[] = [];
  for (let at = 0; at + 16 <= answer.length;) {
    const length = answer.readUInt32LE(at);
    for (let attribute = at + 32; answer.readUInt16LE(at + 4) === 16 && attribute + 4 <= at + length;) {
      const size = answer.readUInt16LE(attribute);
      if (answer.readUInt16LE(attribute + 2) === 3)
        names.push(answer.toString('latin1', attribute + 4, attribute + size - 1));
      attribute += (size + 3) & ~3;
    }
    at += (length + 3) & ~3;
  }
  return names;
}
