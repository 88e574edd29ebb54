import { existsSync, readFileSync } from 'node:fs';
import { RuntimeError } from '../../kit/errors.js';
import { expectPositionals, type Command } from '../command.js';
import type { Context } from '../context.js';
import { resolveTarget } from '../resolve.js';

export const planExplain: Command = {
  usage: 'NAME|FILE',
  about: 'Prints the launch plan of a container or pod, or of a plan file, one step a line.',
  options: {},
  async run(context, args) {
    const [what = ''] = expectPositionals(args, 'NAME|FILE');
    const bytes = existsSync(what) ? readFileSync(what) : await planOf(context, what);
    const text = await context.composition.explainPlan(bytes);
    context.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
    return 0;
  },
};

async function planOf(context: Context, name: string): Promise<Uint8Array> {
  const client = await context.connect();
  const target = await resolveTarget(client, name);
  if (target === undefined) throw new RuntimeError('not-found', `no container, pod or file "${name}"`);
  const requests = target.kind === 'container' ? client.containers : client.sandboxes;
  const plan = await requests.plan(target.view.id);
  if (plan !== undefined) return plan;
  throw new RuntimeError('not-found', `${target.kind} "${name}" has no plan on this host`);
}
