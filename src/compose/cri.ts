import type { Config } from '../config.js';
import { serveCri as serve } from '../cri/server.js';
import type { Observability } from '../observe/observer.js';
import type { Runtime } from '../runtime/facade.js';

/** CRI on the configured socket, every request watched by the agent's observability. */
export async function serveCri(
  config: Config,
  runtime: Runtime,
  observability: Observability,
  version: string,
): Promise<{ close(): Promise<void> }> {
  const server = await serve({
    runtime,
    socketPath: config.socket,
    identity: { name: 'berth', version },
    watch: (method, subject) => {
      const request = observability.begin(method, { ...subject });
      return {
        observer: request.observer,
        end: ({ codeName, error }) => request.end(codeName, error, true),
      };
    },
  });
  return { close: () => server.close(config.shutdown.timeoutMs) };
}
