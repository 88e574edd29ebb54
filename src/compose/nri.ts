import type { Config } from '../config.js';
import type { Observer } from '../kit/observer.js';
import { openNri, type Nri } from '../nri/open.js';
import { nobody } from '../runtime/lifecycle.js';
import { lifecycleHost } from '../runtime/lifecycle-host.js';
import type { Parts } from '../runtime/parts.js';

/** Who takes part in the lives of pods. Nobody does before `start`. */
export function openPlugins({ nri }: Config, parts: () => Parts, note: Observer['note']): Nri {
  if (!nri.enable) return { lifecycle: nobody, start: async () => undefined, close: async () => undefined };
  return openNri({
    socketPath: nri.socketPath,
    pluginDir: nri.pluginPath,
    configDir: nri.pluginConfigPath,
    registrationTimeoutMs: nri.registrationTimeoutMs,
    requestTimeoutMs: nri.requestTimeoutMs,
    runtimeName: 'berth',
    host: lifecycleHost(parts),
    note,
  });
}
