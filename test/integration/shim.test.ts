import { plainBuild } from './shim-harness.js';
import { shimSuite } from './shim-suite.js';

shimSuite(plainBuild);
