import { exit } from 'node:process';
import { didYouMean, loadConfig } from '../config.js';
import { messageOf, RuntimeError } from '../kit/errors.js';
import type { Call } from '../kit/call.js';
import { helpOf, isUsageError, parseCommandLine, UsageError, type Command } from './command.js';
import type { Composition } from './composition.js';
import type { Context, Output } from './context.js';
import type { Connection } from './connect.js';

interface Entry {
  readonly about: string;
  readonly load: () => Promise<Command>;
}

/** Every command, in the order of the help. A command's file is loaded only when it is called. */
const commands: Readonly<Record<string, Entry>> = {
  serve: { about: 'run the agent: CRI on a socket', load: async () => (await import('./commands/serve.js')).serve },
  run: { about: 'run a command in a new pod', load: async () => (await import('./commands/run.js')).run },
  ps: { about: 'list containers', load: async () => (await import('./commands/ps.js')).ps },
  pods: { about: 'list pods', load: async () => (await import('./commands/pods.js')).pods },
  logs: { about: 'show a container’s log', load: async () => (await import('./commands/logs.js')).logs },
  exec: { about: 'run a command in a container', load: async () => (await import('./commands/exec.js')).exec },
  stop: { about: 'stop containers or pods', load: async () => (await import('./commands/stop.js')).stop },
  rm: { about: 'remove containers or pods', load: async () => (await import('./commands/rm.js')).rm },
  inspect: {
    about: 'show everything about a pod, container or image',
    load: async () => (await import('./commands/inspect.js')).inspect,
  },
  'image pull': { about: 'pull an image', load: async () => (await import('./commands/image-pull.js')).imagePull },
  'image import': {
    about: 'import images from an archive or layout',
    load: async () => (await import('./commands/image-import.js')).imageImport,
  },
  'image ls': { about: 'list images', load: async () => (await import('./commands/image-ls.js')).imageLs },
  'image rm': { about: 'remove images', load: async () => (await import('./commands/image-rm.js')).imageRm },
  'plan explain': {
    about: 'show what starting a container does, step by step',
    load: async () => (await import('./commands/plan-explain.js')).planExplain,
  },
  doctor: {
    about: 'check the host and find what is left over',
    load: async () => (await import('./commands/doctor.js')).doctor,
  },
  'config default': {
    about: 'print the default configuration with comments',
    load: async () => (await import('./commands/config.js')).configDefault,
  },
  'config show': {
    about: 'print the configuration in force',
    load: async () => (await import('./commands/config.js')).configShow,
  },
  'config check': {
    about: 'check the configuration and say nothing else',
    load: async () => (await import('./commands/config.js')).configCheck,
  },
  version: { about: 'print the release', load: async () => (await import('./commands/version.js')).version },
};

function overview(): string {
  const lines = Object.entries(commands).map(([name, { about }]) => `  ${name.padEnd(16)} ${about}`);
  return ['Usage: berth COMMAND [flags] [arguments]', '', ...lines, '', 'berth COMMAND --help says more.', ''].join(
    '\n',
  );
}

export interface Process {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborts when the process is asked to end. */
  readonly signal: AbortSignal;
}

/**
 * Runs one command line (without node and script) and returns the exit code. Never throws. A reader that goes away
 * (`berth ps | head -1`) ends the process: nobody is left to read the rest.
 */
export async function runCli(argv: readonly string[], composition: Composition, process: Process): Promise<number> {
  process.stdout.on?.('error', () => exit(0));
  try {
    return await dispatch(argv, composition, process);
  } catch (error) {
    if (isUsageError(error)) {
      process.stderr.write(`berth: ${error.message}\n`);
      return 2;
    }
    process.stderr.write(`berth: ${messageOf(error)}\n`);
    if (process.env['BERTH_LOG_LEVEL'] === 'debug' && error instanceof Error) process.stderr.write(`${error.stack}\n`);
    return error instanceof RuntimeError && error.kind === 'cancelled' ? 130 : 1;
  }
}

async function dispatch(argv: readonly string[], composition: Composition, process: Process): Promise<number> {
  const asksHelp = argv.length === 0 || argv[0] === 'help' || /^(-h|--help)$/.test(argv[0] ?? '');
  if (asksHelp) return print(process.stdout, overview());
  const { path, rest } = findCommand(/^(-V|--version)$/.test(argv[0] ?? '') ? ['version'] : argv);
  const command = await commands[path]?.load();
  if (command === undefined) throw new UsageError(`unknown command "${path}"`);
  try {
    const parsed = parseCommandLine(command, rest);
    if (parsed.help) return print(process.stdout, helpOf(path, command));
    const { context, close } = makeContext(parsed, composition, process);
    try {
      return await command.run(context, parsed.args);
    } finally {
      await close();
    }
  } catch (error) {
    if (isUsageError(error)) throw new UsageError(`${error.message}\nSee berth ${path} --help.`);
    throw error;
  }
}

function print(output: Output, text: string): number {
  output.write(text);
  return 0;
}

function findCommand(argv: readonly string[]): { path: string; rest: readonly string[] } {
  const [first = '', second = ''] = argv;
  if (first in commands) return { path: first, rest: argv.slice(1) };
  const group = Object.keys(commands).filter((name) => name.startsWith(`${first} `));
  if (group.length === 0)
    throw new UsageError(`unknown command "${first}"${didYouMean(first, topNames())}\nSee berth --help.`);
  const path = `${first} ${second}`;
  if (path in commands) return { path, rest: argv.slice(2) };
  const names = group.map((name) => `berth ${name}`).join(', ');
  throw new UsageError(
    `${second === '' || second.startsWith('-') ? '' : `unknown command "${path}"; `}one of: ${names}`,
  );
}

const topNames = (): string[] => [...new Set(Object.keys(commands).map((name) => name.split(' ')[0] ?? ''))];

function makeContext(
  { configFile, configFlags }: ReturnType<typeof parseCommandLine>,
  composition: Composition,
  { stdout, stderr, env, signal }: Process,
): { context: Context; close: () => Promise<void> } {
  const { rootless } = composition;
  const input = { env, rootless, flags: configFlags, ...(configFile !== undefined && { file: configFile }) };
  const config = loadConfig(input);
  let connection: Promise<Connection> | undefined;
  const observer: Call['observer'] = {
    step: async (_name, work) => await work(),
    note: (level, message) => {
      if (level === 'warn' || level === 'error') stderr.write(`${level === 'warn' ? 'warning: ' : ''}${message}\n`);
    },
  };
  const context: Context = {
    config,
    configFile: configFile ?? env['BERTH_CONFIG'],
    configFlags,
    composition,
    stdout,
    stderr,
    signal,
    async connect({ share = false } = {}) {
      const { connectRuntime } = await import('./connect.js');
      connection ??= connectRuntime(config, composition, share);
      return (await connection).client;
    },
    call: (own = signal) => ({ signal: own, observer }),
  };
  return { context, close: async () => await (await connection?.catch(() => undefined))?.close() };
}
