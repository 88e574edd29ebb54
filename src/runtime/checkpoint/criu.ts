import { spawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { throwIfCancelled } from '../../kit/deadline.js';
import { RuntimeError, messageOf } from '../../kit/errors.js';

/** CRIU, the program that writes the state of running processes to files (criu.org). */
export interface Criu {
  /**
   * Resolves when there is a CRIU that can work on this kernel; found out once. Errors: `unimplemented` when none is
   * installed, `unavailable` with its own words when it is too old or the kernel lacks something.
   */
  ready(signal: AbortSignal): Promise<void>;
  /**
   * `criu dump`. Errors: `internal` with the last complaints of its log. When the signal aborts, it and everything it
   * started are killed, and the processes it was about to dump go on.
   *
   * @param onStart learns its process id, which is its process group too, as soon as it runs
   */
  dump(request: DumpRequest, signal: AbortSignal, onStart: (pid: number) => Promise<void>): Promise<void>;
}

export interface DumpRequest {
  /** Of `criu dump`, without the directories. */
  readonly args: readonly string[];
  /** Exists; where the images go. */
  readonly imagesDir: string;
  /** Exists; where `dump.log` and `stats-dump` go. */
  readonly workDir: string;
}

export interface CriuOptions {
  /** Absolute path of the program; '' looks for `criu` in `searchPath`. */
  readonly path: string;
  /** As PATH. The programs that CRIU itself needs are looked for there too. */
  readonly searchPath: string;
}

export const dumpLog = 'dump.log';

/** 3.16 is what Kubernetes' other runtimes ask for: external PID namespaces, cgroup v2's freezer. */
const leastVersion = [3, 16] as const;
/** Bytes kept of what it prints. */
const longestOutput = 64 << 10;
const lastComplaints = 8;

export function openCriu(options: CriuOptions): Criu {
  let found: string | undefined;
  const run = (path: string, args: readonly string[], signal: AbortSignal, onStart?: (pid: number) => Promise<void>) =>
    runProgram(path, args, options.searchPath, signal, onStart);
  return {
    async ready(signal) {
      if (found !== undefined) return;
      const path = findProgram(options);
      checkVersion(path, (await run(path, ['--version'], signal)).output);
      const check = await run(path, ['check'], signal);
      throwIfCancelled(signal, `${path} check`);
      if (check.code !== 0) {
        throw new RuntimeError('unavailable', `${path} cannot work on this kernel: ${lastLines(check.output)}`);
      }
      found = path;
    },
    async dump({ args, imagesDir, workDir }, signal, onStart) {
      const path = found ?? findProgram(options);
      const directories = ['--images-dir', imagesDir, '--work-dir', workDir, '--log-file', dumpLog, '-v4'];
      const { code, output } = await run(path, ['dump', ...directories, ...args], signal, onStart);
      throwIfCancelled(signal, 'criu dump');
      if (code === 0) return;
      const how = code === null ? 'ended by a signal' : `failed with status ${code}`;
      throw new RuntimeError('internal', `criu dump ${how}: ${await complaints(join(workDir, dumpLog), output)}`);
    },
  };
}

function findProgram({ path, searchPath }: CriuOptions): string {
  const candidates =
    path === ''
      ? searchPath
          .split(':')
          .filter(isAbsolute)
          .map((dir) => join(dir, 'criu'))
      : [path];
  const found = candidates.find(isProgram);
  if (found !== undefined) return found;
  const where = path === '' ? `no criu in ${searchPath}` : `checkpoint.criu: ${path} is no program`;
  throw new RuntimeError('unimplemented', `checkpointing needs CRIU, which is not installed: ${where}`);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function checkVersion(path: string, output: string): void {
  const [, major, minor] = /^Version: (\d+)\.(\d+)/m.exec(output) ?? [];
  if (major === undefined || minor === undefined) {
    throw new RuntimeError('unavailable', `${path} --version says no version: ${lastLines(output)}`);
  }
  const [wantedMajor, wantedMinor] = leastVersion;
  if (Number(major) > wantedMajor || (Number(major) === wantedMajor && Number(minor) >= wantedMinor)) return;
  throw new RuntimeError(
    'unavailable',
    `${path} is version ${major}.${minor}; checkpointing needs ${wantedMajor}.${wantedMinor}`,
  );
}

interface ProgramExit {
  /** Null when a signal ended it. */
  readonly code: number | null;
  /** Both outputs, as they came. */
  readonly output: string;
}

/** In a process group of its own, since CRIU starts helpers; resolves once its output has ended. */
function runProgram(
  path: string,
  args: readonly string[],
  searchPath: string,
  signal: AbortSignal,
  onStart: (pid: number) => Promise<void> = () => Promise.resolve(),
): Promise<ProgramExit> {
  throwIfCancelled(signal, `start ${path}`);
  return new Promise((resolve, reject) => {
    const child = spawn(path, args, { detached: true, stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: searchPath } });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-longestOutput)));
    }
    const kill = (): void => {
      if (child.pid !== undefined && child.exitCode === null) killGroup(child.pid);
      for (const stream of [child.stdout, child.stderr]) stream.destroy();
    };
    signal.addEventListener('abort', kill, { once: true });
    child.once('error', (error) => {
      signal.removeEventListener('abort', kill);
      reject(new RuntimeError('unavailable', `start ${path}: ${error.message}`));
    });
    child.once('close', (code) => {
      signal.removeEventListener('abort', kill);
      resolve({ code, output });
    });
    if (child.pid !== undefined) {
      onStart(child.pid).catch((error: unknown) => {
        kill();
        reject(new RuntimeError('internal', `start ${path}: ${messageOf(error)}`));
      });
    }
  });
}

/** A process and what it started; what is gone already is fine. */
export function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    return;
  }
}

/** What its log holds it back for. The log of a dump that works has none of these lines. */
async function complaints(log: string, output: string): Promise<string> {
  const text = await readFile(log, 'utf8').catch(() => '');
  const errors = text.split('\n').filter((line) => /\bError \(/.test(line));
  return errors.length > 0 ? errors.slice(-lastComplaints).join('; ') : lastLines(`${output}\n${text}`);
}

function lastLines(text: string): string {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return lines.length === 0 ? 'it says nothing' : lines.slice(-lastComplaints).join('; ');
}
