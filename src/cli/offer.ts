import type { Config } from '../config.js';
import { serveAdmin, type AdminServer } from '../observe/admin.js';
import type { Observability } from '../observe/observer.js';
import type { Runtime } from '../runtime/facade.js';
import { callHandler } from './remote/server.js';
import { streamsHandler } from './remote/streams.js';

export interface Offer {
  readonly config: Config;
  readonly runtime: Runtime;
  readonly observability: Observability;
  readonly version: string;
}

/** Serves the admin socket over an opened runtime, so that other commands reach it while this process holds it. */
export function offerRuntime({ config, runtime, observability, version }: Offer): Promise<AdminServer> {
  return serveAdmin({
    ...config.admin,
    observability,
    unhealthy: () => unmet(runtime),
    routes: { 'POST /call': callHandler(runtime, observability, version) },
    upgrade: streamsHandler(runtime),
  });
}

const unmet = (runtime: Runtime): readonly string[] =>
  runtime
    .status()
    .conditions.filter(({ type, status }) => type === 'RuntimeReady' && !status)
    .map(({ reason, message }) => `${reason}: ${message}`);
