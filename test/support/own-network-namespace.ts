/**
 * Runs a test file in network and mount namespaces of its own, so that no interface, rule or kernel parameter of the
 * machine is touched, and everything is gone when the process is, however it ends.
 *
 * ```ts
 * if (outsideOwnNamespace(import.meta.url)) reportTestsOf(import.meta.url);
 * else describe(…);
 * ```
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { skip } from './skip.js';

const marker = 'BERTH_TEST_NAMESPACE';

/** True in the process that mocha started, false in the one inside the namespaces. */
export const outsideOwnNamespace = (): boolean => process.env[marker] === undefined;

interface Report {
  readonly passes: readonly Outcome[];
  readonly failures: readonly Outcome[];
  readonly pending: readonly Outcome[];
}

interface Outcome {
  readonly title: string;
  readonly fullTitle: string;
  readonly err: { readonly message?: string; readonly stack?: string };
}

/** Runs the file inside, now, and defines one test here for each test there. */
export function reportTestsOf(suite: string, url: string): void {
  describe(suite, function () {
    if (process.getuid?.() !== 0) {
      it('needs root', function () {
        skip(this, 'needs root');
      });
      return;
    }
    const { report, output } = runInside(fileURLToPath(url));
    if (report === undefined) {
      it('runs in a network namespace of its own', () => {
        throw new Error(output);
      });
      return;
    }
    for (const { title } of report.passes) it(title, () => undefined);
    for (const { title } of report.pending) {
      it(title, function () {
        skip(this, 'inside its network namespace too');
      });
    }
    for (const { title, err } of report.failures) {
      it(title, () => {
        throw Object.assign(new Error(err.message), { stack: err.stack });
      });
    }
  });
}

function runInside(file: string): { report: Report | undefined; output: string } {
  const directory = mkdtempSync(join(tmpdir(), 'berth-netns-test-'));
  const reportPath = join(directory, 'report.json');
  try {
    const mocha = fileURLToPath(new URL('../../node_modules/mocha/bin/mocha.js', import.meta.url));
    // A tmpfs over /run/netns keeps `ip netns add` from leaving files there.
    const script = 'mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip link set lo up && exec "$@"';
    const run = spawnSync(
      'unshare',
      ['--net', '--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', process.execPath, mocha].concat([
        '--import=tsx',
        '--reporter=json',
        `--reporter-option=output=${reportPath}`,
        '--timeout=60000',
        file,
      ]),
      { env: { ...process.env, [marker]: '1' }, encoding: 'utf8', timeout: 300_000 },
    );
    const output = `${run.stdout}\n${run.stderr}\n${run.error?.message ?? ''}`;
    return { report: readReport(reportPath), output };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function readReport(path: string): Report | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Report;
  } catch {
    return undefined;
  }
}
