import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { failureWords, noStep } from '../../../src/runtime/plan/explain.js';
import type { LaunchPlan } from '../../../src/runtime/plan/plan.js';
import { encodePlan } from '../../../src/runtime/plan/wire.js';
import { errnoSymbol } from '../../../src/runtime/launch/plan-failed.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const sources = join(root, 'src/native/shim');
const driver = join(root, 'test/support/shim/exec-tool.c');

/** The executor's own files; the monitor's are not needed to launch plans. */
export const executorFiles: readonly string[] = [
  'plan.c',
  'execute.c',
  'child.c',
  'helpers.c',
  'sources.c',
  'overlay.c',
  'image-source.c',
  'namespaces.c',
  'mounts.c',
  'paths.c',
  'process.c',
  'privileges.c',
  'program.c',
  'pause.c',
  'copy-up.c',
].map((name) => join(sources, name));

function hasMusl(): boolean {
  try {
    execFileSync('musl-gcc', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** Compiler and flags as the shim's Makefile chooses them; musl's wrapper hides the kernel's headers. */
export function compilerFor(dir: string): { readonly compiler: string; readonly flags: readonly string[] } {
  const flags = ['-std=gnu11', '-D_GNU_SOURCE', '-static', '-Os', '-Wall', '-Wextra', '-Wshadow', '-Wvla', '-Werror'];
  if (!hasMusl()) return { compiler: 'gcc', flags };
  const multiarch = execFileSync('gcc', ['-print-multiarch'], { encoding: 'utf8' }).trim();
  const headers = join(dir, 'kernel-headers');
  mkdirSync(headers, { recursive: true });
  const links: readonly (readonly [string, string])[] = [
    ['linux', '/usr/include/linux'],
    ['asm-generic', '/usr/include/asm-generic'],
    ['asm', `/usr/include/${multiarch}/asm`],
  ];
  for (const [name, target] of links) {
    rmSync(join(headers, name), { force: true });
    symlinkSync(target, join(headers, name));
  }
  return { compiler: 'musl-gcc', flags: [...flags, '-idirafter', headers] };
}

let built: string | undefined;

/** Builds the driver once per process; a binary newer than every source is used again. */
export function execTool(): string {
  if (built !== undefined) return built;
  const dir = join(root, 'build/test-exec-tool');
  const binary = join(dir, 'exec-tool');
  mkdirSync(dir, { recursive: true });
  const headers = readdirSync(sources).filter((name) => name.endsWith('.h'));
  const inputs = [...executorFiles, driver, ...headers.map((name) => join(sources, name))];
  if (Math.max(...inputs.map(modified)) >= modified(binary) && canBuild()) {
    const { compiler, flags } = compilerFor(dir);
    execFileSync(compiler, [...flags, driver, ...executorFiles, '-o', `${binary}.${process.pid}`], {
      stdio: 'inherit',
    });
    renameSync(`${binary}.${process.pid}`, binary);
  }
  built = binary;
  return binary;
}

/** In the test machine there is no compiler: what was built outside has to do. */
const canBuild = (): boolean => spawnSync('gcc', ['--version'], { stdio: 'ignore' }).status === 0;

function modified(path: string): number {
  try {
    return statSync(path).mtimeMs;
  } catch {
    return 0;
  }
}

export interface PlanRun {
  readonly plan: LaunchPlan;
  /** Keeps running while later plans do; known to them as container `pN`. */
  readonly background?: boolean;
  readonly console?: boolean;
}

export interface PlanResult {
  readonly ok: boolean;
  readonly pid: number;
  readonly exit: number;
  /** Words of the failure, '' without one. */
  readonly failure: string;
  readonly warnings: readonly { readonly step: number; readonly wanted: number; readonly got: number }[];
  readonly nanos: readonly number[];
}

export interface ToolResult {
  readonly results: readonly PlanResult[];
  readonly stdout: string;
  readonly stderr: string;
}

interface ReportLine {
  readonly ok?: boolean;
  readonly pid?: number;
  readonly exit?: number;
  readonly step?: number;
  readonly errno?: number;
  readonly detail?: number;
  readonly refused?: string;
  readonly warnings?: PlanResult['warnings'];
  readonly nanos?: readonly number[];
}

function toResult(line: ReportLine, plan: LaunchPlan): PlanResult {
  const { ok = false, pid = 0, exit = -1, warnings = [], nanos = [] } = line;
  const step = line.step === undefined || line.step < 0 ? noStep : line.step;
  const failure = line.refused ?? failureWords(plan, step, errnoSymbol(line.errno ?? 0), line.detail);
  return { ok, pid, exit, warnings, nanos, failure: ok ? '' : failure };
}

/** Launches plans one after the other in one tool, as one pod's shim would. */
export async function runPlans(runs: readonly PlanRun[], options: readonly string[] = []): Promise<ToolResult> {
  const dir = mkdtempSync(join(tmpdir(), 'berth-plan-'));
  try {
    const args = runs.flatMap((run, index) => {
      const file = join(dir, `plan-${index}`);
      writeFileSync(file, encodePlan(run.plan));
      const flags = [run.background && '--background', run.console && '--console'];
      return [...flags.filter((flag) => typeof flag === 'string'), file];
    });
    const { stdout, stderr, report } = await runTool(['--report', '3', ...options, ...args]);
    const lines = report.split('\n').filter(Boolean);
    return { results: lines.map((line, i) => toResult(JSON.parse(line), runs[i]?.plan as LaunchPlan)), stdout, stderr };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** One plan, with what it wrote. */
export async function runPlan(
  plan: LaunchPlan,
  run: Omit<PlanRun, 'plan'> = {},
  options: readonly string[] = [],
): Promise<PlanResult & { readonly stdout: string; readonly stderr: string }> {
  const { results, stdout, stderr } = await runPlans([{ plan, ...run }], options);
  const [result] = results;
  if (result === undefined) throw new Error(`the tool said nothing: ${stderr}`);
  return { ...result, stdout, stderr };
}

function runTool(args: readonly string[]): Promise<{ stdout: string; stderr: string; report: string }> {
  const child = spawn(execTool(), args, { stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
  const output = ['', '', ''];
  [child.stdout, child.stderr, child.stdio[3]].forEach((stream, i) => {
    if (stream && 'on' in stream) stream.on('data', (data: Buffer) => (output[i] += data.toString('utf8')));
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => resolve({ stdout: output[0] ?? '', stderr: output[1] ?? '', report: output[2] ?? '' }));
  });
}
