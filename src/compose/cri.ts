import type { Config } from '../config.js';
import type { WatchRequest } from '../cri/handler.js';
import { serveCri as serve } from '../cri/server.js';
import { serveStreaming } from '../cri/streaming/server.js';
import { tlsFiles } from '../cri/streaming/tls.js';
import type { Observability } from '../observe/observer.js';
import type { Runtime } from '../runtime/facade.js';

/** CRI on the configured socket, every request watched by the agent's observability. */
export async function serveCri(
  config: Config,
  runtime: Runtime,
  observability: Observability,
  version: string,
): Promise<{ close(): Promise<void> }> {
  const watch: WatchRequest = (method, subject) => {
    const request = observability.begin(method, { ...subject });
    return {
      observer: request.observer,
      end: ({ codeName, error }) => request.end(codeName, error, true),
    };
  };
  const { tlsCert, tlsKey, ...settings } = config.streaming;
  const streaming = await serveStreaming({
    ...settings,
    runtime,
    watch,
    ...(tlsCert === '' ? {} : { tls: tlsFiles(tlsCert, tlsKey) }),
  });
  const identity = { name: 'berth', version };
  const server = await serve({ runtime, socketPath: config.socket, identity, watch, streaming });
  return {
    async close() {
      await server.close(config.shutdown.timeoutMs);
      await streaming.close();
    },
  };
}
