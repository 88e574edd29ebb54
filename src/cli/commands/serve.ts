import { configChanges, loadConfig } from '../../config.js';
import { messageOf } from '../../kit/errors.js';
import { createLogger, type Logger } from '../../observe/logger.js';
import { createMetrics } from '../../observe/metrics.js';
import { createObservability } from '../../observe/observer.js';
import { openTracing } from '../../observe/tracing.js';
import { withWaterfalls } from '../../observe/waterfalls.js';
import type { Runtime } from '../../runtime/facade.js';
import { checkRootless, expectPositionals, rootlessOption, type Command } from '../command.js';
import type { Context } from '../context.js';
import { offerRuntime } from '../offer.js';

export const serve: Command = {
  usage: '[flags]',
  about: [
    'Runs the agent: serves the CRI on a unix socket until SIGTERM or SIGINT. Pods go on without it.',
    'SIGHUP reads the configuration again and applies what may change while running.',
  ].join('\n'),
  options: { ...rootlessOption },
  allConfigFlags: true,
  async run(context, args) {
    expectPositionals(args);
    checkRootless(context, args);
    const { config, composition, signal } = context;
    await composition.enterNamespaces(config);
    const { version } = composition;
    const logger = createLogger(config.log);
    const tracing = await openTracing(config.tracing, version);
    const opened: { runtime?: Runtime } = {};
    const metrics = config.metrics.enabled ? createMetrics(version, sources(opened)) : undefined;
    const observability = createObservability({ logger, metrics, tracing });
    const runtime = withWaterfalls(await composition.openRuntime(config, observability));
    opened.runtime = runtime;
    const closers: (() => Promise<void>)[] = [() => runtime.close(), () => tracing.close()];
    const stopReloading = reloadOnHangup(context, logger);
    try {
      const admin = await offerRuntime({ config, runtime, observability, version });
      closers.unshift(() => admin.close());
      const cri = await composition.serveCri(config, runtime, observability);
      closers.unshift(() => cri.close());
      logger.info({ socket: config.socket, version }, `serving on ${config.socket}`);
      await aborted(signal);
      logger.info('stopping; pods go on');
    } finally {
      stopReloading();
      for (const close of closers) await close().catch((error: unknown) => logger.error(messageOf(error)));
    }
    return 0;
  },
};

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) =>
    signal.aborted ? resolve() : signal.addEventListener('abort', () => resolve(), { once: true }),
  );

/** The gauges are made before the runtime is open. */
const sources = (opened: { readonly runtime?: Runtime }) => ({
  pods: () => countBy(opened.runtime?.sandboxes.list({}) ?? []),
  containers: () => countBy(opened.runtime?.containers.list({}) ?? []),
});

function countBy(views: readonly { readonly state: string }[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { state } of views) counts[state] = (counts[state] ?? 0) + 1;
  return counts;
}

function reloadOnHangup(context: Context, logger: Logger): () => void {
  const reload = (): void => {
    try {
      const { configFile, configFlags, config } = context;
      const fresh = loadConfig({
        env: process.env,
        flags: configFlags,
        ...(configFile !== undefined && { file: configFile }),
      });
      const changes = configChanges(config, fresh);
      logger.level = fresh.log.level;
      for (const { name, reloadable } of changes)
        if (!reloadable) logger.warn(`${name} has changed and takes effect at the next start`);
      logger.info(`configuration read again, ${changes.length} keys differ from the start`);
    } catch (error) {
      logger.error(`configuration not read again: ${messageOf(error)}`);
    }
  };
  process.on('SIGHUP', reload);
  return () => void process.off('SIGHUP', reload);
}
