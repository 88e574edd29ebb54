import { expectPositionals, integerFlag, type Command } from '../command.js';
import { resolveContainer } from '../resolve.js';

export const exec: Command = {
  usage: '[flags] CONTAINER COMMAND…',
  about: 'Runs a command in a running container, shows its output when it has ended, and exits with its exit code.',
  options: { timeout: { about: 'seconds after which it is killed', value: 'N' } },
  passThrough: true,
  notes: 'The command gets no input and no terminal; "berth run -t" gives one.',
  async run(context, args) {
    const [reference = '', ...command] = expectPositionals(args, 'CONTAINER', 'COMMAND…');
    const timeout = integerFlag(args, 'timeout') ?? 0;
    const client = await context.connect();
    const { id } = await resolveContainer(client, reference);
    const { stdout, stderr, exitCode } = await client.containers.execSync(id, command, timeout, context.call());
    context.stdout.write(stdout);
    context.stderr.write(stderr);
    return exitCode;
  },
};
