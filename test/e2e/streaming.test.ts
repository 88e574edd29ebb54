/** Exec, attach, events and stats of a whole agent, asked as the kubelet asks. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startAgent, type TestAgent } from '../support/agent.js';
import { spdyClient } from '../support/spdy-client.js';
import { buildTestImage } from '../support/test-image.js';

const image = 'localhost/busybox:1';
const protocols = ['v4.channel.k8s.io'];

describe('streaming from the agent', function () {
  this.timeout(60_000);
  let layout = '';
  let agent: TestAgent;
  let podSandboxId = '';
  let containerId = '';

  before(async () => {
    layout = buildTestImage(mkdtempSync(join(tmpdir(), 'image-')), { name: image });
    agent = await startAgent({ env: { BERTH_SHUTDOWN_TIMEOUT: '1h' } });
    const { code, stderr } = await agent.berth('image', 'import', layout);
    assert.equal(code, 0, stderr);
    const logDirectory = join(agent.dir, 'logs');
    mkdirSync(logDirectory);
    const { runtime } = agent.cri;
    const metadata = { name: 'pod', uid: 'uid', namespace: 'e2e', attempt: 0 };
    const sandboxConfig = { metadata, logDirectory, linux: {} };
    ({ podSandboxId } = await runtime.runPodSandbox({ config: sandboxConfig }));
    const command = ['sh', '-c', 'while read line; do echo "got $line"; done'];
    const config = {
      metadata: { name: 'main' },
      image: { image },
      command,
      logPath: 'main.log',
      stdin: true,
      linux: {},
    };
    ({ containerId } = await runtime.createContainer({ podSandboxId, config, sandboxConfig }));
    await runtime.startContainer({ containerId });
  });
  after(async () => {
    rmSync(layout, { recursive: true });
    if (agent.pid === 0) await agent.start();
    assert.deepEqual(await agent.close(), []);
  });

  const exec = async (...cmd: string[]) => {
    const { url } = await agent.cri.runtime.exec({ containerId, cmd, stdout: true, stderr: true });
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\/exec\/[\w-]+$/);
    const client = await spdyClient(url, protocols);
    const [error, stdout] = [client.open({ streamtype: 'error' }), client.open({ streamtype: 'stdout' })];
    client.open({ streamtype: 'stderr' });
    return { client, error, stdout };
  };

  it('runs commands and attaches, before and after a crash', async () => {
    for (const crash of [false, true]) {
      if (crash) {
        await agent.crash();
        await agent.start();
      }
      const { client, error, stdout } = await exec('echo', 'hello');
      await Promise.all([error.ended, stdout.ended]);
      client.close();
      assert.equal(stdout.text(), 'hello\n');
      assert.match(error.text(), /"Success"/);

      const { url } = await agent.cri.runtime.attach({ containerId, stdin: true, stdout: true });
      const attached = await spdyClient(url, protocols);
      attached.open({ streamtype: 'error' });
      const [input, output] = [attached.open({ streamtype: 'stdin' }), attached.open({ streamtype: 'stdout' })];
      input.send(`line ${String(crash)}\n`);
      while (!output.text().includes(`got line ${String(crash)}`)) await sleep(10);
      attached.close();
    }
  });

  it('refuses what cannot be', async () => {
    const { runtime } = agent.cri;
    await assert.rejects(runtime.exec({ containerId, cmd: ['true'] }), /INVALID_ARGUMENT/);
    await assert.rejects(runtime.exec({ containerId, stdout: true }), /INVALID_ARGUMENT/);
    await assert.rejects(
      runtime.exec({ containerId, cmd: ['true'], tty: true, stdout: true, stderr: true }),
      /INVALID_ARGUMENT/,
    );
    await assert.rejects(runtime.exec({ containerId: 'nothing', cmd: ['true'], stdout: true }), /NOT_FOUND/);
    await assert.rejects(runtime.portForward({ podSandboxId, port: [0] }), /INVALID_ARGUMENT/);
  });

  it('tells usage of the pod, and metrics that are described', async () => {
    const { runtime } = agent.cri;
    const { stats } = await runtime.podSandboxStats({ podSandboxId });
    assert.equal(stats?.linux?.containers[0]?.attributes?.id, containerId);
    assert.equal(stats.linux.network?.defaultInterface?.name, 'eth0');
    const { descriptors } = await runtime.listMetricDescriptors();
    const { podMetrics } = await runtime.listPodSandboxMetrics();
    const known = new Set(descriptors.map(({ name }) => name));
    assert.ok(known.has('container_cpu_usage_seconds_total'));
    const metrics = podMetrics.flatMap((pod) => [...pod.metrics, ...pod.containerMetrics.flatMap((c) => c.metrics)]);
    assert.ok(metrics.length > 50);
    assert.ok(metrics.every(({ name }) => known.has(name)));
  });

  it('stops at once although clients stay, and ends their commands', async () => {
    const { client } = await exec('sleep', '4715');
    const events = agent.cri.runtime.getContainerEvents().catch((error: unknown) => String(error));
    await sleep(200);
    await agent.stop(); // well within the time that requests would get to finish
    assert.match(String(await events), /UNAVAILABLE/);
    await client.goodbye;
    await agent.start();
    const left = await agent.cri.runtime.execSync({ containerId, cmd: ['ps', '-o', 'args'], timeout: 10n });
    assert.doesNotMatch(left.stdout.toString(), /sleep 4715/);
  });
});
