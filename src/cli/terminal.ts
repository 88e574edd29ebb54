import { spawnSync } from 'node:child_process';
import type { Call } from '../kit/call.js';
import type { Output } from './context.js';
import type { RuntimeClient } from './remote/client-types.js';

export interface JoinOptions {
  /** Raw mode, output shown here and size changes passed on. Without it only input is passed. */
  readonly terminal: boolean;
  readonly stdout: Output;
  readonly call: Call;
}

export interface JoinedTerminal {
  /** Resolves when the container's output has ended and was shown. */
  readonly drained: Promise<void>;
  /** Puts the terminal back as it was. */
  close(): void;
}

/** Joins this process's standard input, and with `terminal` its whole terminal, to a running container. */
export async function joinTerminal(
  client: RuntimeClient,
  id: string,
  { terminal, stdout, call }: JoinOptions,
): Promise<JoinedTerminal> {
  const { stdin } = process;
  const streams = await client.containers.attach(id, call);
  if (terminal) streams.onOutput((_stream, data) => void stdout.write(data));
  const raw = terminal && stdin.isTTY;
  const resize = (): void => {
    const { rows, columns } = process.stdout;
    if (rows > 0 && columns > 0)
      void Promise.resolve(client.containers.resize(id, rows, columns)).catch(() => undefined);
  };
  const restore = raw ? makeRaw() : undefined;
  if (raw) {
    resize();
    process.stdout.on('resize', resize);
  }
  const onData = (data: Buffer): void => void streams.write(data).catch(() => undefined);
  const onEnd = (): void => streams.end();
  stdin.on('data', onData).on('end', onEnd);
  return {
    drained: terminal ? streams.ended : Promise.resolve(),
    close() {
      restore?.();
      process.stdout.off('resize', resize);
      stdin.off('data', onData).off('end', onEnd).pause();
      streams.close();
    },
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
