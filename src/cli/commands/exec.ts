import { expectPositionals, integerFlag, UsageError, type Command } from '../command.js';
import type { Context } from '../context.js';
import type { RuntimeClient } from '../remote/client-types.js';
import { resolveContainer } from '../resolve.js';
import { joinTerminal } from '../terminal.js';

export const exec: Command = {
  usage: '[flags] CONTAINER COMMAND…',
  about: 'Runs a command in a running container and exits with its exit code.',
  options: {
    interactive: { about: 'give it this command’s standard input', short: 'i' },
    tty: { about: 'give it a terminal, joined to this one', short: 't' },
    timeout: { about: 'seconds after which it is killed', value: 'N' },
  },
  passThrough: true,
  async run(context, args) {
    const [reference = '', ...command] = expectPositionals(args, 'CONTAINER', 'COMMAND…');
    const timeout = integerFlag(args, 'timeout');
    const terminal = args.has('tty');
    const input = terminal || args.has('interactive');
    if (timeout !== undefined && input) throw new UsageError('--timeout goes with neither --interactive nor --tty');
    const client = await context.connect({ share: true });
    const { id } = await resolveContainer(client, reference);
    if (timeout !== undefined) return await collect(context, client, id, { command, timeout });
    const streams = await client.containers.exec(id, { args: command, stdin: input, terminal }, context.call());
    const output = { stdout: context.stdout, stderr: context.stderr };
    const resize = (rows: number, columns: number): Promise<void> => streams.resize(rows, columns);
    const leave = joinTerminal(streams, { terminal, input, output, resize });
    // Closing the streams ends the command with its tree.
    context.signal.addEventListener('abort', leave, { once: true });
    try {
      return await streams.exited;
    } finally {
      context.signal.removeEventListener('abort', leave);
      leave();
    }
  },
};

interface Timed {
  readonly command: readonly string[];
  readonly timeout: number;
}

async function collect(
  context: Context,
  client: RuntimeClient,
  id: string,
  { command, timeout }: Timed,
): Promise<number> {
  const { stdout, stderr, exitCode } = await client.containers.execSync(id, command, timeout, context.call());
  context.stdout.write(stdout);
  context.stderr.write(stderr);
  return exitCode;
}
