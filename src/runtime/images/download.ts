import type { Readable } from 'node:stream';
import { sleep, throwIfCancelled } from '../../kit/deadline.js';
import { isKind, RuntimeError } from '../../kit/errors.js';
import { SharedWork } from '../../kit/shared-work.js';
import type { ContentStore, Ingest } from './content.js';
import type { Gate } from './gate.js';
import type { Endpoint } from './hosts.js';
import { connectionError } from './http.js';
import type { Descriptor } from './manifest.js';
import type { RegistrySession } from './registry.js';

/** How far a blob's file has come. The file may be renamed when it is whole; an open descriptor stays good. */
export interface Growth {
  readonly path: string;
  readonly available: number;
}

export interface Downloads {
  /** Brings a layer into the content store. Callers that want the same digest share one transfer. */
  fetch(
    blob: Descriptor,
    session: RegistrySession,
    signal: AbortSignal,
    onGrowth: (growth: Growth) => void,
  ): Promise<void>;
  /** The same for a small document, which does not queue behind layers. */
  fetchDocument(blob: Descriptor, session: RegistrySession, signal: AbortSignal): Promise<void>;
  settled(): Promise<void>;
}

export interface DownloadOptions {
  readonly content: ContentStore;
  readonly gate: Gate;
  /** A transfer slower than this over a whole window counts as broken, as a stalled one does. Bytes per second. */
  readonly minRate: number;
  readonly windowMs: number;
  /** A transfer slower than this gives its place in the queue to another, and goes on. Bytes per second. */
  readonly slowRate: number;
  /** Attempts in a row that bring nothing new before giving up. */
  readonly maxAttempts: number;
  /** Before the second attempt, doubled for each further one, milliseconds. */
  readonly retryDelayMs: number;
}

export const downloadDefaults = {
  minRate: 1024,
  windowMs: 30_000,
  slowRate: 64 << 10,
  maxAttempts: 5,
  retryDelayMs: 250,
};

export function createDownloads(options: DownloadOptions): Downloads {
  const shared = new SharedWork<Growth, void>();
  return {
    fetch: async (blob, session, signal, onGrowth) =>
      await shared.join(blob.digest, signal, onGrowth, async (inner, report) =>
        options.gate.hold(inner, `download ${blob.digest}`, async (leave) =>
          download(options, { blob, session, signal: inner, report, onSlow: leave }),
        ),
      ),
    fetchDocument: async (blob, session, signal) =>
      await shared.join(blob.digest, signal, ignore, async (inner, report) =>
        download(options, { blob, session, signal: inner, report, onSlow: ignore }),
      ),
    settled: async () => await shared.settled(),
  };
}

const ignore = (): void => undefined;

/** One blob on its way. */
interface Order {
  readonly blob: Descriptor;
  readonly session: RegistrySession;
  readonly signal: AbortSignal;
  readonly report: (growth: Growth) => void;
  readonly onSlow: () => void;
}

async function download(options: DownloadOptions, order: Order): Promise<void> {
  if (options.content.has(order.blob.digest)) return;
  const ingest = await options.content.ingest();
  const sources = new Set<Endpoint>();
  try {
    await transferAll(options, order, ingest, sources);
    await ingest.commit(order.blob);
  } catch (error) {
    /* Whoever reads along has had the wrong bytes: the retry is theirs. `unavailable` says that one makes sense. */
    if (!isKind(error, 'corrupt') || !order.session.distrust(sources)) throw error;
    throw new RuntimeError('unavailable', `${error.message}; another endpoint may have it right`, { cause: error });
  } finally {
    await ingest.discard();
  }
}

/** Transfers until all bytes are there: each attempt goes on where the last one broke. */
async function transferAll(
  options: DownloadOptions,
  order: Order,
  ingest: Ingest,
  sources: Set<Endpoint>,
): Promise<void> {
  const { blob, signal } = order;
  const avoid = new Set<Endpoint>();
  for (let fruitless = 0; ingest.length < blob.size;) {
    const before = ingest.length;
    try {
      await transfer(options, order, ingest, { avoid, sources });
    } catch (error) {
      throwIfCancelled(signal, `download ${blob.digest}`);
      fruitless = ingest.length > before ? 1 : fruitless + 1;
      if (!isKind(error, 'unavailable') || fruitless >= options.maxAttempts) throw error;
      await sleep(options.retryDelayMs * 2 ** (fruitless - 1));
      throwIfCancelled(signal, `download ${blob.digest}`);
    }
  }
}

