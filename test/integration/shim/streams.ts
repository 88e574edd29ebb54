import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { join } from 'node:path';
import { isKind } from '../../../src/kit/errors.js';
import { containerPlan, joinLog, readLog, until, type Bench } from '../shim-harness.js';
import { rawAttach, rawHello } from './by-hand.js';

/** Attached streams and terminals. */
export function streamsSuite(current: () => Bench): void {
  let bench: Bench;
  beforeEach(() => (bench = current()));

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
    const withTerminal = (script: string): Uint8Array => containerPlan(['/bin/sh', '-c', script], { inner: terminal });

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
}
