import { rm as removeFiles } from 'node:fs/promises';
import { notFound, RuntimeError } from '../../kit/errors.js';
import { expectPositionals, type Command } from '../command.js';
import type { Context } from '../context.js';
import type { RuntimeClient } from '../remote/client-types.js';
import { resolveTarget, type Target } from '../resolve.js';
import { isRunPod } from '../run-config.js';

export const rm: Command = {
  usage: '[flags] NAME…',
  about: 'Removes containers, or pods with all their containers.',
  options: { force: { about: 'also when it runs', short: 'f' } },
  async run(context, args) {
    const names = expectPositionals(args, 'NAME…');
    const client = await context.connect();
    for (const name of names) {
      const target = await resolveTarget(client, name);
      if (target === undefined) throw notFound('container or pod', name);
      if (!args.has('force')) await refuseRunning(client, target, name);
      await remove(context, client, target);
      context.stdout.write(`${name}\n`);
    }
    return 0;
  },
};

async function refuseRunning(client: RuntimeClient, target: Target, name: string): Promise<void> {
  const filter = target.kind === 'pod' ? { sandboxId: target.view.id } : { id: target.view.id };
  const running = await client.containers.list({ ...filter, state: 'running' });
  if (running.length > 0)
    throw new RuntimeError('wrong-state', `${target.kind} "${name}" is running; stop it or use --force`);
}

/** A pod made by `berth run` goes with its only container. */
async function remove(context: Context, client: RuntimeClient, target: Target): Promise<void> {
  const podId = target.kind === 'pod' ? target.view.id : target.view.sandboxId;
  const pod = target.kind === 'pod' ? target.view : await client.sandboxes.status(podId);
  if (target.kind === 'container' && !isRunPod(pod.config)) {
    await client.containers.stop(target.view.id, 0, context.call());
    return await client.containers.remove(target.view.id, context.call());
  }
  await client.sandboxes.stop(podId, context.call());
  await client.sandboxes.remove(podId, context.call());
  if (isRunPod(pod.config)) await removeFiles(pod.config.logDirectory, { recursive: true, force: true });
}
