import { Worker } from 'node:worker_threads';
import { RuntimeError, type ErrorKind } from '../../kit/errors.js';
import { parseRanges, type FileIds } from '../idmap/mapping.js';
import { Gate } from './gate.js';

/** The main thread's side of unpacking: a few worker threads, kept for a while, one layer each. */
export interface Unpacker {
  /** Writes a layer's content below `dir`, alone; see `settle`. */
  unpack(job: UnpackJob, signal: AbortSignal): Promise<Unpacked>;
  /** Gives an unpacked layer what it owes to the layers below it, which must be complete by now. */
  settle(dir: string, lowerDirs: readonly string[], report: Uint8Array, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

export interface UnpackJob {
  /** A descriptor of the blob's file, which may still be growing; stays the caller's. */
  readonly fd: number;
  /** Bytes the blob will have in the end. */
  readonly size: number;
  readonly dir: string;
  /** Calls back whenever the file has grown; the first call may come at once. */
  readonly watch: (grown: (available: number) => void) => void;
  /** Compressed bytes that went through. */
  readonly onProgress: (bytes: number) => void;
}

export interface Unpacked {
  readonly diffId: string;
  /** Of the files, on disk. */
  readonly bytes: number;
  readonly inodes: number;
  readonly ids: FileIds;
  /** For `settle`; undefined when the layer owes nothing, but perhaps its root's metadata (`impliedRoot`). */
  readonly report: Uint8Array | undefined;
  readonly impliedRoot: boolean;
}

export interface UnpackerOptions {
  /** Path of the berth-unpack executable. */
  readonly helper: string;
  readonly maxWorkers: number;
  /** Bytes a single layer may unpack to. */
  readonly maxLayerBytes: number;
  /** Marks opaque directories with user.overlay.*, for mounts inside a user namespace. */
  readonly userXattrs: boolean;
}

export interface UnpackOrder {
  readonly kind: 'unpack';
  readonly fd: number;
  readonly size: number;
  readonly available: number;
  readonly dir: string;
  readonly helper: string;
  readonly flags: readonly string[];
  readonly limit: number;
}

export interface SettleOrder {
  readonly kind: 'settle';
  readonly dir: string;
  readonly lowerDirs: readonly string[];
  readonly report: Uint8Array;
  readonly helper: string;
  readonly flags: readonly string[];
}

export type ToWorker = UnpackOrder | SettleOrder | { kind: 'grow'; available: number } | { kind: 'abort' };

export type FromWorker =
  | { kind: 'progress'; bytes: number }
  /** The blob grows too slowly to be worth a place. */
  | { kind: 'starved' }
  | { kind: 'unpacked'; result: { diffId: string; uncompressed: number; report: Uint8Array } }
  | { kind: 'settled'; result: Uint8Array }
  | { kind: 'failed'; error: { kind: ErrorKind; message: string } };

/** Milliseconds an idle thread is kept: a thread costs some 10 MB, and pulls come in bursts. */
const idleMs = 5_000;

export function createUnpacker(options: UnpackerOptions): Unpacker {
  const gate = new Gate(options.maxWorkers);
  const idle = new Map<Worker, NodeJS.Timeout>();
  const all = new Set<Worker>();
  const flags = options.userXattrs ? ['-u'] : [];

  const take = (): Worker => {
    for (const [worker, timer] of idle) {
      clearTimeout(timer);
      idle.delete(worker);
      return worker;
    }
    const worker = startWorker();
    all.add(worker);
    worker.once('exit', () => all.delete(worker));
    return worker;
  };
  const giveBack = (worker: Worker): void => {
    const retire = (): void => {
      idle.delete(worker);
      void worker.terminate();
    };
    idle.set(worker, setTimeout(retire, idleMs).unref());
  };

  const withWorker = async <T>(
    signal: AbortSignal,
    work: (worker: Worker, answer: Promise<FromWorker>) => Promise<T>,
    onProgress: (bytes: number) => void,
  ): Promise<T> =>
    await gate.hold(signal, 'unpack layer', async (leave) => {
      const worker = take();
      const abort = (): void => worker.postMessage({ kind: 'abort' } satisfies ToWorker);
      signal.addEventListener('abort', abort, { once: true });
      try {
        const result = await work(worker, nextAnswer(worker, onProgress, leave));
        giveBack(worker);
        return result;
      } catch (error) {
        void worker.terminate();
        throw error;
      } finally {
        signal.removeEventListener('abort', abort);
      }
    });

  return {
    unpack: async (job, signal) =>
      await withWorker(
        signal,
        async (worker, answer) => {
          const { fd, size, dir } = job;
          const { helper, maxLayerBytes: limit } = options;
          worker.postMessage({ kind: 'unpack', fd, size, available: 0, dir, helper, flags, limit } satisfies ToWorker);
          let over = false;
          job.watch((grown) => {
            if (!over) worker.postMessage({ kind: 'grow', available: grown } satisfies ToWorker);
          });
          const message = await answer.finally(() => (over = true));
          if (message.kind !== 'unpacked') throw new RuntimeError('internal', 'unpack layer: unexpected answer');
          return { diffId: message.result.diffId, ...readReport(message.result.report) };
        },
        job.onProgress,
      ),
    settle: async (dir, lowerDirs, report, signal) => {
      await withWorker(
        signal,
        async (worker, answer) => {
          const order: SettleOrder = { kind: 'settle', dir, lowerDirs, report, helper: options.helper, flags };
          worker.postMessage(order);
          await answer;
        },
        () => undefined,
      );
    },
    async close() {
      for (const timer of idle.values()) clearTimeout(timer);
      idle.clear();
      await Promise.all([...all].map(async (worker) => await worker.terminate()));
    },
  };
}

function nextAnswer(worker: Worker, onProgress: (bytes: number) => void, onStarved: () => void): Promise<FromWorker> {
  const answer = new Promise<FromWorker>((resolve, reject) => {
    const detach = (): void => {
      worker.off('message', onMessage).off('error', onError).off('exit', onExit);
      worker.unref();
    };
    const onMessage = (message: FromWorker): void => {
      if (message.kind === 'progress') return onProgress(message.bytes);
      if (message.kind === 'starved') return onStarved();
      detach();
      if (message.kind === 'failed') reject(new RuntimeError(message.error.kind, message.error.message));
      else resolve(message);
    };
    const onError = (error: Error): void => {
      detach();
      reject(new RuntimeError('internal', `unpack layer: ${error.message}`, { cause: error }));
    };
    const onExit = (): void => onError(new Error('the worker thread ended'));
    worker.ref();
    worker.on('message', onMessage).on('error', onError).on('exit', onExit);
  });
  answer.catch(() => undefined);
  return answer;
}

/** Run from TypeScript sources (tests), a thread has to register the loader that the main thread was started with. */
const loadSource =
  "import('tsx/esm/api').then(({ register }) => (register(), import(require('node:worker_threads').workerData)))";

function startWorker(): Worker {
  const entry = import.meta.url.replace(/unpack\.(ts|js)$/, 'unpack-worker.$1');
  if (entry.endsWith('.ts')) return new Worker(loadSource, { eval: true, workerData: entry });
  return new Worker(new URL(entry), { execArgv: [] });
}

/** Splits the helper's report: its last record is the sum, the others are for `settle`. */
export function readReport(report: Uint8Array): Omit<Unpacked, 'diffId'> {
  const text = Buffer.from(report);
  const start = text.lastIndexOf(0, text.length - 2) + 1;
  const match = /^S(\d+) (\d+) ([\d,-]+) ([\d,-]+)\0$/.exec(text.toString('latin1', start));
  const [, bytes, inodes, uids, gids] = match ?? [];
  if (uids === undefined || gids === undefined)
    throw new RuntimeError('internal', 'unpack layer: the helper gave no report');
  const rest = text.subarray(0, start);
  const impliedRoot = rest.length >= 2 && rest[0] === 0x50 && rest[1] === 0;
  const debts = impliedRoot ? rest.subarray(2) : rest;
  return {
    bytes: Number(bytes),
    inodes: Number(inodes),
    ids: { uids: parseRanges(uids), gids: parseRanges(gids) },
    report: debts.length === 0 ? undefined : Uint8Array.from(debts),
    impliedRoot,
  };
}
