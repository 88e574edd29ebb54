import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openNative } from '../../src/native/native.js';
import type { ShimExit } from '../../src/runtime/launch/shim.js';
import { openSupervisor } from '../../src/runtime/launch/supervisor.js';
import { build, joinLog, plainBuild, readLog, until } from './shim-harness.js';

const lines = 20_000;

describe('an agent killed while a container writes 10 MB', function () {
  this.timeout(60_000);
  const native = openNative();
  let dir: string;
  let shimPid = 0;

  before(() => build(plainBuild));
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'berth-shim-'))));
  afterEach(() => {
    if (shimPid > 0) native.processes.kill(shimPid, 9);
    rmSync(dir, { recursive: true, force: true });
  });

  it('costs no byte of the log and no exit', async () => {
    const program = fileURLToPath(new URL('shim-agent.ts', import.meta.url));
    const agent = spawn(process.execPath, ['--import=tsx', program, dir, String(lines)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [first] = (await once(agent.stdout, 'data')) as [Buffer];
    shimPid = Number(/^started (\d+)/.exec(first.toString())?.[1]);
    await until(() => statSync(join(dir, 'c.log')).size > 100_000, 'output');
    agent.kill('SIGKILL');
    await once(agent, 'exit');
    assert.ok(readFileSync(`/proc/${shimPid}/cmdline`, 'utf8').startsWith('berth-shim'));

    const supervisor = openSupervisor({ native, binary: plainBuild.binary });
    const shim = await supervisor.connect('pod-of-test', dir);
    assert.ok(shim !== undefined && shim.pid === shimPid);
    const exit = await new Promise<ShimExit>((resolve) => shim.onExit(resolve));
    assert.equal(exit.code, 9);
    const text = joinLog(readLog(join(dir, 'c.log'))).toString();
    assert.equal(text.length, lines * 500);
    assert.ok(text.split('\n').every((line, index) => index === lines || Number(line) === index + 1));
    assert.equal((await shim.state()).containers[0]?.exit?.code, 9);
    await shim.shutdown();
    supervisor.close();
  });
});
