import { notFound } from '../../kit/errors.js';
import { expectPositionals, type Command } from '../command.js';
import type { RuntimeClient } from '../remote/client-types.js';
import { resolveTarget } from '../resolve.js';
import { formatJson } from '../text.js';
import { drawWaterfalls } from '../draw-waterfalls.js';

export const inspect: Command = {
  usage: '[flags] NAME',
  about: 'Prints what is known about a container, pod or image as JSON.',
  options: { waterfall: { about: 'draw where the time of its start went', short: 'w' } },
  async run(context, args) {
    const [name = ''] = expectPositionals(args, 'NAME');
    const client = await context.connect();
    const facts = await lookUp(client, name);
    context.stdout.write(args.has('waterfall') ? drawWaterfalls(facts, context.stdout.columns) : formatJson(facts));
    return 0;
  },
};

async function lookUp(client: RuntimeClient, name: string): Promise<Readonly<Record<string, unknown>>> {
  const target = await resolveTarget(client, name);
  if (target?.kind === 'container') return await client.containers.inspect(target.view.id);
  if (target?.kind === 'pod') return await client.sandboxes.inspect(target.view.id);
  if ((await client.images.get(name)) === undefined) throw notFound('container, pod or image', name);
  return await client.images.inspect(name);
}
