/** Programs run with Node's child_process. It forks: 1 to 3 ms of the main thread at 50 MB, more for a larger agent. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import type { SpawnPlugin } from './cni-plugin.js';

export const spawnWithNode: SpawnPlugin = async (run, signal) => {
  const child = spawn(run.path, [], { env: run.env, stdio: 'pipe', signal, killSignal: 'SIGKILL' });
  // A plugin need not read its configuration to fail.
  child.stdin.on('error', () => undefined);
  child.stdin.end(run.stdin);
  const [[exitCode], stdout, stderr] = await Promise.all([
    once(child, 'close') as Promise<[number | null]>,
    text(child.stdout),
    text(child.stderr),
  ]);
  return { exitCode, stdout, stderr };
};
