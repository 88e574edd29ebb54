/** Loaded into an agent under test: SIGUSR2 has it collect its garbage, so that what it holds can be told from what it has not yet let go. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc');
process.on('SIGUSR2', () => collect());
