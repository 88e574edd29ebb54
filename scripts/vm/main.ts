/**
 * `npm run test:vm -- [--shell] [SPEC…]`: runs specs (paths or globs; default test/vm/specs.json) in a virtual machine
 * with cgroup v2 and all controllers, on Debian's cloud kernel under emulation. Downloads and the base disk are kept in
 * build/vm. Prints one line a test and the counts; exits 1 when anything failed or nothing ran.
 */
import { appendFileSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { makeAppDisk } from './app-disk.js';
import { makeBaseDisk } from './base-disk.js';
import { fetchKernel } from './kernel.js';
import { runMachine, runShell } from './machine.js';
import type { VmEvent } from './machine.js';

/** No test takes as long; the emulator's processors sometimes wait for each other for ever. */
const silenceMs = 3 * 60_000;

interface Settings {
  readonly specs: readonly string[];
  readonly programs: readonly string[];
  readonly modules: readonly string[];
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

const project = join(import.meta.dirname, '../..');
const cache = join(project, 'build/vm');
mkdirSync(cache, { recursive: true });

const arguments_ = process.argv.slice(2);
const shell = arguments_.includes('--shell');
const given = arguments_.filter((argument) => argument !== '--shell');
const settings = JSON.parse(readFileSync(join(project, 'test/vm/specs.json'), 'utf8')) as Settings;
const specs = given.length > 0 ? given : settings.specs;

const started = Date.now();
const kernel = fetchKernel(cache);
const base = makeBaseDisk(project, cache, kernel, settings.programs);
const app = join(cache, `app-${process.pid}.tar`);
process.once('exit', () => {
  rmSync(app, { force: true });
  rmSync(`${app}.d`, { recursive: true, force: true });
});
const chosen = makeAppDisk({ project, archive: app, specs, modules: settings.modules, shell });
if (shell) await runShell({ kernel, base, app, temporary: cache });
else await runTests(chosen);

async function runTests(chosen: readonly string[], again = true): Promise<void> {
  console.log(`Booting Linux ${kernel.release} with ${chosen.length} specs`);
  const log = join(cache, 'console.log');
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  const failures: VmEvent[] = [];
  let exit: number | undefined;
  await runMachine({ kernel, base, app, temporary: cache }, log, silenceMs, (event) => {
    exit = event.exit ?? exit;
    if (event.failed !== undefined) failures.push(event);
    show(event, counts);
  });
  if (exit === undefined && counts.failed === 0 && again) {
    console.log('The test machine hung without a failed test: it is started once more.');
    return await runTests(chosen, false);
  }
  failures.forEach((event, index) => console.log(`\n${index + 1}) ${event.failed?.join(' › ')}\n${event.error}`));
  // A machine that died, or a spec that could not be loaded, reports no failing test.
  if (exit === undefined || (exit !== 0 && counts.failed === 0)) {
    counts.failed += 1;
    console.log(`\nThe test machine ended early. The end of its console (${log}):\n${lastLines(log, 40)}`);
  }
  report(counts);
}

function show(event: VmEvent, counts: Counts): void {
  if (event.passed !== undefined) {
    counts.passed += 1;
    console.log(`  ✔ ${event.passed.join(' › ')} (${event.ms} ms)`);
  } else if (event.failed !== undefined) {
    counts.failed += 1;
    console.log(`  ✘ ${event.failed.join(' › ')}`);
  } else if (event.skipped !== undefined) {
    counts.skipped += 1;
    console.log(`  - ${event.skipped.join(' › ')}`);
  }
}

/** Counts also go to the file that sums up several suites, when there is one. */
function report(counts: Counts): void {
  const totals = process.env['BERTH_TEST_TOTALS'];
  if (totals !== undefined && totals !== '') appendFileSync(totals, `${JSON.stringify({ suite: 'vm', ...counts })}\n`);
  console.log(`\nIn the test machine, ${Math.round((Date.now() - started) / 1000)} s in all:`);
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  process.exitCode = counts.failed > 0 || counts.passed === 0 ? 1 : 0;
}

function lastLines(file: string, count: number): string {
  return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-count).join('\n');
}
