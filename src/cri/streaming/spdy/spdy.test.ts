import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { deflateSync, constants } from 'node:zlib';
import { duplexPair } from '../../../../test/support/duplex-pair.js';
import { isKind } from '../../../kit/errors.js';
import { patient, type ReadAheadLimits } from '../read-ahead.js';
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
    new SpdyConnection(server, patient, (stream) => streams.push(stream));
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

  describe('with a stream whose reader lags', () => {
    const connect = (limits: ReadAheadLimits) => {
      const [server, client] = duplexPair();
      const streams: SpdyStream[] = [];
      new SpdyConnection(server, limits, (stream) => streams.push(stream));
      const reader = new SpdyFrameReader();
      const resets: number[] = [];
      client.on('data', (chunk: Buffer) => {
        for (const frame of reader.push(chunk)) {
          if (frame.kind === 'control' && frame.type === controlTypes.rstStream)
            resets.push(frame.payload.readUInt32BE(0));
        }
      });
      const encoder = new HeaderEncoder();
      const open = async (id: number): Promise<SpdyStream> => {
        client.write(controlFrame(controlTypes.synStream, 0, id, 0, Buffer.alloc(2), encoder.encode(new Map())));
        for (;;) {
          const stream = streams.find((each) => each.id === id);
          if (stream !== undefined) return stream;
          await new Promise(setImmediate);
        }
      };
      const send = (id: number, pieces: number): void => {
        for (let i = 0; i < pieces; i++) client.write(dataFrame(id, Buffer.alloc(32_768, id), i === pieces - 1));
      };
      return { server, client, open, send, resets };
    };
    const total = async (stream: SpdyStream): Promise<number> => {
      let length = 0;
      for await (const chunk of stream) length += (chunk as Buffer).length;
      return length;
    };

    it('goes on reading for the others', async () => {
      const { server, client, open, send } = connect(patient);
      const [slow, quick] = [await open(1), await open(3)];
      send(1, 20);
      send(3, 100);
      assert.equal(await total(quick), 100 * 32_768);
      assert.ok(slow.lagging && !server.isPaused());
      assert.equal(await total(slow), 20 * 32_768);
      client.destroy();
    });

    it('stops reading at a bound, and reads on as it is taken', async () => {
      const { server, client, open, send } = connect(patient);
      const stream = await open(1);
      send(1, 100);
      while (!server.isPaused()) await new Promise(setImmediate);
      assert.ok(stream.readableLength < 2 * patient.bytes);
      assert.equal(await total(stream), 100 * 32_768);
      assert.ok(!server.isPaused());
      client.destroy();
    });

    it('gives up the one that nobody reads and that keeps the others waiting', async () => {
      const { client, open, send, resets } = connect({ bytes: 512 << 10, stallMs: 20 });
      const [stuck, quick] = [await open(1), await open(3)];
      send(1, 100);
      send(3, 100);
      assert.equal(await total(quick), 100 * 32_768);
      assert.ok(stuck.destroyed);
      assert.equal(resets[0], 1);
      client.destroy();
    });

    it('forgets it with the connection', async () => {
      const { server, client, open, send } = connect({ bytes: 512 << 10, stallMs: 1_000_000 });
      const stuck = await open(1);
      send(1, 100);
      while (!server.isPaused()) await new Promise(setImmediate);
      client.destroy();
      while (!stuck.destroyed) await new Promise(setImmediate);
      // A timer left would keep mocha waiting here.
    });
  });
});
