import { createHash } from 'node:crypto';
import { read as readCallback } from 'node:fs';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { parentPort } from 'node:worker_threads';
import { asRuntimeError, messageOf, RuntimeError } from '../../kit/errors.js';
import { checkHelperExit, spawnHelper, type HelperExit, type HelperProcess } from '../../kit/helper-process.js';
import { decompressor, detectCompression } from './decompress.js';
import type { ToWorker, FromWorker, UnpackOrder, SettleOrder } from './unpack.js';

/**
 * The thread in which one layer at a time is unpacked: reads the blob's file as far as it has grown, decompresses,
 * hashes, and feeds berth-unpack. Nothing of a layer's bytes passes through the main thread.
 */

const read = promisify(readCallback);
const readSize = 256 * 1024;
/** Bytes of the helper's report; each hard link into a lower layer takes two paths. */
const maxReport = 64 << 20;

/** Milliseconds without new bytes after which other layers may be unpacked in this one's place. */
const patienceMs = 1_000;

let available = 0;
let wake = (): void => undefined;
let aborted = false;
let current: HelperProcess | undefined;

const port = parentPort;
if (port === null) throw new Error('unpack-worker runs in a worker thread only');
const send = (message: FromWorker): void => port.postMessage(message);

port.on('message', (message: ToWorker) => {
  if (message.kind === 'grow') {
    available = message.available;
    wake();
  } else if (message.kind === 'abort') {
    aborted = true;
    current?.kill();
    wake();
  } else void run(message);
});

async function run(order: UnpackOrder | SettleOrder): Promise<void> {
  aborted = false;
  available = order.kind === 'unpack' ? order.available : 0;
  try {
    if (order.kind === 'unpack') send({ kind: 'unpacked', result: await unpack(order) });
    else send({ kind: 'settled', result: await settle(order) });
  } catch (error) {
    const { kind, message } = asRuntimeError(error, 'unpack layer');
    send({ kind: 'failed', error: { kind: aborted ? 'cancelled' : kind, message } });
  } finally {
    current = undefined;
  }
}

async function grown(position: number): Promise<number> {
  if (available <= position && !aborted) {
    const timer = setTimeout(() => send({ kind: 'starved' }), patienceMs);
    while (available <= position && !aborted) await new Promise<void>((resolve) => (wake = resolve));
    clearTimeout(timer);
  }
  if (aborted) throw new RuntimeError('cancelled', 'unpack layer: cancelled');
  return available - position;
}

/**
 * Buffers are used in turn: the next stage has at most one of them in hand, for each is larger than what a stream may
 * have queued. Were that ever untrue, the diff id would tell.
 */
async function* blobBytes(order: UnpackOrder): AsyncGenerator<Buffer> {
  const ring = Array.from({ length: 3 }, () => Buffer.allocUnsafeSlow(readSize));
  let position = 0;
  let reported = 0;
  for (let turn = 0; position < order.size; turn++) {
    const length = Math.min(await grown(position), readSize);
    const { bytesRead, buffer } = await read(order.fd, ring[turn % 3] ?? Buffer.alloc(length), 0, length, position);
    if (bytesRead === 0) throw new RuntimeError('internal', 'read layer: the file is shorter than expected');
    position += bytesRead;
    yield buffer.subarray(0, bytesRead);
    if (position - reported > 1 << 20 || position === order.size) {
      reported = position;
      send({ kind: 'progress', bytes: position });
    }
  }
}

async function firstBytes(order: UnpackOrder): Promise<Buffer> {
  const length = Math.min(4, order.size);
  while ((await grown(length - 1)) < 1);
  const { buffer } = await read(order.fd, Buffer.alloc(length), 0, length, 0);
  return buffer;
}

async function unpack(order: UnpackOrder): Promise<{ diffId: string; uncompressed: number; report: Uint8Array }> {
  const decompress = order.size === 0 ? undefined : decompressor(detectCompression(await firstBytes(order)));
  const hash = createHash('sha256');
  let uncompressed = 0;
  const helper = spawnHelper(order.helper, ['extract', ...order.flags], [order.dir]);
  current = helper;
  const report = collect(helper.stdout);
  async function* hashed(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of source) {
      hash.update(chunk);
      uncompressed += chunk.length;
      if (uncompressed > order.limit) throw new RuntimeError('corrupt', `layer unpacks to over ${order.limit} bytes`);
      yield chunk;
    }
  }
  const source = blobBytes(order);
  const feed =
    decompress === undefined
      ? pipeline(source, hashed, helper.stdin)
      : pipeline(source, decompress, hashed, helper.stdin);
  await finish(helper, feed);
  return { diffId: `sha256:${hash.digest('hex')}`, uncompressed, report: await report };
}

async function settle(order: SettleOrder): Promise<Uint8Array> {
  const args = ['settle', ...order.flags, String(order.lowerDirs.length)];
  const helper = spawnHelper(order.helper, args, [order.dir, ...order.lowerDirs]);
  current = helper;
  const output = collect(helper.stdout);
  helper.stdin.end(order.report);
  await finish(
    helper,
    new Promise((resolve) => helper.stdin.on('error', resolve).on('finish', () => resolve(undefined))),
  );
  return await output;
}

const checkExit = (outcome: HelperExit): void => checkHelperExit(outcome, 'unpack layer', 'corrupt');

/** When both the stream and the helper fail, the helper knows why: its death is what broke the stream. */
async function finish(helper: HelperProcess, feed: Promise<unknown>): Promise<void> {
  let failure: unknown;
  await feed.catch((error: unknown) => {
    failure = error;
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'EPIPE' && code !== 'ERR_STREAM_PREMATURE_CLOSE') helper.kill();
  });
  const outcome = await helper.exit;
  if (outcome.code !== null) checkExit(outcome);
  if (failure !== undefined) throw streamError(failure);
  checkExit(outcome);
}

function streamError(error: unknown): RuntimeError {
  if (error instanceof RuntimeError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return new RuntimeError(/^Z_|^ZSTD/.test(code) ? 'corrupt' : 'internal', `unpack layer: ${messageOf(error)}`);
}

async function collect(stream: Readable): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxReport) throw new RuntimeError('corrupt', 'unpack layer: too many hard links into lower layers');
    chunks.push(chunk);
  }
  return Uint8Array.from(Buffer.concat(chunks));
}
