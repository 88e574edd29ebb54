import type { Call } from '../../kit/call.js';
import { invalid } from '../../kit/errors.js';
import type { CommandStreams, ExecCommand } from '../facade.js';
import { runningContainer } from './attach.js';
import { execPlan, type ExecSyncDeps } from './exec-sync.js';

/** Exec: a join plan through the shim, with somebody at its streams. */
export async function execContainer(
  idOrPrefix: string,
  command: ExecCommand,
  deps: ExecSyncDeps,
  call: Call,
): Promise<CommandStreams> {
  if (command.args.length === 0 || command.args[0] === '') throw invalid('cmd', 'names no program');
  const { id, shim } = runningContainer(idOrPrefix, deps);
  const { record } = deps.registry.container(id);
  const plan = await call.observer.step('compile join plan', () => execPlan(record, command, deps));
  const { stdin, terminal } = command;
  const request = { containerId: id, plan, stdin, terminal, drainMs: deps.settings.drainMs };
  return await call.observer.step('execute', () => shim.exec(request, call));
}
