import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { agentAnswers } from '../../src/cli/remote/client.js';
import type { CommandResult } from './agent.js';

/**
 * An ordinary user with subordinate ids who exists for one test only: in a mount namespace of each command, where
 * /etc/passwd, /etc/subuid and /etc/subgid are the test's. The host's files stay as they are.
 */
export interface RootlessUser {
  readonly dir: string;
  /** Its first subordinate ids; those of groups are others than those of users. */
  readonly subordinate: { readonly uid: number; readonly gid: number };
  /** $XDG_RUNTIME_DIR/berth */
  readonly state: string;
  readonly home: string;
  /** Runs the berth command. Never rejects. */
  berth(...args: readonly string[]): Promise<CommandResult>;
  /** Starts `berth serve --rootless` and waits until it answers. */
  serve(): Promise<ChildProcess>;
  /** What `serve` wrote. */
  readonly logFile: string;
  log(): string;
  /** Command lines of live processes that are the user's, or have one of its subordinate ids. */
  processes(): string[];
  /** Kills what is left, removes everything, and says what was left. */
  close(): Promise<readonly string[]>;
}

export interface RootlessUserOptions {
  /** Further environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly withoutSubordinateIds?: boolean;
  /** Shell commands run as root before each of the user's. */
  readonly prepare?: readonly string[];
  /** Each command gets a network of its own instead of the host's, with this program beside it. */
  readonly server?: string;
  /** Runs the user's program; it gets it as its arguments. */
  readonly wrapper?: readonly string[];
}

export const uid = 61_184;
const name = 'rootless-test';
const size = 65_536;
const subordinate = { uid: 2_000_000_000, gid: 2_100_000_000 };
const repository = new URL('../..', import.meta.url).pathname.replace(/\/$/, '');

/** Why the suite cannot run here; undefined when it can. */
export function rootlessObstacle(): string | undefined {
  if (!existsSync('/usr/bin/newuidmap')) return 'newuidmap is not installed (package uidmap)';
  if (readFileSync('/proc/sys/user/max_user_namespaces', 'utf8').trim() === '0') return 'there are no user namespaces';
  for (let at = repository; at !== ''; at = at.slice(0, at.lastIndexOf('/'))) {
    try {
      execFileSync('setpriv', [...asUser, 'test', '-x', at]);
    } catch {
      return `${at} is not for other users, and the agent's program lies there`;
    }
  }
  return undefined;
}

const asUser = ['--reuid', `${uid}`, '--regid', `${uid}`, '--clear-groups', '--inh-caps=-all'];

/**
 * The agent's program as the sources are now, translated once: a user who is not root could keep no loader's cache, and
 * each command starts twice. Where the tests are translated themselves it lies beside them. Returns the entry point.
 */
export async function translateProgram(to: string): Promise<string> {
  if (import.meta.url.endsWith('.js')) return join(repository, 'src/main.js');
  const { transpileModule, ScriptTarget, ModuleKind } = (await import('typescript')).default;
  const compilerOptions = { target: ScriptTarget.ES2022, module: ModuleKind.ESNext, verbatimModuleSyntax: true };
  for (const top of ['src', 'api']) {
    for (const file of readdirSync(join(repository, top), { recursive: true, encoding: 'utf8' })) {
      if (!/(?<!\.test)\.ts$/.test(file)) continue;
      const path = join(to, top, file.replace(/ts$/, 'js'));
      mkdirSync(dirname(path), { recursive: true });
      const source = readFileSync(join(repository, top, file), 'utf8');
      writeFileSync(path, transpileModule(source, { compilerOptions }).outputText);
    }
  }
  for (const name of ['node_modules', 'build', 'package.json']) symlinkSync(join(repository, name), join(to, name));
  return join(to, 'src/main.js');
}

