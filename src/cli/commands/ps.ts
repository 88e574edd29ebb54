import type { ContainerView, SandboxView } from '../../runtime/facade.js';
import { expectPositionals, type Command } from '../command.js';
import { formatAge, formatJson, renderTable, shortId } from '../text.js';

export const ps: Command = {
  usage: '[flags]',
  about: 'Lists running containers.',
  options: {
    all: { about: 'also those that do not run', short: 'a' },
    quiet: { about: 'ids only', short: 'q' },
    json: { about: 'everything, as JSON' },
  },
  async run(context, args) {
    expectPositionals(args);
    const client = await context.connect();
    const containers = await client.containers.list(args.has('all') ? {} : { state: 'running' });
    if (args.has('json')) context.stdout.write(formatJson(containers));
    else if (args.has('quiet')) context.stdout.write(containers.map(({ id }) => `${id}\n`).join(''));
    else {
      const pods = new Map((await client.sandboxes.list({})).map((pod) => [pod.id, pod]));
      const rows = containers.map((container) => row(container, pods.get(container.sandboxId)));
      context.stdout.write(renderTable(['ID', 'NAME', 'POD', 'IMAGE', 'STATE', 'CREATED'], rows));
    }
    return 0;
  },
};

function row({ id, config, imageName, state, exit, createdAt }: ContainerView, pod: SandboxView | undefined): string[] {
  const metadata = pod?.config.metadata;
  const podName = metadata === undefined ? '' : `${metadata.namespace}/${metadata.name}`;
  const ended = exit === undefined ? state : `${state} (${exit.reason === 'OOMKilled' ? 'OOM, ' : ''}${exit.code})`;
  return [shortId(id), config.metadata.name, podName, nameOf(config.image, imageName), ended, formatAge(createdAt)];
}

/** As the user wrote it; the kubelet replaces that by the id, and keeps the user's words beside it. */
function nameOf({ image, userSpecifiedImage }: ContainerView['config']['image'], known: string): string {
  if (userSpecifiedImage !== '') return userSpecifiedImage;
  return image.startsWith('sha256:') ? known : image;
}
