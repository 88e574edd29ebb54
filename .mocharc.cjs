'use strict';
/**
 * Test files are imported, never required: with require(esm) a module that is both imported by a test and loaded by
 * import() in the code would exist twice, and no error would be an instance of its class.
 */
const importOnly = process.features.require_module ? ['no-experimental-require-module'] : [];

module.exports = {
  'node-option': ['import=tsx', ...importOnly],
  extension: ['ts'],
  timeout: 60_000,
  slow: 5000,
  reporter: 'scripts/mocha-reporter.cjs',
};
