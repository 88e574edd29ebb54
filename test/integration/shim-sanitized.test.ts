import { sanitizedBuild } from './shim-harness.js';
import { shimSuite } from './shim-suite.js';

// The same program built with address and undefined-behaviour sanitizers: a fault ends the shim, and with it the test.
shimSuite(sanitizedBuild);
