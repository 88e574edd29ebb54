import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Call } from '../../kit/call.js';
import { RuntimeError, asRuntimeError, messageOf } from '../../kit/errors.js';
import { bundlePlan } from './bundle.js';
import { StepRecorder } from '../../kit/step-recorder.js';
import type { Parts } from '../parts.js';
import type { ContainerRecord } from '../state/records.js';

export type StartContainerDeps = Pick<Parts, 'settings' | 'paths' | 'host' | 'registry' | 'cgroups' | 'lifecycle'>;

/** Exit code of a container whose program never ran; what shells use for "cannot execute". */
const startErrorCode = 128;

/**
 * StartContainer: the shim executes the plan. Success means that the program was exec'ed; a failing step makes the
 * container EXITED with reason StartError and its words as message. Starting a running container is refused.
 */
export async function startContainer(idOrPrefix: string, deps: StartContainerDeps, call: Call): Promise<void> {
  const { registry } = deps;
  const { record } = registry.container(idOrPrefix);
  const sandbox = registry.sandbox(record.sandboxId);
  if (record.stage !== 'created' || record.exit !== undefined) {
    throw new RuntimeError('wrong-state', `container ${record.id} is not in state created`);
  }
  const { shim } = sandbox;
  if (shim === undefined || sandbox.record.stage !== 'ready') {
    throw new RuntimeError('wrong-state', `pod sandbox ${sandbox.record.id} is not ready`);
  }
  const observer = new StepRecorder(call.observer);
  registry.updateContainer(record.id, { stage: 'starting' });
  try {
    const plan = await observer.step('read plan', () => bundlePlan(deps.paths.bundle(sandbox.record.id, record.id)));
    if (record.logPath !== '')
      await observer.step('make log directory', () => mkdir(dirname(record.logPath), { recursive: true, mode: 0o755 }));
    if (deps.lifecycle.active)
      await observer.step('ask plugins', () => deps.lifecycle.tell('start-container', sandbox.record, record));
    const started = await observer.step('execute plan', () =>
      shim.start(
        {
          containerId: record.id,
          plan,
          logPath: record.logPath,
          logLineBytes: deps.settings.logLineBytes,
          stdin: record.config.stdin,
          stdinOnce: record.config.stdinOnce,
          terminal: record.config.tty,
          oomFile: oomFile(record, deps),
          cgroupDir: killDirectory(record, deps),
        },
        call,
      ),
    );
    started.warnings.forEach((warning) => call.observer.note('warn', warning, { container: record.id }));
    registry.updateContainer(record.id, {
      stage: 'started',
      pid: started.pid,
      startTime: started.startTime,
      startedAt: started.startedAt,
      steps: [...record.steps, ...observer.steps],
    });
  } catch (error) {
    // Nothing of a start that failed may go on, even when the program had begun.
    await deps.cgroups.kill(record.cgroupPath);
    registry.updateContainer(record.id, {
      stage: 'created',
      exit: { code: startErrorCode, finishedAt: deps.host.now(), reason: 'StartError', message: messageOf(error) },
    });
    throw asRuntimeError(error, `start container ${record.id}`);
  }
  const now = registry.container(record.id).record;
  if (deps.lifecycle.active && now.exit === undefined)
    await deps.lifecycle.tell('container-started', sandbox.record, now);
}

/** A cgroup directory that holds all of a container's processes, for signals to every one of them. */
function killDirectory(record: ContainerRecord, deps: StartContainerDeps): string {
  const { layout } = deps.cgroups;
  const root = layout.v2Root ?? layout.v1Roots.get('freezer') ?? layout.v1Roots.get('pids');
  return root === undefined ? '' : join(root, record.cgroupPath);
}

/** Where the kernel counts OOM kills of a container's cgroup. */
function oomFile(record: ContainerRecord, deps: StartContainerDeps): string {
  const { layout } = deps.cgroups;
  const memory = layout.v1Roots.get('memory');
  if (memory !== undefined) return join(memory, record.cgroupPath, 'memory.oom_control');
  return layout.v2Root === undefined ? '' : join(layout.v2Root, record.cgroupPath, 'memory.events');
}
