import { expectPositionals, type Command } from '../command.js';
import { formatAge, formatJson, renderTable, shortId } from '../text.js';

export const pods: Command = {
  usage: '[flags]',
  about: 'Lists pods.',
  options: {
    quiet: { about: 'ids only', short: 'q' },
    json: { about: 'everything, as JSON' },
  },
  async run(context, args) {
    expectPositionals(args);
    const client = await context.connect();
    const sandboxes = await client.sandboxes.list({});
    if (args.has('json')) context.stdout.write(formatJson(sandboxes));
    else if (args.has('quiet')) context.stdout.write(sandboxes.map(({ id }) => `${id}\n`).join(''));
    else {
      const rows = sandboxes.map(({ id, config: { metadata, security }, state, ips, createdAt }) => [
        shortId(id),
        metadata.name,
        metadata.namespace,
        state,
        security.namespaces.network === 'node' ? 'host' : ips.join(','),
        formatAge(createdAt),
      ]);
      context.stdout.write(renderTable(['ID', 'NAME', 'NAMESPACE', 'STATE', 'ADDRESS', 'CREATED'], rows));
    }
    return 0;
  },
};
