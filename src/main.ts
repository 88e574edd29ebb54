#!/usr/bin/env node
/** The composition root: hands the parts of the program to the command line, each loaded only when it is used. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { runCli } from './cli/main.js';
import type { Composition } from './cli/composition.js';
import type { Observability } from './observe/observer.js';
import type { Observer } from './kit/observer.js';
import { isInUserNamespace, parseIdMaps } from './runtime/idmap/mapping.js';

const version = (): string => {
  const up = import.meta.url.includes('/dist/src/') ? '../../package.json' : '../package.json';
  const text = readFileSync(fileURLToPath(new URL(up, import.meta.url)), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
};

const rootless =
  process.geteuid?.() !== 0 ||
  isInUserNamespace(
    parseIdMaps(readFileSync('/proc/self/uid_map', 'utf8'), readFileSync('/proc/self/gid_map', 'utf8')),
  );

const composition: Composition = {
  version: version(),
  rootless,
  async enterNamespaces(config) {
    if (!rootless) return;
    const { enterNamespaces } = await import('./compose/rootless/enter.js');
    await enterNamespaces(config);
  },
  async openRuntime(config, observability) {
    const { openRuntime } = await import('./compose/runtime.js');
    const { runtime } = await openRuntime(config, backgroundObserver(observability));
    return runtime;
  },
  async serveCri(config, runtime, observability) {
    const { serveCri } = await import('./compose/cri.js');
    return await serveCri(config, runtime, observability, composition.version);
  },
  async explainPlan(bytes) {
    const [{ decodePlan }, { explainPlan }] = await Promise.all([
      import('./runtime/plan/wire.js'),
      import('./runtime/plan/explain.js'),
    ]);
    return explainPlan(decodePlan(bytes));
  },
};

/** For what happens outside any request: recovery, retries of residue. */
function backgroundObserver({ logger }: Observability): Observer {
  return {
    step: async (_name, work) => await work(),
    note: (level, message, facts) => logger[level](facts ?? {}, message),
  };
}

/** The first signal asks to end, the second one ends. */
function endSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(130);
      controller.abort();
    });
  }
  return controller.signal;
}

process.exitCode = await runCli(process.argv.slice(2), composition, {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signal: endSignal(),
});