/** @param program the entry point that `translateProgram` gave */
export function makeRootlessUser(program: string, options: RootlessUserOptions = {}): RootlessUser {
  const dir = mkdtempSync(join(tmpdir(), 'bt-'));
  chmodSync(dir, 0o711);
  const own = (path: string): string => {
    mkdirSync(join(dir, path), { mode: 0o700 });
    chownSync(join(dir, path), uid, uid);
    return join(dir, path);
  };
  const [home, runtime, temporary] = [own('h'), own('r'), own('t')];
  const state = join(runtime, 'berth');
  const range = (start: number): string => (options.withoutSubordinateIds === true ? '' : `${name}:${start}:${size}\n`);
  copyFileSync('/etc/passwd', join(dir, 'passwd'));
  writeFileSync(join(dir, 'passwd'), `\n${name}:x:${uid}:${uid}::${home}:/bin/sh\n`, { flag: 'a' });
  writeFileSync(join(dir, 'subuid'), range(subordinate.uid));
  writeFileSync(join(dir, 'subgid'), range(subordinate.gid));
  writeFileSync(join(dir, 'enter'), enterScript(dir, options), { mode: 0o755 });
  const env = {
    PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: home,
    XDG_RUNTIME_DIR: runtime,
    TMPDIR: temporary,
    BERTH_NETWORK_ROOTLESS: 'none',
    ...options.env,
  };
  const start = (args: readonly string[], stdio: 'pipe' | number): ChildProcess =>
    spawn('unshare', [...unshared, join(dir, 'enter'), 'node', program, ...args], {
      cwd: repository,
      env,
      stdio: ['ignore', stdio, stdio],
    });
  const unshared = ['-m', '--propagation', 'private', ...(options.server === undefined ? [] : ['-n'])];
  const logFile = join(dir, 'serve.log');

  return {
    dir,
    subordinate,
    state,
    home,
    berth: (...args) => finished(start(args, 'pipe')),
    async serve() {
      const child = start(['serve', '--rootless', '--log-format', 'text'], openSync(logFile, 'a'));
      for (let attempt = 0; child.exitCode === null && attempt < 1200; attempt++) {
        if (await agentAnswers(join(state, 'admin.sock'))) return child;
        await sleep(25);
      }
      throw new Error(`the agent did not start:\n${readFileSync(logFile, 'utf8').slice(-4000)}`);
    },
    logFile,
    log: () => readFileSync(logFile, 'utf8'),
    processes,
    async close() {
      const left = await settled();
      killAll();
      rmSync(dir, { recursive: true, force: true });
      return left;
    },
  };
}

function enterScript(dir: string, { prepare = [], server, wrapper = [] }: RootlessUserOptions): string {
  // By path: busybox's shell would take its own applet, which knows no users.
  const start = `/usr/bin/setpriv ${[...asUser, ...wrapper].join(' ')} "$@"`;
  return [
    '#!/bin/sh',
    'set -e',
    ...['passwd', 'subuid', 'subgid'].map((file) => `[ -e /etc/${file} ] || : >/etc/${file}`),
    ...['passwd', 'subuid', 'subgid'].map((file) => `mount --bind ${dir}/${file} /etc/${file}`),
    ...prepare,
    ...(server === undefined
      ? [`exec ${start}`]
      : [`${server} &`, `${start} && code=0 || code=$?`, 'kill $!', 'exit $code']),
    '',
  ].join('\n');
}

function finished(child: ChildProcess): Promise<CommandResult> {
  const text = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream]?.setEncoding('utf8').on('data', (data: string) => (text[stream] += data));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code: code ?? 128, ...text }));
  });
}

const isTheirs = (id: number): boolean =>
  id === uid || (id >= subordinate.uid && id < subordinate.uid + size) || id === subordinate.gid;

/** Zombies are the init process's to bury. */
function pids(): number[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'latin1');
      const id = Number(/^Uid:\s+(\d+)/m.exec(status)?.[1]);
      return isTheirs(id) && !/^State:\s+[ZX]/m.test(status) ? [Number(pid)] : [];
    } catch {
      return [];
    }
  });
}

const commandLine = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
};

const processes = (): string[] => pids().map(commandLine).filter(Boolean);

/** What goes on its own goes soon. */
async function settled(): Promise<readonly string[]> {
  for (let attempt = 0; attempt < 200 && processes().length > 0; attempt++) await sleep(25);
  return processes();
}

function killAll(): void {
  for (const pid of pids()) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      continue;
    }
  }
}

/** Whether a program that a test wants is installed. */
export function isInstalled(command: string): boolean {
  return (process.env['PATH'] ?? '').split(':').some((dir) => {
    try {
      accessSync(join(dir, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
