import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { RuntimeError } from '../../kit/errors.js';

/** A started `berth-unpack` (src/native/unpack/main.c). */
export interface UnpackProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Resolves when the process is gone and its output read. `stderr` is its reason, one printable line. */
  readonly exit: Promise<{ readonly code: number | null; readonly stderr: string }>;
  kill(): void;
}

/** Starts the helper with directories as its descriptors 3, 4, …; the seam for another way of starting processes. */
export type SpawnUnpack = (helper: string, args: readonly string[], dirs: readonly string[]) => UnpackProcess;

export const spawnUnpack: SpawnUnpack = (helper, args, dirs) => {
  const fds: number[] = [];
  try {
    for (const dir of dirs) fds.push(openSync(dir, 'r'));
    const child = spawn(helper, args, { stdio: ['pipe', 'pipe', 'pipe', ...fds], env: {}, cwd: '/' });
    const { stdin, stdout, stderr } = child as { stdin: Writable; stdout: Readable; stderr: Readable };
    let said = '';
    stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(0, 4096)));
    const exit = new Promise<{ code: number | null; stderr: string }>((resolve, reject) => {
      child.on('error', (error) => reject(new RuntimeError('internal', `start ${helper}: ${error.message}`)));
      child.on('close', (code) => resolve({ code, stderr: said.trim() }));
    });
    exit.catch(() => undefined);
    return { stdin, stdout, exit, kill: () => void child.kill('SIGKILL') };
  } finally {
    for (const fd of fds) closeSync(fd);
  }
};

/** Throws what the helper's exit means. 2: the archive is at fault, 3: the host. */
export function checkExit(outcome: { readonly code: number | null; readonly stderr: string }): void {
  const { code, stderr } = outcome;
  if (code === 0) return;
  if (code === 2) throw new RuntimeError('corrupt', `unpack layer: ${stderr}`);
  const full = /No space left|Disk quota|Quota exceeded/.test(stderr);
  const why = stderr === '' ? `the helper ended with ${code === null ? 'a signal' : `status ${code}`}` : stderr;
  throw new RuntimeError(full ? 'exhausted' : 'internal', `unpack layer: ${why}`);
}
