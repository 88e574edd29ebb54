import type { Config } from '../config.js';
import { isKind, RuntimeError } from '../kit/errors.js';
import { createLogger } from '../observe/logger.js';
import { createObservability } from '../observe/observer.js';
import { noTracing } from '../observe/tracing.js';
import type { Composition } from './composition.js';
import { agentAnswers, remoteRuntime } from './remote/client.js';
import type { RuntimeClient } from './remote/client-types.js';

export interface Connection {
  readonly client: RuntimeClient;
  readonly remote: boolean;
}

/** Speaks to the agent, or opens the runtime here when none runs. */
export async function connectRuntime(
  config: Config,
  composition: Composition,
  agentOnly: boolean,
): Promise<Connection> {
  if (await agentAnswers(config.admin.socket)) return viaAgent(config, composition);
  if (agentOnly)
    throw new RuntimeError('unavailable', `no agent answers on ${config.admin.socket}; start one with "berth serve"`);
  const observability = createObservability({
    logger: createLogger({ level: config.log.level === 'debug' ? 'debug' : 'warn', format: 'text' }),
    metrics: undefined,
    tracing: noTracing,
  });
  try {
    return { client: await composition.openRuntime(config, observability), remote: false };
  } catch (error) {
    // An agent may have started between the question and the attempt.
    if (isKind(error, 'in-progress') && (await agentAnswers(config.admin.socket))) return viaAgent(config, composition);
    if (isKind(error, 'in-progress'))
      throw new RuntimeError(
        'in-progress',
        `${config.root} is held by another process, and no agent answers on ${config.admin.socket}: ${error.message}`,
        { cause: error },
      );
    throw error;
  }
}

const viaAgent = (config: Config, { version }: Composition): Connection => ({
  client: remoteRuntime(config.admin.socket, version),
  remote: true,
});
