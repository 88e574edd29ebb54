import { RuntimeError } from '../../kit/errors.js';
import { expectPositionals, integerFlag, type Command } from '../command.js';
import { logBytes, offsetOfLast, readLog } from '../log-lines.js';
import { resolveContainer } from '../resolve.js';

export const logs: Command = {
  usage: '[flags] CONTAINER',
  about: 'Shows what a container wrote, its standard error on standard error.',
  options: {
    follow: { about: 'wait for more until the container has ended', short: 'f' },
    tail: { about: 'only the last entries', value: 'N' },
    timestamps: { about: 'put the time in front of each line', short: 't' },
  },
  async run(context, args) {
    const [reference = ''] = expectPositionals(args, 'CONTAINER');
    const tail = integerFlag(args, 'tail');
    const client = await context.connect({ share: args.has('follow') });
    const { id, logPath } = await resolveContainer(client, reference);
    if (logPath === '') throw new RuntimeError('not-found', `container "${reference}" writes no log`);
    const ended = async (): Promise<boolean> => (await client.containers.status(id)).state !== 'running';
    const from = tail === undefined ? 0 : await offsetOfLast(logPath, Math.max(0, tail));
    const options = { from, signal: context.signal, ...(args.has('follow') && { ended }) };
    for await (const entry of readLog(logPath, options)) {
      const output = entry.stream === 'stdout' ? context.stdout : context.stderr;
      if (args.has('timestamps')) output.write(`${entry.time} `);
      output.write(logBytes(entry));
    }
    return 0;
  },
};
