import type { Composition } from './composition.js';
import { runCli } from './main.js';

/**
 * Runs this process's command line and ends the process with its exit code. The first SIGINT or SIGTERM asks the
 * command to end in order, the second ends it at once.
 */
export async function runProcess(composition: Composition): Promise<never> {
  const interrupted = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void => {
    if (interrupted.signal.aborted) process.exit(128 + (signal === 'SIGINT' ? 2 : 15));
    interrupted.abort(new Error(signal));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  // A reader that went away (`berth ps | head -1`) is no error of ours.
  process.stdout.on('error', () => process.exit(0));
  const { stdout, stderr, env } = process;
  process.exit(await runCli(process.argv.slice(2), composition, { stdout, stderr, env, signal: interrupted.signal }));
}
