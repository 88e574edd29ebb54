import type * as wire from '../../../api/cri/v1/generated/api.js';
import { RuntimeError, invalid } from '../../kit/errors.js';
import type { Runtime } from '../../runtime/facade.js';
import { changes, type MakeHandler } from '../handler.js';
import { objectId } from '../translate/container.js';
import { texts } from '../translate/fields.js';
import type { CommandOptions } from './command.js';
import { readPort } from './port-forward.js';
import type { StreamingServer } from './server.js';

/** Exec, Attach and PortForward: checked here, carried out by whoever comes to the URL. */
export function streamingMethods({ containers, sandboxes }: Runtime, streaming: StreamingServer, handle: MakeHandler) {
  /** The full id of a container that runs. */
  const running = (request: { readonly containerId: string }): string => {
    const { id, state } = containers.status(objectId('container_id', request.containerId));
    if (state !== 'running') throw new RuntimeError('wrong-state', `container ${id} is not running`);
    return id;
  };
  return {
    exec: handle(changes('Exec', ofContainer), (request: wire.ExecRequest): wire.ExecResponse => {
      if (request.cmd.length === 0) throw invalid('cmd', 'must not be empty');
      const command = texts('cmd', request.cmd);
      return { url: streaming.urlFor({ kind: 'exec', containerId: running(request), command, ...streams(request) }) };
    }),
    attach: handle(changes('Attach', ofContainer), (request: wire.AttachRequest): wire.AttachResponse => ({
      url: streaming.urlFor({ kind: 'attach', containerId: running(request), ...streams(request) }),
    })),
    portForward: handle(
      changes('PortForward', (request: wire.PortForwardRequest) => ({ sandbox: request.podSandboxId })),
      (request): wire.PortForwardResponse => {
        const { id, state } = sandboxes.status(objectId('pod_sandbox_id', request.podSandboxId));
        if (state !== 'ready') throw new RuntimeError('wrong-state', `pod sandbox ${id} is not ready`);
        const ports = request.port.map((port, index) => {
          if (readPort(String(port)) === undefined) throw invalid(`port[${index}]`, 'must be 1 to 65535');
          return port;
        });
        return { url: streaming.urlFor({ kind: 'portforward', sandboxId: id, ports }) };
      },
    ),
  };
}

const ofContainer = (request: { readonly containerId: string }) => ({ container: request.containerId });

type StreamFlags = Pick<wire.ExecRequest, 'stdin' | 'stdout' | 'stderr' | 'tty'>;

function streams({ stdin, stdout, stderr, tty }: StreamFlags): CommandOptions {
  if (!stdin && !stdout && !stderr) throw invalid('stdin', 'one of stdin, stdout and stderr must be set');
  if (tty && stderr) throw invalid('stderr', 'a terminal has no stderr of its own');
  return { stdin, stdout, stderr, terminal: tty };
}
