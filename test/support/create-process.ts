import type { Config } from '../../src/config.js';
import { openRuntime } from '../../src/compose/runtime.js';
import type { CreateContainerInput } from '../../src/runtime/facade.js';
import { silentObserver, type Observer } from '../../src/kit/observer.js';

/** What `create-process` is told, as JSON. */
export interface CreateOrder {
  readonly config: Config;
  readonly input: CreateContainerInput;
  readonly dieAt: { readonly step: string; readonly when: 'before' | 'after' };
}

/** A process of its own that creates a container and is killed at one of the steps, as a crash would. */
const { config, input, dieAt } = JSON.parse(process.argv[2] ?? '') as CreateOrder;

const observer: Observer = {
  ...silentObserver,
  async step(name, work) {
    if (name === dieAt.step && dieAt.when === 'before') process.kill(process.pid, 'SIGKILL');
    const result = await work();
    if (name === dieAt.step) process.kill(process.pid, 'SIGKILL');
    return result;
  },
};

const { runtime } = await openRuntime(config, silentObserver);
await runtime.containers.create(input, { signal: new AbortController().signal, observer });
process.exit(1);
