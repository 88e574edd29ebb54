import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { deflateSync, constants } from 'node:zlib';
import { duplexPair } from '../../../../test/support/duplex-pair.js';
import { isKind } from '../../../kit/errors.js';
import { SpdyConnection } from './connection.js';
import { headerDictionary } from './dictionary.js';
import { SpdyFrameReader, controlFrame, controlTypes, dataFrame } from './frames.js';
import { HeaderDecoder, HeaderEncoder } from './headers.js';
import type { SpdyStream } from './stream.js';

describe('SPDY', () => {
  it('has the dictionary of the protocol', () => {
    assert.equal(headerDictionary.length, 1423);
    assert.equal(createHash('sha256').update(headerDictionary).digest('hex').slice(0, 16), '51d27341373f923f');
  });

  it('carries headers through one compression over many blocks', () => {
    const [encoder, decoder] = [new HeaderEncoder(), new HeaderDecoder()];
    for (let i = 0; i < 200; i++) {
      const headers = new Map([
        ['streamtype', i % 2 === 0 ? 'data' : 'error'],
        ['port', '8080'],
        ['requestid', String(i)],
        ['filler', String(i).repeat(300)],
      ]);
      assert.deepEqual(decoder.decode(encoder.encode(headers)), headers);
    }
  });

  it('reads what a zlib stream with the dictionary holds', () => {
    const block = Buffer.from(
      '00000001' + '0000000a' + Buffer.from('StreamType').toString('hex') + '0000000573746469 6e'.replace(' ', ''),
      'hex',
    );
    const packed = deflateSync(block, { dictionary: headerDictionary, finishFlush: constants.Z_SYNC_FLUSH });
    assert.deepEqual(new HeaderDecoder().decode(packed), new Map([['streamtype', 'stdin']]));
  });

  it('refuses blocks that are damaged or swell', () => {
    const bad = (error: unknown): boolean => isKind(error, 'invalid-argument');
    assert.throws(() => new HeaderDecoder().decode(Buffer.from('not zlib')), bad);
    assert.throws(() => new HeaderDecoder().decode(Buffer.alloc(0)), bad);
    const bomb = deflateSync(Buffer.alloc(1 << 20), { dictionary: headerDictionary });
    assert.throws(() => new HeaderDecoder().decode(bomb), bad);
    const short = deflateSync(Buffer.from('0000000100000005', 'hex'), { dictionary: headerDictionary });
    assert.throws(() => new HeaderDecoder().decode(short), bad);
  });

  it('cuts frames out of any pieces', () => {
    const bytes = Buffer.concat([
      dataFrame(1, Buffer.from('hello'), false),
      controlFrame(controlTypes.ping, 0, 7),
      dataFrame(1, Buffer.alloc(0), true),
    ]);
    for (const size of [1, 3, 8, 100]) {
      const reader = new SpdyFrameReader();
      const frames = [];
      for (let at = 0; at < bytes.length; at += size) frames.push(...reader.push(bytes.subarray(at, at + size)));
      assert.deepEqual(
        frames.map((frame) => (frame.kind === 'data' ? frame.data.toString() + frame.fin : frame.type)),
        ['hellofalse', controlTypes.ping, 'true'],
      );
    }
  });

  it('answers pings and refuses a stream number that was used', async () => {
    const [server, client] = duplexPair();
    const streams: SpdyStream[] = [];
    new SpdyConnection(server, (stream) => streams.push(stream));
    const encoder = new HeaderEncoder();
    const open = (id: number): Buffer =>
      controlFrame(controlTypes.synStream, 0, id, 0, Buffer.alloc(2), encoder.encode(new Map([['streamtype', 'x']])));
    client.write(Buffer.concat([open(1), controlFrame(controlTypes.ping, 0, 41), open(1), open(3)]));
    const reader = new SpdyFrameReader();
    const types: number[] = [];
    client.on('data', (chunk: Buffer) => {
      for (const frame of reader.push(chunk)) if (frame.kind === 'control') types.push(frame.type);
    });
    while (types.length < 4) await new Promise(setImmediate);
    assert.deepEqual(types, [controlTypes.synReply, controlTypes.ping, controlTypes.rstStream, controlTypes.synReply]);
    assert.deepEqual(
      streams.map(({ id }) => id),
      [1, 3],
    );
    client.destroy();
  });

  it('stops reading while a stream’s reader lags, and reads on after', async () => {
    const [server, client] = duplexPair();
    let stream: SpdyStream | undefined;
    new SpdyConnection(server, (opened) => (stream = opened));
    client.resume();
    client.write(controlFrame(controlTypes.synStream, 0, 1, 0, Buffer.alloc(2), new HeaderEncoder().encode(new Map())));
    const pieces = 100;
    for (let i = 0; i < pieces; i++) client.write(dataFrame(1, Buffer.alloc(32_768), i === pieces - 1));
    while (stream?.choked !== true) await new Promise(setImmediate);
    assert.ok(server.isPaused());
    let total = 0;
    for await (const chunk of stream) total += (chunk as Buffer).length;
    assert.equal(total, pieces * 32_768);
    client.destroy();
  });
});
