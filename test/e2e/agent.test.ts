/** The agent as the kubelet meets it: over its socket, through crashes, with its own eyes on itself. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ContainerState, PodSandboxState } from '../../api/cri/v1/generated/api.js';
import { startAgent, type TestAgent } from '../support/agent.js';
import { buildTestImage } from '../support/test-image.js';

const image = 'localhost/busybox:1';

describe('the agent', () => {
  let layout = '';
  let agent: TestAgent;
  before(() => {
    layout = buildTestImage(mkdtempSync(join(tmpdir(), 'image-')), { name: image });
  });
  after(() => rmSync(layout, { recursive: true }));
  beforeEach(async () => {
    agent = await startAgent();
    const { code, stderr } = await agent.berth('image', 'import', layout);
    assert.equal(code, 0, stderr);
  });
  afterEach(async function () {
    if (this.currentTest?.state === 'failed') console.log(agent.log());
    if (agent.pid === 0) await agent.start();
    assert.deepEqual(await agent.close(), []);
  });

  let pods = 0;
  const podConfig = () => {
    const logDirectory = join(agent.dir, `logs-${++pods}`);
    mkdirSync(logDirectory);
    return {
      metadata: { name: `pod-${pods}`, uid: `uid-${pods}`, namespace: 'e2e', attempt: 0 },
      hostname: 'pod',
      logDirectory,
      linux: {},
    };
  };
  const runPod = async (script: string) => {
    const config = podConfig();
    const { runtime } = agent.cri;
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    const container = {
      metadata: { name: 'main', attempt: 0 },
      image: { image },
      command: ['sh', '-c', script],
      logPath: 'main.log',
      linux: {},
    };
    const { containerId } = await runtime.createContainer({ podSandboxId, config: container, sandboxConfig: config });
    await runtime.startContainer({ containerId });
    return { podSandboxId, containerId, log: join(config.logDirectory, 'main.log') };
  };
  const statusOf = async (containerId: string) => {
    const { status } = await agent.cri.runtime.containerStatus({ containerId });
    assert.ok(status);
    return status;
  };
  const until = async (containerId: string, state: ContainerState) => {
    while ((await statusOf(containerId)).state !== state) await sleep(20);
    return await statusOf(containerId);
  };

  it('keeps pods, logs and exit codes through kill -9', async () => {
    const busy = await runPod('i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done');
    const ends = await runPod('sleep 0.5; echo done; exit 42');
    await agent.crash();
    await sleep(1000);
    await agent.start();

    assert.equal((await statusOf(busy.containerId)).state, ContainerState.CONTAINER_RUNNING);
    const ended = await until(ends.containerId, ContainerState.CONTAINER_EXITED);
    assert.deepEqual([ended.exitCode, ended.reason], [42, 'Error']);
    assert.ok(ended.finishedAt > ended.startedAt);
    const { exitCode, stdout } = await agent.cri.runtime.execSync({
      containerId: busy.containerId,
      cmd: ['echo', 'back'],
    });
    assert.deepEqual([exitCode, Buffer.from(stdout).toString()], [0, 'back\n']);
    await agent.cri.runtime.stopContainer({ containerId: busy.containerId, timeout: 0n });
    const lines = readFileSync(busy.log, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => Number(line.split(' ').at(-1)));
    assert.deepEqual(
      lines,
      lines.map((_, index) => index + 1),
    );
  });

  it('leaves pods alone when it is stopped, and takes them up again', async () => {
    const { podSandboxId, containerId } = await runPod('sleep 1000');
    await agent.stop();
    await agent.start();
    const { status } = await agent.cri.runtime.podSandboxStatus({ podSandboxId });
    assert.equal(status?.state, PodSandboxState.SANDBOX_READY);
    assert.equal((await statusOf(containerId)).state, ContainerState.CONTAINER_RUNNING);
    assert.match((await agent.berth('doctor')).stdout, /Nothing is left over/);
  });

  it('says how it is over its admin socket, which only root may use', async () => {
    await runPod('sleep 1000');
    const socket = join(agent.dir, 's/admin.sock');
    assert.equal(statSync(socket).mode & 0o777, 0o600);
    assert.equal(statSync(agent.socket).mode & 0o777, 0o600);
    assert.equal(statSync(join(agent.dir, 's')).mode & 0o777, 0o700);
    assert.deepEqual(JSON.parse(await get(socket, '/healthz')), { healthy: true, reasons: [] });
    const metrics = await get(socket, '/metrics');
    assert.match(metrics, /berth_request_seconds_count\{method="RunPodSandbox",status="OK"\} 1/);
    assert.match(metrics, /berth_pods\{state="ready"\} 1/);
    assert.match(metrics, /berth_containers\{state="running"\} 1/);
    assert.match(metrics, /berth_step_seconds_count\{method="StartContainer",step="execute plan"\} 1/);
    assert.deepEqual(JSON.parse(await get(socket, '/debug/inflight')), []);
  });

  it('draws where the time of a start went', async () => {
    const { podSandboxId, containerId } = await runPod('sleep 1000');
    const pod = await agent.berth('inspect', '--waterfall', podSandboxId);
    assert.match(pod.stdout, /^RunPodSandbox\n {2}[^]*start shim +[\d.]+ ms[^]*total +[\d.]+ ms\n$/);
    const container = await agent.berth('inspect', '--waterfall', containerId);
    assert.match(container.stdout, /^CreateContainer\n[^]*\nStartContainer\n[^]*execute plan/);
  });

  it('reads its configuration again on SIGHUP', async () => {
    process.kill(agent.pid, 'SIGHUP');
    for (let attempt = 0; attempt < 100 && !agent.log().includes('configuration read again'); attempt++)
      await sleep(20);
    assert.match(agent.log(), /configuration read again, 0 keys differ/);
  });

  it('refuses to start beside another on the same directories', () => {
    const env = { ...process.env, ...agent.env };
    assert.throws(
      () => execFileSync('bin/berth', ['serve'], { env, stdio: 'pipe', timeout: 20_000 }),
      (error) => /another berth holds|already serves/.test(String((error as { stderr?: Buffer }).stderr)),
    );
  });
});

function get(socketPath: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => resolve(text));
    });
    asked.on('error', reject).end();
  });
}
