import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Call } from '../../src/kit/call.js';
import { silentObserver } from '../../src/kit/observer.js';
import { openNative, type Native } from '../../src/native/native.js';
import type { ExecSyncRequest, ExecSyncResult, Shim, ShimExit, StartRequest } from '../../src/runtime/launch/shim.js';
import { openSupervisor, type Supervisor } from '../../src/runtime/launch/supervisor.js';
import type { InnerStep, LaunchPlan, OuterStep } from '../../src/runtime/plan/plan.js';
import { encodePlan } from '../../src/runtime/plan/wire.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Which build of the shim a suite runs against. */
export interface Build {
  readonly name: string;
  readonly binary: string;
  readonly env: readonly string[];
  /** Sanitizers make it several times slower and keep freed memory. */
  readonly sanitized: boolean;
}

export const plainBuild: Build = {
  name: 'shim',
  binary: join(root, 'build/shim/berth-shim'),
  env: [],
  sanitized: false,
};

export const sanitizedBuild: Build = {
  name: 'shim with sanitizers',
  binary: join(root, 'build/shim-asan/berth-shim'),
  env: ['ASAN_OPTIONS=detect_leaks=0:abort_on_error=0', 'UBSAN_OPTIONS=print_stacktrace=1'],
  sanitized: true,
};

export function build(which: Build): void {
  execFileSync('make', ['--silent', '-C', join(root, 'src/native/shim'), ...(which.sanitized ? ['ASAN=1'] : [])]);
}

export const newCall = (): Call => ({ signal: new AbortController().signal, observer: silentObserver });

const clone = (...create: (OuterStep & { op: 'clone' })['create']): OuterStep => ({
  op: 'clone',
  create,
  uidMap: [],
  gidMap: [],
  cgroupDir: '',
  cgroupProcs: [],
});

const env = [Buffer.from('PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin')];
const exec = (args: readonly string[]): InnerStep => ({ op: 'exec', args, env });

/** Programs run on the host's own files: what is tested here is the monitor, not the root filesystem. */
export const containerPlan = (args: readonly string[], change: Partial<PlanChange> = {}): Uint8Array =>
  encodePlan({
    kind: 'container',
    outer: [...(change.outer ?? []), change.clone ?? clone('pid', 'mnt', 'ipc', 'uts')],
    inner: [...(change.inner ?? []), exec(args)],
  });

interface PlanChange {
  readonly outer: readonly OuterStep[];
  readonly clone: OuterStep;
  readonly inner: readonly InnerStep[];
}

/** Without a PID namespace of its own. */
export const hostPidPlan = (args: readonly string[]): Uint8Array => containerPlan(args, { clone: clone('mnt') });

export const cgroupPlan = (args: readonly string[], procs: readonly string[]): Uint8Array =>
  containerPlan(args, { clone: { ...(clone('pid', 'mnt') as OuterStep & { op: 'clone' }), cgroupProcs: procs } });

export const joinPlan = (id: string, args: readonly string[], inner: readonly InnerStep[] = []): Uint8Array =>
  encodePlan({
    kind: 'join',
    outer: [{ op: 'enter', kind: 'pid', source: { from: 'container', id } }, clone()],
    inner: [...inner, exec(args)],
  });

export const sandboxPlan = (pause: boolean): Uint8Array => {
  const kinds = pause ? (['net', 'ipc', 'uts', 'pid'] as const) : (['net', 'ipc', 'uts'] as const);
  const plan: LaunchPlan = {
    kind: 'sandbox',
    outer: [clone(...kinds), { op: 'hold-namespaces', kinds }],
    inner: [{ op: 'loopback' }, { op: pause ? 'pause' : 'hold' }],
  };
  return encodePlan(plan);
};

/** One shim in a directory of its own, and short words for what tests do with it. */
export interface Bench {
  readonly native: Native;
  readonly supervisor: Supervisor;
  readonly dir: string;
  shim: Shim;
  readonly exits: Map<string, ShimExit>;
  start(id: string, plan: Uint8Array, change?: Partial<StartRequest>): ReturnType<Shim['start']>;
  sh(id: string, script: string, change?: Partial<StartRequest>): ReturnType<Shim['start']>;
  exec(id: string, args: readonly string[], change?: Partial<ExecSyncRequest>): Promise<ExecSyncResult>;
  exit(id: string): Promise<ShimExit>;
  logPath(id: string): string;
  /** A fresh client, as after a restart of the agent. */
  reconnect(): Promise<Shim>;
  close(): Promise<void>;
}

