import { notFound } from '../../kit/errors.js';
import { expectPositionals, integerFlag, type Command } from '../command.js';
import { resolveTarget } from '../resolve.js';

export const stop: Command = {
  usage: '[flags] NAME…',
  about: 'Stops containers, or pods with all their containers.',
  options: { time: { about: 'seconds to end by itself before it is killed (10)', value: 'N' } },
  async run(context, args) {
    const names = expectPositionals(args, 'NAME…');
    const seconds = integerFlag(args, 'time') ?? 10;
    const client = await context.connect();
    for (const name of names) {
      const target = await resolveTarget(client, name);
      if (target === undefined) throw notFound('container or pod', name);
      if (target.kind === 'container') await client.containers.stop(target.view.id, seconds, context.call());
      else await client.sandboxes.stop(target.view.id, context.call());
      context.stdout.write(`${name}\n`);
    }
    return 0;
  },
};