async function transfer(
  options: DownloadOptions,
  order: Order,
  ingest: Ingest,
  endpoints: { readonly avoid: Set<Endpoint>; readonly sources: Set<Endpoint> },
): Promise<void> {
  const { blob, session, signal, report } = order;
  const remote = await session.blob(blob.digest, ingest.length, endpoints.avoid, signal);
  endpoints.sources.add(remote.endpoint);
  const rate = watchRate(options, order, remote.body);
  try {
    if (remote.start > ingest.length) throw new RuntimeError('unavailable', `download ${blob.digest}: wrong range`);
    await receive(blob, remote.body, remote.start, ingest, rate.count, report);
  } catch (error) {
    endpoints.avoid.add(remote.endpoint);
    throw connectionError(error, `download ${blob.digest}`, signal);
  } finally {
    rate.stop();
    remote.body.destroy();
  }
}

/** Appends what is new; a server without ranges sends what we have once more, which is passed over. */
async function receive(
  blob: Descriptor,
  body: Readable,
  start: number,
  ingest: Ingest,
  count: (bytes: number) => void,
  report: (growth: Growth) => void,
): Promise<void> {
  let position = start;
  let failure: unknown;
  for await (const chunks of batches(body, (error) => (failure = error))) {
    const fresh: Buffer[] = [];
    for (const chunk of chunks) {
      count(chunk.length);
      if (position + chunk.length > ingest.length) fresh.push(chunk.subarray(Math.max(ingest.length - position, 0)));
      position += chunk.length;
      if (position > blob.size)
        throw new RuntimeError('corrupt', `blob ${blob.digest}: is longer than ${blob.size} bytes`);
    }
    if (fresh.length === 0) continue;
    await ingest.write(fresh);
    report({ path: ingest.path, available: ingest.length });
  }
  if (failure !== undefined) throw failure;
  if (ingest.length < blob.size) {
    throw new RuntimeError(
      'unavailable',
      `download ${blob.digest}: ended after ${ingest.length} of ${blob.size} bytes`,
    );
  }
}

/** All chunks that came in while the last ones were being written, as one: fewer, larger writes. */
async function* batches(body: Readable, onError: (error: unknown) => void): AsyncGenerator<Buffer[]> {
  let pending: Buffer[] = [];
  let held = 0;
  let ended = false;
  let wake = (): void => undefined;
  body.on('data', (chunk: Buffer) => {
    pending.push(chunk);
    held += chunk.length;
    if (held > maxHeld) body.pause();
    wake();
  });
  const end = (error?: unknown): void => {
    if (error !== undefined) onError(error);
    ended = true;
    wake();
  };
  body
    .once('end', () => end())
    .once('error', end)
    .once('close', () => end());
  for (;;) {
    while (pending.length === 0 && !ended) await new Promise<void>((resolve) => (wake = resolve));
    if (pending.length === 0) return;
    const batch = pending;
    pending = [];
    held = 0;
    if (body.isPaused()) body.resume();
    yield batch;
  }
}

const maxHeld = 4 << 20;

/** Milliseconds over which a transfer must show that it is not a slow one. */
const slowWindowMs = 5_000;

function watchRate(
  options: DownloadOptions,
  order: Order,
  body: Readable,
): { count: (bytes: number) => void; stop: () => void } {
  const { minRate, windowMs, slowRate } = options;
  const window = { all: 0, slow: 0 };
  const stalled = setInterval(() => {
    if (window.all < (minRate * windowMs) / 1000) {
      const what = `download ${order.blob.digest}: ${window.all} bytes in ${windowMs} ms`;
      body.destroy(new RuntimeError('unavailable', what));
    }
    window.all = 0;
  }, windowMs);
  const slow = setInterval(() => {
    if (window.slow < (slowRate * slowWindowMs) / 1000) order.onSlow();
    window.slow = 0;
  }, slowWindowMs);
  return {
    count(bytes) {
      window.all += bytes;
      window.slow += bytes;
    },
    stop() {
      clearInterval(stalled);
      clearInterval(slow);
    },
  };
}