export async function openBench(which: Build): Promise<Bench> {
  const native = openNative();
  const dir = mkdtempSync(join(tmpdir(), 'berth-shim-'));
  const supervisor = openSupervisor({ native, binary: which.binary, env: which.env });
  const sandboxId = 'pod-of-test';
  const bench: Bench = {
    native,
    supervisor,
    dir,
    shim: await supervisor.launch(sandboxId, dir),
    exits: new Map(),
    start: (id, plan, change = {}) =>
      bench.shim.start({ ...startDefaults, containerId: id, plan, logPath: bench.logPath(id), ...change }, newCall()),
    sh: (id, script, change) => bench.start(id, containerPlan(['/bin/sh', '-c', script]), change),
    exec: (id, args, change = {}) =>
      bench.shim.execSync({ containerId: id, plan: joinPlan(id, args), ...execDefaults, ...change }, newCall()),
    exit: (id) => until(() => bench.exits.get(id), `exit of ${id}`),
    logPath: (id) => join(dir, `${id}.log`),
    async reconnect() {
      const shim = await supervisor.connect(sandboxId, dir);
      if (shim === undefined) throw new Error('the shim is gone');
      bench.shim = shim;
      bench.exits.clear();
      listen();
      return shim;
    },
    async close() {
      await bench.shim.shutdown().catch(() => undefined);
      native.processes.kill(bench.shim.pid, 9);
      supervisor.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
  const listen = (): void => bench.shim.onExit((exit) => bench.exits.set(exit.containerId, exit));
  listen();
  return bench;
}

const startDefaults = { logLineBytes: 16384, stdin: false, stdinOnce: false, terminal: false, oomFile: '' };
const execDefaults = { timeoutMs: 20_000, limitBytes: 16 << 20, drainMs: 200 };

/** Waits for something to be there; the test's own timeout is the bound. */
export async function until<T>(probe: () => T | undefined | false, what: string): Promise<T> {
  for (let attempt = 0; attempt < 6000; attempt++) {
    const found = probe();
    if (found !== undefined && found !== false) return found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`waited in vain for ${what}`);
}

export interface LogRecord {
  readonly time: string;
  readonly stream: string;
  readonly tag: string;
  readonly text: Buffer;
}

/** Cuts a log file into records; throws at a line that is not one. */
export function parseLog(bytes: Buffer): LogRecord[] {
  const records: LogRecord[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf(10, at);
    if (end < 0) throw new Error(`the log ends within a record: ${bytes.subarray(at).toString()}`);
    const line = bytes.subarray(at, end);
    const head = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (stdout|stderr) ([FP]) /.exec(
      line.subarray(0, 48).toString('latin1'),
    );
    if (head === null) throw new Error(`not a log record: ${line.subarray(0, 80).toString('latin1')}`);
    const [whole, time = '', stream = '', tag = ''] = head;
    records.push({ time, stream, tag, text: line.subarray(whole.length) });
    at = end + 1;
  }
  return records;
}

/** What a stream wrote, byte for byte. */
export function joinLog(records: readonly LogRecord[], stream = 'stdout'): Buffer {
  const newline = Buffer.from('\n');
  const parts = records.filter((record) => record.stream === stream);
  return Buffer.concat(parts.flatMap(({ text, tag }) => (tag === 'F' ? [text, newline] : [text])));
}

export const readLog = (path: string): LogRecord[] => parseLog(readFileSync(path));

export const openFiles = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

/** Kibibytes of a line of smaps_rollup. */
export function memory(pid: number, line: string): number {
  const match = new RegExp(`^${line}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
  return Number(match?.[1] ?? Number.NaN);
}

/** State letters of a process's children, by pid. */
export function childStates(parent: number): Map<number, string> {
  const states = new Map<number, string>();
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      const [state = '', ppid = ''] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (Number(ppid) === parent) states.set(Number(name), state);
    } catch {
      // it ended meanwhile
    }
  }
  return states;
}
