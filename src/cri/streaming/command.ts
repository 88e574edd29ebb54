import type { Readable, Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { errorOutcome, type Outcome } from './outcome.js';

/** Which streams a remote command has, as the CRI request says. */
export interface CommandOptions {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly terminal: boolean;
}

/** The client's ends of a remote command's streams, whatever carries them. */
export interface CommandChannels {
  readonly stdin: Readable | undefined;
  readonly stdout: Writable | undefined;
  readonly stderr: Writable | undefined;
  /** JSON objects with `Width` and `Height`, one after the other. */
  readonly resizes: Readable | undefined;
  /** Aborts when the client has gone. */
  readonly gone: AbortSignal;
  /** Tells how it ended, after everything written before, and ends the connection. */
  finish(outcome: Outcome): Promise<void>;
}

/** The container's ends. */
export interface CommandTarget {
  onOutput(listener: (stream: 'stdout' | 'stderr', data: Uint8Array) => void): void;
  write(data: Uint8Array): Promise<void>;
  end(): void;
  resize(rows: number, columns: number): Promise<void>;
  pause(): void;
  resume(): void;
  close(): void;
  /** After all output was told. */
  readonly outcome: Promise<Outcome>;
}

/** Carries one remote command from its start to its end. `what` names it in errors that the client sees. */
export async function serveCommand(
  what: string,
  channels: CommandChannels,
  open: (signal: AbortSignal) => Promise<CommandTarget>,
): Promise<Outcome> {
  let outcome: Outcome;
  try {
    const target = await open(channels.gone);
    outcome = await carry(target, channels);
  } catch (error) {
    outcome = errorOutcome(what, error);
  }
  await Promise.all([flush(channels.stdout), flush(channels.stderr)]);
  if (!channels.gone.aborted) await channels.finish(outcome);
  return outcome;
}

async function carry(target: CommandTarget, channels: CommandChannels): Promise<Outcome> {
  const leave = (): void => target.close();
  channels.gone.addEventListener('abort', leave, { once: true });
  if (channels.gone.aborted) leave();
  try {
    carryOutput(target, channels);
    void carryInput(target, channels.stdin);
    void carryResizes(target, channels.resizes);
    return await target.outcome;
  } finally {
    channels.gone.removeEventListener('abort', leave);
    target.close();
  }
}

async function flush(stream: Writable | undefined): Promise<void> {
  if (stream === undefined || stream.destroyed) return;
  stream.end();
  await finished(stream, { readable: false }).catch(() => undefined);
}

/** While the client takes nothing, nothing is taken from the container's side. */
function carryOutput(target: CommandTarget, channels: CommandChannels): void {
  const full = new Set<Writable>();
  target.onOutput((name, data) => {
    const stream = name === 'stdout' ? channels.stdout : channels.stderr;
    if (stream === undefined || !stream.writable || stream.write(data) || full.has(stream)) return;
    full.add(stream);
    target.pause();
    const room = (): void => {
      stream.off('drain', room).off('close', room);
      full.delete(stream);
      if (full.size === 0) target.resume();
    };
    stream.once('drain', room).once('close', room);
  });
}

/** A program that reads no more is no failure: what is typed at it is dropped. */
async function carryInput(target: CommandTarget, stdin: Readable | undefined): Promise<void> {
  if (stdin === undefined) return;
  try {
    for await (const chunk of stdin.iterator({ destroyOnReturn: false })) await target.write(chunk as Uint8Array);
    target.end();
  } catch {
    stdin.resume();
  }
}

async function carryResizes(target: CommandTarget, resizes: Readable | undefined): Promise<void> {
  if (resizes === undefined) return;
  let text = '';
  try {
    for await (const chunk of resizes) {
      text += String(chunk);
      for (let end = text.indexOf('}'); end >= 0; end = text.indexOf('}')) {
        const size = readSize(text.slice(0, end + 1));
        text = text.slice(end + 1);
        if (size !== undefined) await target.resize(size.rows, size.columns).catch(() => undefined);
      }
      if (text.length > longestSize) return;
    }
  } catch {
    // The stream broke: there will be no more sizes.
  }
}

const longestSize = 4096;

function readSize(text: string): { rows: number; columns: number } | undefined {
  try {
    const { Width, Height } = JSON.parse(text) as { Width?: unknown; Height?: unknown };
    if (!isSize(Width) || !isSize(Height)) return undefined;
    return { rows: Height, columns: Width };
  } catch {
    return undefined;
  }
}

const isSize = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value > 0 && value <= 0xffff;
