import type { Config } from '../config.js';
import type { Observability } from '../observe/observer.js';
import type { Runtime } from '../runtime/facade.js';

/** What `src/main.ts` gives to the commands. Each loads its part of the program only when called. */
export interface Composition {
  /** The release, as package.json has it. */
  readonly version: string;
  /** Started by an ordinary user, or inside a user namespace: places are the user's, rights those of a namespace. */
  readonly rootless: boolean;
  /**
   * Brings a rootless process into the namespaces of its user's agent, made if need be: it starts again from the
   * beginning, so nothing may have been done yet. Returns when it is there, and at once where nothing is to be done.
   */
  enterNamespaces(config: Config): Promise<void>;
  /**
   * Opens the runtime on the configured directories, after recovery. Throws `in-progress` when another process holds
   * the data directory.
   */
  openRuntime(config: Config, observability: Observability): Promise<Runtime>;
  /** Serves CRI on the configured socket. `close` lets running requests end within the configured time. */
  serveCri(config: Config, runtime: Runtime, observability: Observability): Promise<{ close(): Promise<void> }>;
  /** A launch plan in the wire format as lines for people, one a step. */
  explainPlan(bytes: Uint8Array): Promise<string>;
}
