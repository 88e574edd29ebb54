/** Running one CNI plugin: environment, standard input, answer, and its errors in words (CNI spec, section 2). */
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { RuntimeError, messageOf } from '../../kit/errors.js';
import { throwIfCancelled, withDeadline } from '../../kit/deadline.js';

export type CniCommand = 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'GC';

/** How a program is run; the process is killed when the signal aborts. */
export type SpawnPlugin = (run: PluginRun, signal: AbortSignal) => Promise<PluginExit>;

export interface PluginRun {
  readonly path: string;
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: string;
}

export interface PluginExit {
  /** null when a signal ended it. */
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface PluginCall {
  readonly command: CniCommand;
  readonly type: string;
  readonly network: string;
  readonly config: unknown;
  /** Absent for STATUS and GC, which are about no pod. */
  readonly target?: CniTarget;
}

export interface CniTarget {
  readonly containerId: string;
  /** '' when the namespace is gone. */
  readonly netns: string;
  readonly interfaceName: string;
  readonly args: readonly (readonly [string, string])[];
}

export interface PluginRunner {
  readonly binDirectories: readonly string[];
  readonly spawn: SpawnPlugin;
  readonly timeoutMs: number;
  /** What plugins inherit; they find iptables by PATH. */
  readonly env: Readonly<Record<string, string>>;
}

const shownOutput = 512;

/** Runs the plugin and returns the JSON it printed, undefined for none. Throws `unavailable` naming the plugin. */
export async function runPlugin(call: PluginCall, runner: PluginRunner, signal?: AbortSignal): Promise<unknown> {
  const what = `CNI plugin ${call.type} (network "${call.network}") ${call.command}`;
  if (signal !== undefined) throwIfCancelled(signal, what);
  const run = {
    path: findPlugin(call, runner),
    env: { ...runner.env, ...environment(call, runner) },
    stdin: JSON.stringify(call.config),
  };
  const exit = await withDeadline(what, runner.timeoutMs, (stop) => start(run, runner, stop, what), signal).catch(
    // The request may have time left when a plugin's is over; its own end has other words.
    (error: unknown) => {
      if (signal?.aborted === true) throwIfCancelled(signal, what);
      throw error;
    },
  );
  if (exit.exitCode !== 0) throw pluginError(what, call, exit);
  return answerOf(what, exit.stdout);
}

async function start(run: PluginRun, runner: PluginRunner, stop: AbortSignal, what: string): Promise<PluginExit> {
  try {
    return await runner.spawn(run, stop);
  } catch (error) {
    throw new RuntimeError('unavailable', `${what}: ${messageOf(error)}`, { cause: error });
  }
}

function findPlugin(call: PluginCall, runner: PluginRunner): string {
  for (const directory of runner.binDirectories) {
    const path = join(directory, call.type);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      continue;
    }
  }
  throw new RuntimeError(
    'unavailable',
    `CNI plugin ${call.type} (network "${call.network}") is not in ${runner.binDirectories.join(', ')}`,
    { facts: { plugin: call.type, network: call.network } },
  );
}

function environment({ command, target }: PluginCall, runner: PluginRunner): Record<string, string> {
  const common = { CNI_COMMAND: command, CNI_PATH: runner.binDirectories.join(':') };
  if (target === undefined) return common;
  return {
    ...common,
    CNI_CONTAINERID: target.containerId,
    CNI_NETNS: target.netns,
    CNI_IFNAME: target.interfaceName,
    CNI_ARGS: target.args.map(([key, value]) => `${key}=${value}`).join(';'),
  };
}

/** Plugins print `{code, msg, details}`; those that die before that have at least standard error. */
function pluginError(what: string, call: PluginCall, exit: PluginExit): RuntimeError {
  const { msg, details, code } = errorObject(exit.stdout);
  const said = msg ?? (exit.stderr.trim() || exit.stdout.trim()).slice(0, shownOutput);
  const how = exit.exitCode === null ? 'was killed' : `failed with status ${exit.exitCode}`;
  const words = [msg === undefined ? `${how}${said === '' ? '' : `: ${said}`}` : said, details]
    .filter(Boolean)
    .join('; ');
  return new RuntimeError('unavailable', `${what}: ${words}${code === undefined ? '' : ` (code ${code})`}`, {
    facts: { plugin: call.type, network: call.network, command: call.command, cniCode: code },
  });
}

function errorObject(stdout: string): { msg?: string; details?: string; code?: number } {
  try {
    const { msg, details, code } = JSON.parse(stdout) as Record<string, unknown>;
    return {
      ...(typeof msg === 'string' && msg !== '' ? { msg } : {}),
      ...(typeof details === 'string' && details !== '' ? { details } : {}),
      ...(typeof code === 'number' ? { code } : {}),
    };
  } catch {
    return {};
  }
}

function answerOf(what: string, stdout: string): unknown {
  if (stdout.trim() === '') return undefined;
  try {
    return JSON.parse(stdout);
  } catch {
    throw new RuntimeError('unavailable', `${what}: answered no JSON: ${stdout.slice(0, shownOutput)}`);
  }
}
