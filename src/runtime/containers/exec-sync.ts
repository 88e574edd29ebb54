import type { Call } from '../../kit/call.js';
import { RuntimeError, invalid } from '../../kit/errors.js';
import type { ExecOutcome } from '../facade.js';
import type { Parts } from '../parts.js';
import { compileExecPlan } from '../plan/compile-exec.js';
import { encodePlan } from '../plan/wire.js';
import { joinFacts } from './launch-facts.js';
import type { ContainerRecord } from '../state/records.js';

export type ExecSyncDeps = Pick<Parts, 'settings' | 'registry' | 'cgroups' | 'kernel' | 'templates'>;

/**
 * ExecSync: a join plan through the shim. The command gets the container's environment, user, capabilities and seccomp
 * filter; on timeout only its own process tree is killed, and the error says so with what it had written until then.
 */
export async function execSync(
  idOrPrefix: string,
  command: readonly string[],
  timeoutSeconds: number,
  deps: ExecSyncDeps,
  call: Call,
): Promise<ExecOutcome> {
  if (command.length === 0 || command[0] === '') throw invalid('cmd', 'names no program');
  const { record, view } = deps.registry.container(idOrPrefix);
  const { shim } = deps.registry.sandbox(record.sandboxId);
  if (view.state !== 'running' || shim === undefined) {
    throw new RuntimeError('wrong-state', `container ${record.id} is not running`);
  }
  const plan = await call.observer.step('compile join plan', () =>
    execPlan(record, { args: command, terminal: false }, deps),
  );
  const result = await call.observer.step('execute', () =>
    shim.execSync(
      {
        containerId: record.id,
        plan,
        timeoutMs: Math.max(0, timeoutSeconds) * 1000,
        limitBytes: deps.settings.execOutputBytes,
        drainMs: deps.settings.drainMs,
      },
      call,
    ),
  );
  if (result.timedOut) {
    throw new RuntimeError('deadline', `command "${command.join(' ')}" timed out after ${timeoutSeconds} s`);
  }
  return { stdout: result.stdout, stderr: result.stderr, exitCode: result.exitCode };
}

/** The plan of a command that joins a container, in the wire format. */
export function execPlan(
  record: ContainerRecord,
  { args, terminal }: { readonly args: readonly string[]; readonly terminal: boolean },
  deps: ExecSyncDeps,
): Uint8Array {
  const { spec, seccomp } = deps.templates.get(record);
  const facts = { ...joinFacts(record, { args, terminal }, deps), ...seccomp };
  const env = spec.process?.env ?? [];
  return encodePlan(compileExecPlan(spec, terminal ? { ...facts, env: withTerm(env) } : facts));
}

/** Programs on a terminal must know its kind; the container's own word wins. */
const withTerm = (env: readonly Uint8Array[]): readonly Uint8Array[] =>
  env.some((entry) => Buffer.from(entry).toString('latin1').startsWith('TERM='))
    ? env
    : [...env, Buffer.from('TERM=xterm')];
