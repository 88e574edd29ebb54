import { parseArgs, type ParseArgsConfig } from 'node:util';
import { configKeys, didYouMean, type NamedKey } from '../config.js';
import { RuntimeError } from '../kit/errors.js';
import type { Context } from './context.js';

/** One flag of a command. Without `value` it is a switch. */
export interface Option {
  readonly about: string;
  readonly short?: string;
  /** Name of the value in the help: `DIR`. */
  readonly value?: string;
  /** May be given more than once. */
  readonly multiple?: boolean;
}

export interface Command {
  /** Positional part of the usage line: `[options] IMAGE [COMMAND…]`. */
  readonly usage: string;
  readonly about: string;
  readonly options: Readonly<Record<string, Option>>;
  /** Examples and whatever a reader of --help should know. */
  readonly notes?: string;
  /** Flags end at the first argument that is none, so that a program's own flags pass through. */
  readonly passThrough?: boolean;
  /** Lists every configuration flag in --help instead of the common ones. */
  readonly allConfigFlags?: boolean;
  /** The exit code. */
  run(context: Context, args: Arguments): Promise<number>;
}

export interface Arguments {
  readonly positionals: readonly string[];
  has(flag: string): boolean;
  value(flag: string): string | undefined;
  values(flag: string): readonly string[];
}

/** A mistake in the command line: exit code 2, and a pointer to --help. */
export class UsageError extends Error {}

const globalOptions: Readonly<Record<string, Option>> = {
  config: { about: 'configuration file instead of /etc/berth/config.toml', value: 'FILE' },
  help: { about: 'show this help', short: 'h' },
};
const commonConfigFlags = new Set(['root', 'state', 'log-level']);

export interface Parsed {
  readonly args: Arguments;
  readonly help: boolean;
  readonly configFile: string | undefined;
  readonly configFlags: Readonly<Record<string, string>>;
}

/** Throws UsageError. Configuration flags are taken by every command; a command's own flags go before them. */
export function parseCommandLine(command: Command, argv: readonly string[]): Parsed {
  const options = allOptions(command);
  const cut = command.passThrough === true ? firstPositional(argv, options) : argv.length;
  const { values, positionals } = parseStrictly(argv.slice(0, cut), options);
  const configFlags = configKeys.filter(({ flag }) => !(flag in command.options) && values[flag] !== undefined);
  return {
    args: {
      positionals: [...positionals, ...argv.slice(argv[cut] === '--' ? cut + 1 : cut)],
      has: (flag) => values[flag] !== undefined,
      value: (flag) => listOf(values[flag]).at(-1),
      values: (flag) => listOf(values[flag]),
    },
    help: values['help'] !== undefined,
    configFile: listOf(values['config']).at(-1),
    configFlags: Object.fromEntries(configFlags.map(({ flag }) => [flag, listOf(values[flag]).join(',')])),
  };
}

type Values = Readonly<Record<string, unknown>>;
type NodeOptions = NonNullable<ParseArgsConfig['options']>;

const listOf = (value: unknown): readonly string[] =>
  Array.isArray(value) ? (value as readonly string[]) : typeof value === 'string' ? [value] : [];

function allOptions(command: Command): NodeOptions {
  const config = configKeys.map(({ flag }): [string, NodeOptions[string]] => [
    flag,
    { type: 'string', multiple: true },
  ]);
  const own = Object.entries({ ...globalOptions, ...command.options }).map(
    ([name, option]): [string, NodeOptions[string]] => [
      name,
      {
        type: option.value === undefined ? 'boolean' : 'string',
        multiple: option.value !== undefined,
        ...(option.short !== undefined && { short: option.short }),
      },
    ],
  );
  return Object.fromEntries([...config, ...own]);
}

function parseStrictly(argv: readonly string[], options: NodeOptions): { values: Values; positionals: string[] } {
  try {
    const { values, positionals } = parseArgs({ args: [...argv], options, allowPositionals: true, strict: true });
    return { values, positionals };
  } catch (error) {
    throw new UsageError(explain(error as Error, options));
  }
}

