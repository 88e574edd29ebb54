/** An agent to be killed: starts a shim and a container that writes 10 MB, says so, and waits for its end. */
import { containerPlan, newCall, plainBuild } from './shim-harness.js';
import { openNative } from '../../src/native/native.js';
import { openSupervisor } from '../../src/runtime/launch/supervisor.js';

const [dir = '', lines = '0'] = process.argv.slice(2);
const supervisor = openSupervisor({ native: openNative(), binary: plainBuild.binary });
const shim = await supervisor.launch('pod-of-test', dir);
const script = `i=0; while [ $i -lt ${lines} ]; do i=$((i+1)); printf '%0499d\\n' $i; done; exit 9`;
await shim.start(
  {
    containerId: 'c',
    plan: containerPlan(['/bin/sh', '-c', script]),
    logPath: `${dir}/c.log`,
    logLineBytes: 16384,
    stdin: false,
    stdinOnce: false,
    terminal: false,
    oomFile: '',
  },
  newCall(),
);
console.log(`started ${shim.pid}`);
setInterval(() => undefined, 1000);
