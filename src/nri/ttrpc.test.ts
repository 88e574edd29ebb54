import assert from 'node:assert/strict';
import {
  PluginDefinition,
  RuntimeDefinition,
  type RegisterPluginRequest,
} from '../../api/nri/v1alpha1/generated/api.js';
import { RuntimeError, isKind } from '../kit/errors.js';
import {
  TtrpcTimeout,
  encodeFrame,
  maxMessageBytes,
  ttrpcClient,
  ttrpcFrames,
  ttrpcHandler,
  ttrpcServer,
  type TtrpcClient,
  type TtrpcHandler,
} from './ttrpc.js';

const service = RuntimeDefinition.fullName;
const { registerPlugin, updateContainers } = RuntimeDefinition.methods;
const request: RegisterPluginRequest = { pluginName: 'a', pluginIdx: '10', nriVersion: '' };

/** A client whose calls go straight to a server with these handlers. */
function connected(handlers: readonly TtrpcHandler[]): TtrpcClient {
  const client: TtrpcClient = ttrpcClient(() => ({ send: (bytes) => serve(Buffer.from(bytes)) }));
  const serve = ttrpcServer(handlers, () => ({ send: (bytes) => client.receive(Buffer.from(bytes)) }));
  return client;
}

describe('ttrpc', () => {
  it('writes length, stream, type and flags in front of the message', () => {
    const frame = encodeFrame({ stream: 3, type: 1, flags: 2, data: Buffer.from('ab') });
    assert.equal(frame.toString('hex'), '000000020000000301026162');
  });

  it('reads frames however the stream is cut', () => {
    const frames = [
      { stream: 1, type: 2, flags: 0, data: Buffer.from('first') },
      { stream: 3, type: 2, flags: 1, data: Buffer.alloc(0) },
    ];
    const bytes = Buffer.concat(frames.map(encodeFrame));
    for (let size = 1; size <= bytes.length; size++) {
      const seen: unknown[] = [];
      const take = ttrpcFrames((frame) => seen.push(frame));
      for (let at = 0; at < bytes.length; at += size) take(bytes.subarray(at, at + size));
      assert.deepEqual(seen, frames, `pieces of ${size} bytes`);
    }
  });

  it('refuses a message that is too long', () => {
    const header = Buffer.alloc(10);
    header.writeUInt32BE(maxMessageBytes + 1);
    assert.throws(() => ttrpcFrames(() => undefined)(header), /a message of 4194305 bytes/);
  });

  it('calls with odd stream numbers and gives each answer to its call', async () => {
    const streams: number[] = [];
    const answers: (() => void)[] = [];
    const client: TtrpcClient = ttrpcClient(() => ({
      send: (bytes) =>
        ttrpcFrames(({ stream }) => {
          streams.push(stream);
          answers.push(() =>
            client.receive(encodeFrame({ stream, type: 2, flags: 0, data: Buffer.from('1200', 'hex') })),
          );
        })(Buffer.from(bytes)),
    }));
    const calls = [1, 2].map(() => client.call(service, registerPlugin, request, 1000));
    for (const answer of answers.reverse()) answer();
    assert.deepEqual(await Promise.all(calls), [{}, {}]);
    assert.deepEqual(streams, [1, 3]);
  });

  it('carries requests and answers', async () => {
    const seen: RegisterPluginRequest[] = [];
    const client = connected([
      ttrpcHandler(service, registerPlugin, (given) => {
        seen.push(given);
        return Promise.resolve({});
      }),
    ]);
    assert.deepEqual(await client.call(service, registerPlugin, request, 1000), {});
    assert.deepEqual(seen, [request]);
  });

  it('carries what a handler throws as a status', async () => {
    const client = connected([
      ttrpcHandler(service, registerPlugin, () => Promise.reject(new RuntimeError('denied', 'not you'))),
      ttrpcHandler(service, updateContainers, () => Promise.reject(new Error('oops'))),
    ]);
    await assert.rejects(
      client.call(service, registerPlugin, request, 1000),
      (error) => isKind(error, 'denied') && error.message === 'not you',
    );
    await assert.rejects(client.call(service, updateContainers, { update: [], evict: [] }, 1000), (error) =>
      isKind(error, 'internal'),
    );
  });

  it('says UNIMPLEMENTED for a method that nobody serves', async () => {
    const call = connected([]).call(PluginDefinition.fullName, PluginDefinition.methods.shutdown, {}, 1000);
    await assert.rejects(call, (error) => isKind(error, 'unimplemented') && /Plugin\/Shutdown/.test(error.message));
  });

  it('tells no answer from an answer that says deadline', async () => {
    const silent = ttrpcClient(() => ({ send: () => undefined }));
    await assert.rejects(silent.call(service, registerPlugin, request, 5), TtrpcTimeout);
    const client = connected([
      ttrpcHandler(service, registerPlugin, () => Promise.reject(new RuntimeError('deadline', 'mine'))),
    ]);
    await assert.rejects(
      client.call(service, registerPlugin, request, 1000),
      (error) => isKind(error, 'deadline') && !(error instanceof TtrpcTimeout),
    );
  });

  it('fails waiting calls when the connection ends, and sends nothing that is too long', async () => {
    const client = ttrpcClient(() => ({ send: () => undefined }));
    const waiting = client.call(service, registerPlugin, request, 10_000);
    client.fail(new RuntimeError('unavailable', 'gone'));
    await assert.rejects(waiting, /gone/);
    const long = { ...request, pluginName: 'x'.repeat(maxMessageBytes) };
    await assert.rejects(client.call(service, registerPlugin, long, 1000), (error) => isKind(error, 'exhausted'));
  });
});
