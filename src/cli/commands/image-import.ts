import { resolve } from 'node:path';
import { expectPositionals, type Command } from '../command.js';
import { pullProgress } from '../progress.js';

export const imageImport: Command = {
  usage: '[flags] PATH',
  about: 'Imports every image of an OCI layout (directory or archive) or a docker-save archive.',
  options: {
    name: { about: 'name for an image that has none, or instead of its own', value: 'NAME' },
    quiet: { about: 'no progress', short: 'q' },
  },
  async run(context, args) {
    const [path = ''] = expectPositionals(args, 'PATH');
    const client = await context.connect({ share: true });
    const progress = args.has('quiet') ? undefined : pullProgress(context.stderr);
    const images = await client.images.import(resolve(path), args.value('name'), context.call(), progress?.onProgress);
    progress?.end();
    for (const { id, repoTags } of images) context.stdout.write(`${[id, ...repoTags].join(' ')}\n`);
    return 0;
  },
};
