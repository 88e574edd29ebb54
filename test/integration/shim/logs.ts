import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { readExitRecords } from '../../../src/runtime/launch/supervisor.js';
import {
  containerPlan,
  hostPidPlan,
  joinLog,
  parseLog,
  readLog,
  until,
  type Bench,
  type Build,
} from '../shim-harness.js';

/** What the shim writes of what containers say. */
export function logsSuite(current: () => Bench, which: Build): void {
  let bench: Bench;
  beforeEach(() => (bench = current()));

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
}
