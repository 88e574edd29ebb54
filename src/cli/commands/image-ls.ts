import type { Image } from '../../runtime/model.js';
import { expectPositionals, type Command } from '../command.js';
import { formatBytes, formatJson, renderTable, shortId } from '../text.js';

export const imageLs: Command = {
  usage: '[flags] [IMAGE]',
  about: 'Lists images, or those that a name or id means.',
  options: {
    quiet: { about: 'ids only', short: 'q' },
    json: { about: 'everything, as JSON' },
  },
  async run(context, args) {
    const [image] = expectPositionals(args, '[IMAGE]');
    const client = await context.connect();
    const images = await client.images.list(image === undefined ? undefined : { image });
    if (args.has('json')) context.stdout.write(formatJson(images));
    else if (args.has('quiet')) context.stdout.write(images.map(({ id }) => `${id}\n`).join(''));
    else context.stdout.write(renderTable(['NAME', 'ID', 'SIZE', 'PINNED'], images.flatMap(rows)));
    return 0;
  },
};

function rows({ id, repoTags, repoDigests, size, pinned }: Image): readonly string[][] {
  const names = repoTags.length > 0 ? repoTags : [repoDigests[0] ?? '<none>'];
  return names.map((name) => [name, shortId(id), formatBytes(size), pinned ? 'yes' : '']);
}
