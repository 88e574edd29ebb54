import type { Config } from '../config.js';
import { sleep } from '../kit/deadline.js';
import { isKind, RuntimeError } from '../kit/errors.js';
import { createLogger } from '../observe/logger.js';
import { createObservability } from '../observe/observer.js';
import { noTracing } from '../observe/tracing.js';
import type { Composition } from './composition.js';
import { offerRuntime } from './offer.js';
import { agentAnswers, remoteRuntime } from './remote/client.js';
import type { RuntimeClient } from './remote/client-types.js';

export interface Connection {
  readonly client: RuntimeClient;
  readonly remote: boolean;
  close(): Promise<void>;
}

/** Milliseconds to wait for another command that holds the data directory, and between looks. */
const patienceMs = 3000;
const lookMs = 50;

/**
 * Speaks to the process that has the runtime open, or opens it here when there is none. With `share` it is then
 * offered to other commands for as long as this one runs; short commands rather let the next one wait.
 */
export async function connectRuntime(config: Config, composition: Composition, share: boolean): Promise<Connection> {
  const { version } = composition;
  const giveUp = Date.now() + patienceMs;
  for (;;) {
    if (await agentAnswers(config.admin.socket)) {
      const client = remoteRuntime(config.admin.socket, version);
      return { client, remote: true, close: () => Promise.resolve() };
    }
    await composition.enterNamespaces(config);
    try {
      return await openHere(config, composition, share);
    } catch (error) {
      if (!isKind(error, 'in-progress')) throw error;
      if (Date.now() > giveUp) throw heldByAnother(config, error);
    }
    await sleep(lookMs);
  }
}

async function openHere(config: Config, composition: Composition, share: boolean): Promise<Connection> {
  const observability = createObservability({
    logger: createLogger({ level: config.log.level === 'debug' ? 'debug' : 'warn', format: 'text' }),
    metrics: undefined,
    tracing: noTracing,
  });
  const runtime = await composition.openRuntime(config, observability);
  if (!share) return { client: runtime, remote: false, close: () => runtime.close() };
  const { version } = composition;
  const quiet = { ...config, admin: { ...config.admin, address: '' } };
  const admin = await offerRuntime({ config: quiet, runtime, observability, version });
  const close = async (): Promise<void> => {
    await admin.close();
    await runtime.close();
  };
  return { client: runtime, remote: false, close };
}

const heldByAnother = (config: Config, cause: RuntimeError): RuntimeError =>
  new RuntimeError(
    'in-progress',
    `${config.root} is held by another process, and no agent answers on ${config.admin.socket}: ${cause.message}`,
    { cause },
  );
