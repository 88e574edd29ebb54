import { spawnSync } from 'node:child_process';
import type { ContainerStreams } from '../runtime/facade.js';
import type { Output } from './context.js';

export interface JoinOptions {
  /** Raw mode, and size changes passed on. */
  readonly terminal: boolean;
  /** Passes this process's standard input on. */
  readonly input: boolean;
  /** Shows output here; absent where something else does. */
  readonly output?: { readonly stdout: Output; readonly stderr: Output };
  resize(rows: number, columns: number): Promise<void> | void;
}

/** Joins this process's standard input and output to streams. Returns how to take it back. */
export function joinTerminal(
  streams: Omit<ContainerStreams, 'ended'>,
  { terminal, input, output, resize }: JoinOptions,
): () => void {
  const { stdin } = process;
  if (output !== undefined) streams.onOutput((stream, data) => void output[stream].write(data));
  const raw = terminal && stdin.isTTY;
  const restore = raw ? makeRaw() : undefined;
  const onResize = (): void => {
    const { rows, columns } = process.stdout;
    if (rows > 0 && columns > 0) void Promise.resolve(resize(rows, columns)).catch(() => undefined);
  };
  if (raw) {
    onResize();
    process.stdout.on('resize', onResize);
  }
  const onData = (data: Buffer): void => void streams.write(data).catch(() => undefined);
  const onEnd = (): void => streams.end();
  if (input) stdin.on('data', onData).on('end', onEnd);
  return () => {
    restore?.();
    process.stdout.off('resize', onResize);
    stdin.off('data', onData).off('end', onEnd).pause();
    streams.close();
  };
}

/**
 * Node's own raw mode goes on turning line feeds into carriage return and line feed, which breaks full-screen programs;
 * stty turns everything off. Returns how to put the terminal back.
 */
function makeRaw(): () => void {
  const stty = (...args: readonly string[]): string =>
    spawnSync('stty', args, { stdio: ['inherit', 'pipe', 'ignore'], encoding: 'utf8' }).stdout ?? '';
  const before = stty('-g').trim();
  stty('raw', '-echo');
  return () => void stty(...(before === '' ? ['sane'] : [before]));
}
