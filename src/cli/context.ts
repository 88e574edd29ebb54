import type { Config } from '../config.js';
import type { Call } from '../kit/call.js';
import type { Composition } from './composition.js';
import type { RuntimeClient } from './remote/client-types.js';

export interface Output {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  write(data: string | Uint8Array): unknown;
  /** A stream's; a buffer of a test has none. */
  on?(event: 'error', listener: () => void): unknown;
}

/** What a command works with; everything of the process it may touch. */
export interface Context {
  readonly config: Config;
  readonly configFile: string | undefined;
  readonly configFlags: Readonly<Record<string, string>>;
  readonly composition: Composition;
  readonly stdout: Output;
  readonly stderr: Output;
  /** Aborted by the first SIGINT, SIGTERM or SIGHUP. */
  readonly signal: AbortSignal;
  /**
   * The runtime: that of the agent when one answers, else opened in this process and closed when the command ends.
   * `share` offers an opened one to other commands meanwhile, for commands that take long.
   */
  connect(options?: { readonly share?: boolean }): Promise<RuntimeClient>;
  /** A call under `signal` whose warnings go to standard error. */
  call(signal?: AbortSignal): Call;
}