/** Node's message, shortened, with the nearest flag. */
function explain(error: Error, options: NodeOptions): string {
  const unknown = /Unknown option '(-+)([^']+)'/.exec(error.message);
  if (unknown === null) return error.message;
  const [, dashes = '', name = ''] = unknown;
  const hint = dashes === '--' ? didYouMean(name, Object.keys(options)).replace('"', '"--') : '';
  return `unknown flag ${dashes}${name}${hint}`;
}

/** Index of the first argument that is neither a flag nor a flag's value, or of `--`. */
function firstPositional(argv: readonly string[], options: NodeOptions): number {
  for (let at = 0; at < argv.length; at++) {
    const arg = argv[at] ?? '';
    if (arg === '--' || !/^-./.test(arg)) return at;
    if (takesNext(arg, options)) at++;
  }
  return argv.length;
}

function takesNext(arg: string, options: NodeOptions): boolean {
  if (arg.startsWith('--')) return !arg.includes('=') && options[arg.slice(2)]?.type === 'string';
  const short = arg.at(-1);
  return Object.values(options).some((option) => option.short === short && option.type === 'string');
}

export function helpOf(path: string, command: Command): string {
  const flags = Object.entries(command.options).map(([name, option]) => flagLine(name, option));
  const shown = configKeys.filter(({ flag }) => command.allConfigFlags === true || commonConfigFlags.has(flag));
  return [
    `Usage: berth ${path} ${command.usage}`.trimEnd(),
    '',
    command.about,
    ...(flags.length > 0 ? ['', 'Flags:', ...flags] : []),
    ...(command.notes === undefined ? [] : ['', command.notes]),
    '',
    command.allConfigFlags === true ? 'Configuration:' : 'Configuration (all flags: berth serve --help):',
    ...Object.entries(globalOptions).map(([name, option]) => flagLine(name, option)),
    ...shown.map(configFlagLine),
    '',
  ].join('\n');
}

const column = (left: string, right: string): string => `  ${left.padEnd(36)} ${right}`;

function flagLine(name: string, { short, value, about }: Option): string {
  const left = `${short === undefined ? '    ' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`;
  return column(left, about);
}

const configFlagLine = ({ flag, key }: NamedKey): string =>
  column(
    `    --${flag} ${key.kind.toUpperCase()}`,
    `${key.about}${key.choices ? ` One of: ${key.choices.join(', ')}.` : ''}`,
  );

/** Exactly the positionals that `names` says, the last of which may be left out or repeated as `[NAME]`, `NAME…`. */
export function expectPositionals(args: Arguments, ...names: readonly string[]): readonly string[] {
  const least = names.filter((name) => !name.startsWith('[')).length;
  const most = names.at(-1)?.replace(']', '').endsWith('…') === true ? Infinity : names.length;
  const { positionals } = args;
  if (positionals.length < least) throw new UsageError(`missing ${names[positionals.length]?.replace('…', '') ?? ''}`);
  if (positionals.length > most) throw new UsageError(`unexpected argument "${positionals[names.length] ?? ''}"`);
  return positionals;
}

/** Says what happens without it too, for scripts that rely on it. */
export const rootlessOption: Readonly<Record<string, Option>> = {
  rootless: { about: 'as an ordinary user, in a user namespace; the default for everybody but root' },
};

/** Refuses `--rootless` to root, who would get the host's rights all the same. */
export function checkRootless({ composition }: Pick<Context, 'composition'>, args: Arguments): void {
  if (args.has('rootless') && !composition.rootless)
    throw new UsageError('--rootless is for ordinary users, and this is root');
}

export const isUsageError = (error: unknown): error is UsageError => error instanceof UsageError;

/** Integer of a flag; UsageError otherwise. */
export function integerFlag(args: Arguments, flag: string): number | undefined {
  const value = args.value(flag);
  if (value === undefined) return undefined;
  if (!/^-?\d{1,15}$/.test(value)) throw new UsageError(`--${flag} must be an integer, not "${value}"`);
  return Number(value);
}

export const cancelled = (): RuntimeError => new RuntimeError('cancelled', 'interrupted');
