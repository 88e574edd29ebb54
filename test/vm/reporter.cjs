'use strict';
/** One JSON object a line behind `@@`, for the host that reads the serial console. */
const { Runner } = require('mocha');

const say = (event) => console.log(`@@ ${JSON.stringify(event)}`);
const titles = (test) => test.titlePath();

module.exports = class {
  constructor(runner) {
    const { EVENT_TEST_PASS, EVENT_TEST_FAIL, EVENT_TEST_PENDING, EVENT_RUN_END } = Runner.constants;
    runner.on(EVENT_TEST_PASS, (test) => say({ passed: titles(test), ms: test.duration }));
    runner.on(EVENT_TEST_PENDING, (test) => say({ skipped: titles(test) }));
    runner.on(EVENT_TEST_FAIL, (test, error) => say({ failed: titles(test), error: error.stack ?? String(error) }));
    runner.on(EVENT_RUN_END, () => say({ stats: runner.stats }));
  }
};
