/**
 * Running CNI plugins with posix_spawn. Node's child_process forks, which costs the main thread 1 to 3 ms at 50 MB and
 * far more for a larger agent, for each of the three to five plugins of a pod.
 */
import { Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { sleep } from '../../kit/deadline.js';
import type { Native } from '../../native/native.js';
import type { PluginExit, SpawnPlugin } from './cni-plugin.js';

export type SpawnDeps = Pick<Native, 'spawn' | 'files' | 'processes'>;

const SIGKILL = 9;

export function pluginSpawner({ spawn, files, processes }: SpawnDeps): SpawnPlugin {
  return async ({ path, env, stdin }, signal) => {
    const { pid, input, output, errors } = start(path, env);
    // Not reaped yet, so the number is still this process's own.
    const kill = (): void => {
      processes.kill(pid, SIGKILL);
      // A grandchild may hold the other ends open for ever.
      for (const end of [input, output, errors]) end.destroy();
    };
    signal.addEventListener('abort', kill, { once: true });
    if (signal.aborted) kill();
    try {
      input.end(stdin);
      const [stdout, stderr] = await Promise.all([textOf(output), textOf(errors)]);
      return { exitCode: await exitCode(pid), stdout, stderr };
    } finally {
      signal.removeEventListener('abort', kill);
    }
  };

  function start(path: string, env: Readonly<Record<string, string>>) {
    const pipes = [files.pipe(), files.pipe(), files.pipe()] as const;
    const [stdin, stdout, stderr] = pipes;
    try {
      const pid = spawn({
        path,
        args: [path],
        env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
        descriptors: [stdin.read.fd, stdout.write.fd, stderr.write.fd],
      });
      return {
        pid,
        input: socketOf(stdin.write.take(), 'out'),
        output: socketOf(stdout.read.take(), 'in'),
        errors: socketOf(stderr.read.take(), 'in'),
      };
    } finally {
      for (const { read, write } of pipes) {
        read[Symbol.dispose]();
        write[Symbol.dispose]();
      }
    }
  }

  /** Both outputs have ended, so the process is ending too; libuv does not know it, and nobody signals. */
  async function exitCode(pid: number): Promise<PluginExit['exitCode']> {
    for (let waited = 0; ; waited = Math.min(20, waited + 1)) {
      const status = processes.reap(pid);
      if (status !== undefined) return (status & 0x7f) === 0 ? (status >> 8) & 0xff : null;
      await sleep(waited);
    }
  }
}

/** A plugin need not read its configuration to fail: EPIPE is no error of ours. */
const socketOf = (fd: number, direction: 'in' | 'out'): Socket =>
  new Socket({ fd, readable: direction === 'in', writable: direction === 'out' }).on('error', () => undefined);

/** What was written until the end, or until the reader was destroyed. */
const textOf = (output: Socket): Promise<string> => text(output).catch(() => '');
