import { SYS } from './constants.js';
import { Descriptor } from './descriptor.js';
import { errnoName } from './library.js';
import type { Native } from './native.js';
import { buried } from './user-namespace.js';

/** A process that does nothing but keep namespaces, told apart from later ones of its number. */
export interface Keeper {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat. */
  readonly startTime: bigint;
}

export interface KeptKinds {
  /** A user namespace of their own; without it they belong to the one we are in. */
  readonly user: boolean;
  readonly network: boolean;
}

type HelperNative = Pick<Native, 'files' | 'spawn' | 'processes' | 'library'>;

/**
 * Starts a process that keeps a mount namespace and what `kinds` says, until it is killed. It is nobody's child. With a
 * user namespace `mapIds` is called once, to write the id maps of the process. Throws SyscallError or what `mapIds`
 * throws. Blocks for some milliseconds.
 */
export function keepNamespaces(
  native: HelperNative,
  program: string,
  kinds: KeptKinds,
  mapIds: (pid: number) => void,
): Keeper {
  const words = [...(kinds.user ? ['user'] : []), ...(kinds.network ? ['net'] : [])];
  using helper = startHelper(native, program, ['--keep-namespaces', ...words]);
  if (kinds.user) {
    mapIds(Number(helper.expect('U')));
    native.files.write(helper.input, Buffer.from('m'));
  }
  return { pid: Number(helper.expect('P')), startTime: helper.expect('R') };
}

/** A netlink socket in the network namespace of a process. Throws SyscallError. */
export function namespaceSocket(native: HelperNative, program: string, pid: number, protocol: number): Descriptor {
  using helper = startHelper(native, program, ['--socket', `${pid}`, `${protocol}`]);
  const theirs = Number(helper.expect('S'));
  using pidfd = native.processes.open(helper.pid);
  if (pidfd === undefined) throw new Error('the helper for a netlink socket has ended');
  const fd = native.library.raw('pidfd_getfd', SYS.pidfd_getfd, 'netlink', pidfd.fd, theirs, 0);
  return new Descriptor(native.library, fd);
}

/** Arguments of the program that runs `argv` in the user and mount namespace of a keeper. */
export const joinArguments = (keeper: Keeper, argv: readonly string[]): readonly string[] => [
  'berth-shim',
  '--join',
  `${keeper.pid}`,
  `${keeper.startTime}`,
  ...argv,
];

/** Executes another program in the place of this process, which keeps its number. Returns only by throwing. */
export function replaceProcess(
  { library }: Pick<Native, 'library'>,
  path: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): never {
  // Node marks its standard streams close-on-exec.
  for (const fd of [0, 1, 2]) keepOverExec(library, fd);
  const variables = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
  library.now('execve', path, path, [...args, null], [...variables, null]);
  throw new Error('execve returned');
}

const F_SETFD = 2;

/** Lets a descriptor survive execve(2), or no longer. */
export function keepOverExec(library: Native['library'], fd: number, keep = true): void {
  library.now('fcntl', `descriptor ${fd}`, fd, F_SETFD, keep ? 0 : FD_CLOEXEC);
}

const FD_CLOEXEC = 1;

interface Helper extends Disposable {
  readonly pid: number;
  /** The write end of its standard input. */
  readonly input: number;
  /** The number that comes with an answer of this letter. */
  expect(letter: string): bigint;
}

function startHelper(native: HelperNative, program: string, args: readonly string[]): Helper {
  const { files, spawn } = native;
  const input = files.pipe();
  const output = files.pipe();
  using inputRead = input.read;
  using outputWrite = output.write;
  const descriptors = [inputRead.fd, outputWrite.fd, 'null' as const];
  const pid = spawn({ path: program, args: ['berth-shim', ...args], env: [], descriptors, newSession: true });
  return {
    pid,
    get input() {
      return input.write.fd;
    },
    expect: (letter) => readAnswer(native, output.read.fd, letter),
    [Symbol.dispose]() {
      input.write[Symbol.dispose]();
      output.read[Symbol.dispose]();
      void buried(pid, native);
    },
  };
}

/** A letter and eight bytes, or "E" errno text. */
function readAnswer({ files }: Pick<Native, 'files'>, fd: number, letter: string): bigint {
  const answer = Buffer.alloc(answerSize);
  const length = files.read(fd, answer) ?? 0;
  if (length === answerSize && answer[0] === letter.charCodeAt(0)) return answer.readBigUInt64LE(1);
  if (length < 5 || answer[0] !== 0x45) throw new Error('the helper for namespaces ended without a word');
  const rest = Buffer.alloc(128);
  const what = Buffer.concat([answer.subarray(5, length), rest.subarray(0, files.read(fd, rest) ?? 0)]);
  throw new Error(`${what.toString()}: ${errnoName(answer.readUInt32LE(1))}`);
}

const answerSize = 9;
