import type { Config } from '../config.js';
import type { WatchRequest } from '../cri/handler.js';
import { serveCri as serve } from '../cri/server.js';
import { serveStreaming } from '../cri/streaming/server.js';
import { selfSigned } from '../cri/streaming/self-signed.js';
import { tlsFiles, tlsFixed, type TlsSource } from '../cri/streaming/tls.js';
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
  const { address, port, idleTimeoutMs, creationTimeoutMs } = config.streaming;
  const tls = tlsSource(config.streaming);
  const streaming = await serveStreaming({
    address,
    port,
    idleTimeoutMs,
    creationTimeoutMs,
    runtime,
    watch,
    ...(tls === undefined ? {} : { tls }),
  });
  await runtime.openToPlugins(version);
  const identity = { name: 'berth', version };
  const server = await serve({ runtime, socketPath: config.socket, identity, watch, streaming });
  return {
    async close() {
      await server.close(config.shutdown.timeoutMs);
      await streaming.close();
    },
  };
}

function tlsSource({ tls, tlsCert, tlsKey, address }: Config['streaming']): TlsSource | undefined {
  if (tls === 'off') return undefined;
  return tls === 'files' ? tlsFiles(tlsCert, tlsKey) : tlsFixed(selfSigned(address, new Date()));
}
