'use strict';
/**
 * Mocha's spec reporter, which also appends one JSON line of counts to the file named by BERTH_TEST_SUMMARY, so that
 * a run of several suites can be summed up. A run that something keeps alive after its last test (what a failed test
 * left open, as a rule) says so and ends.
 */
const lingerMs = 15_000;
const { appendFileSync } = require('node:fs');
const { reporters, Runner } = require('mocha');

class SummaryReporter extends reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    runner.once(Runner.constants.EVENT_RUN_END, () => {
      setTimeout(() => {
        const open = process.getActiveResourcesInfo().join(', ');
        process.stderr.write(`Something is still open ${lingerMs / 1000} s after the last test: ${open}\n`);
        process.exit(runner.stats.failures > 0 ? 1 : 0);
      }, lingerMs).unref();
      const file = process.env.BERTH_TEST_SUMMARY;
      if (!file) return;
      const { passes, failures, pending } = runner.stats;
      const suite = process.env.BERTH_TEST_SUITE ?? 'mocha';
      appendFileSync(file, `${JSON.stringify({ suite, passed: passes, failed: failures, skipped: pending })}\n`);
    });
  }
}

module.exports = SummaryReporter;
