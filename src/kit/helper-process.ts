import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { RuntimeError, type ErrorKind } from './errors.js';

/** A native program of ours at work on directories: berth-unpack, berth-remap. */
export interface HelperProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Resolves when the process is gone and its output read. `stderr` is its reason, one printable line. */
  readonly exit: Promise<HelperExit>;
  kill(): void;
}

export interface HelperExit {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly stderr: string;
}

/** Characters kept of a reason: it may name a path of 4096 bytes, each written as \xNN. */
const maxReason = 20_000;

/** Starts a program with directories as its descriptors 3, 4, …; the seam for another way of starting processes. */
export type SpawnHelper = (program: string, args: readonly string[], dirs: readonly string[]) => HelperProcess;

export const spawnHelper: SpawnHelper = (program, args, dirs) => {
  const fds: number[] = [];
  try {
    for (const dir of dirs) fds.push(openSync(dir, 'r'));
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe', ...fds], env: {}, cwd: '/' });
    const { stdin, stdout, stderr } = child as { stdin: Writable; stdout: Readable; stderr: Readable };
    let said = '';
    stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(0, maxReason)));
    const exit = new Promise<HelperExit>((resolve, reject) => {
      child.on('error', (error) => reject(new RuntimeError('internal', `start ${program}: ${error.message}`)));
      child.on('close', (code) => resolve({ code, stderr: said.trim() }));
    });
    exit.catch(() => undefined);
    return { stdin, stdout, exit, kill: () => void child.kill('SIGKILL') };
  } finally {
    for (const fd of fds) closeSync(fd);
  }
};

/** Throws what a helper's exit means: 2 is the fault of what it was given, of kind `fault`; all else is the host's. */
export function checkHelperExit({ code, stderr }: HelperExit, doing: string, fault: ErrorKind): void {
  if (code === 0) return;
  if (code === 2) throw new RuntimeError(fault, `${doing}: ${stderr}`);
  const full = /No space left|Disk quota|Quota exceeded/.test(stderr);
  const why = stderr === '' ? `the helper ended with ${code === null ? 'a signal' : `status ${code}`}` : stderr;
  throw new RuntimeError(full ? 'exhausted' : 'internal', `${doing}: ${why}`);
}
