import { build, openBench, type Bench, type Build } from './shim-harness.js';
import { logsSuite } from './shim/logs.js';
import { exitsSuite } from './shim/exits.js';
import { execsSuite } from './shim/execs.js';
import { streamsSuite } from './shim/streams.js';
import { dialsSuite } from './shim/dials.js';
import { lifeSuite } from './shim/life.js';

/** What every build of the shim must do; each test has a shim of its own. */
export function shimSuite(which: Build): void {
  describe(which.name, function () {
    this.timeout(120_000);
    let bench: Bench;
    const current = (): Bench => bench;

    before(() => build(which));
    beforeEach(async () => (bench = await openBench(which)));
    afterEach(() => bench.close());

    describe('what containers say', () => logsSuite(current, which));
    describe('how they end', () => exitsSuite(current));
    describe('commands', () => execsSuite(current, which));
    describe('streams', () => streamsSuite(current));
    describe('connections', () => dialsSuite(current));
    describe('the shim', () => lifeSuite(current, which));
  });
}
