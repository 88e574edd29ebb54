import { notFound } from '../../kit/errors.js';
import { expectPositionals, type Command } from '../command.js';

export const imageRm: Command = {
  usage: 'IMAGE…',
  about: 'Removes images with all their names. Layers still used by containers stay until those are removed.',
  options: {},
  async run(context, args) {
    const images = expectPositionals(args, 'IMAGE…');
    const client = await context.connect();
    for (const reference of images) {
      if ((await client.images.get(reference)) === undefined) throw notFound('image', reference);
      await client.images.remove(reference, context.call());
      context.stdout.write(`${reference}\n`);
    }
    return 0;
  },
};
