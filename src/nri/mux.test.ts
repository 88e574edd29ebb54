import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { duplexPair } from '../../test/support/duplex-pair.js';
import { muxFrames, openMux, toMuxFrames } from './mux.js';

describe('mux', () => {
  it('writes channel and length in front of the data, big-endian', () => {
    assert.equal(Buffer.concat(toMuxFrames(2, Buffer.from('abc'))).toString('hex'), '0000000200000003616263');
  });

  it('reads frames however the stream is cut', () => {
    const bytes = Buffer.concat([...toMuxFrames(1, Buffer.from('first')), ...toMuxFrames(2, Buffer.from('second'))]);
    for (let size = 1; size <= bytes.length; size++) {
      const seen: string[] = [];
      const take = muxFrames((id, payload) => seen.push(`${id} ${payload.toString()}`));
      for (let at = 0; at < bytes.length; at += size) take(bytes.subarray(at, at + size));
      assert.deepEqual(seen, ['1 first', '2 second'], `pieces of ${size} bytes`);
    }
  });

  it('cuts what is longer than a frame may be', () => {
    const most = 10 + 4 * 2 ** 20;
    const frames = toMuxFrames(1, Buffer.alloc(most + 1));
    assert.deepEqual(
      frames.map((frame) => frame.length),
      [8, most, 8, 1],
    );
  });

  it('keeps channels apart and drops what nobody listens to', async () => {
    const [here, there] = duplexPair();
    const ours = openMux(here);
    const theirs = openMux(there);
    const seen: string[] = [];
    theirs.channel(1, (bytes) => seen.push(`1 ${bytes.toString()}`));
    theirs.channel(2, (bytes) => seen.push(`2 ${bytes.toString()}`));
    for (const id of [2, 3, 1]) ours.channel(id, () => undefined).send(Buffer.from('x'));
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    assert.deepEqual(seen, ['2 x', '1 x']);
  });

  it('ends a connection that sends a frame which is too long', async () => {
    const trunk = new PassThrough();
    const mux = openMux(trunk);
    const ended = new Promise<Error>((resolve) => mux.onClose(resolve));
    trunk.write(Buffer.from('0000000100500000', 'hex'));
    assert.match((await ended).message, /a frame of 5242880 bytes/);
    assert.throws(() => mux.channel(1, () => undefined).send(Buffer.from('x')), /a frame of/);
  });

  it('says that the other side has closed, also to who asks late', async () => {
    const [here, there] = duplexPair();
    const mux = openMux(here);
    const ended = new Promise<Error>((resolve) => mux.onClose(resolve));
    there.destroy();
    assert.match((await ended).message, /closed the connection/);
    let late = '';
    mux.onClose(({ message }) => (late = message));
    assert.match(late, /closed the connection/);
  });
});
