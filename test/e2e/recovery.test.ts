import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ContainerState, NamespaceMode, PodSandboxState } from '../../api/cri/v1/generated/api.js';
import { startAgent, type TestAgent } from '../support/agent.js';
import { buildTestImage } from '../support/test-image.js';

const image = 'test.example/recovery:1';

describe('an agent that is killed', function () {
  this.timeout(180_000);
  let agent: TestAgent;

  beforeEach(async () => {
    agent = await startAgent();
    const layout = buildTestImage(join(agent.dir, 'image'), { name: image });
    const imported = await agent.berth('image', 'import', layout);
    assert.equal(imported.code, 0, imported.stderr);
  });
  afterEach(async function () {
    const log = agent.log();
    const left = await agent.close();
    if (this.currentTest?.state === 'passed') assert.deepEqual(left, []);
    else process.stdout.write(log.slice(-8000));
  });

  const sandboxConfig = (name: string) => {
    const logDirectory = join(agent.dir, 'logs', name);
    mkdirSync(logDirectory, { recursive: true });
    return {
      metadata: { name, uid: `uid-${name}`, namespace: 'test', attempt: 0 },
      hostname: name,
      logDirectory,
      linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } },
    };
  };
  const containerConfig = (name: string, script: string) => ({
    metadata: { name, attempt: 0 },
    image: { image },
    command: ['/bin/sh', '-c', script],
    logPath: `${name}.log`,
    linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } },
  });
  const runPod = async (name: string): Promise<string> =>
    (await agent.cri.runtime.runPodSandbox({ config: sandboxConfig(name) })).podSandboxId;
  const start = async (podSandboxId: string, pod: string, name: string, script: string): Promise<string> => {
    const { containerId } = await agent.cri.runtime.createContainer({
      podSandboxId,
      sandboxConfig: sandboxConfig(pod),
      config: containerConfig(name, script),
    });
    await agent.cri.runtime.startContainer({ containerId });
    return containerId;
  };
  const status = async (containerId: string) => (await agent.cri.runtime.containerStatus({ containerId })).status;
  const logLines = (pod: string, name: string): string[] =>
    readFileSync(join(agent.dir, 'logs', pod, `${name}.log`), 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split(' ').slice(3).join(' '));

  it('finds its containers running, and the exits that happened meanwhile', async () => {
    const pod = await runPod('a');
    const counting = await start(pod, 'a', 'counting', 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done');
    const ending = await start(pod, 'a', 'ending', 'sleep 1; exit 42');
    const before = Date.now();
    await agent.crash();
    await sleep(2000);
    await agent.start();

    assert.equal((await status(counting))?.state, ContainerState.CONTAINER_RUNNING);
    const ended = await status(ending);
    assert.equal(ended?.state, ContainerState.CONTAINER_EXITED);
    assert.equal(ended?.exitCode, 42);
    assert.equal(ended?.reason, 'Error');
    const finished = Number((ended?.finishedAt ?? 0n) / 1_000_000n);
    assert.ok(finished >= before && finished <= before + 1900, 'the time of the exit, not of the restart');

    const pods = await agent.cri.runtime.listPodSandbox();
    assert.equal(pods.items[0]?.state, PodSandboxState.SANDBOX_READY);
    const { stdout } = await agent.cri.runtime.execSync({ containerId: counting, cmd: ['echo', 'alive'], timeout: 5n });
    assert.equal(Buffer.from(stdout).toString(), 'alive\n');
    await agent.cri.runtime.stopContainer({ containerId: counting, timeout: 0n });
    const lines = logLines('a', 'counting');
    lines.forEach((line, index) => assert.equal(line, String(index + 1), 'a line of the log is missing'));
    assert.ok(lines.length > 100);
  });

  it('at any moment of a start leaves names free and nothing behind', async () => {
    for (let round = 0; round < 12; round++) {
      const pod = `p${round}`;
      const attempt = (async () => {
        const id = await runPod(pod);
        await start(id, pod, 'c', 'sleep 1000');
      })().catch(() => undefined);
      await sleep(round * 4);
      await agent.crash();
      await attempt;
      await agent.start();
      const again = await runPod(pod);
      const { items } = await agent.cri.runtime.listPodSandbox();
      assert.deepEqual(
        items.map(({ id }) => id),
        [again],
        `round ${round}`,
      );
      const listed = await agent.cri.runtime.listContainers();
      const existing = listed.containers.find(({ metadata }) => metadata?.name === 'c');
      if (existing === undefined) await start(again, pod, 'c', 'sleep 1000');
      else if (existing.state === ContainerState.CONTAINER_CREATED) {
        await agent.cri.runtime.startContainer({ containerId: existing.id });
      }
      await agent.cri.runtime.stopPodSandbox({ podSandboxId: again });
      await agent.cri.runtime.removePodSandbox({ podSandboxId: again });
      const doctor = await agent.berth('doctor');
      assert.doesNotMatch(doctor.stdout, /no record names it/, `round ${round}`);
    }
  });

  it('notices that a shim died while it was away', async () => {
    const pod = await runPod('s');
    const id = await start(pod, 's', 'c', 'sleep 1000');
    await agent.crash();
    for (const pid of processesOf('berth-shim', agent.dir)) process.kill(pid, 'SIGKILL');
    await agent.start();
    const ended = await status(id);
    assert.equal(ended?.state, ContainerState.CONTAINER_EXITED);
    assert.match(ended?.message ?? '', /processes ended while no agent ran/);
    const { items } = await agent.cri.runtime.listPodSandbox();
    assert.equal(items[0]?.state, PodSandboxState.SANDBOX_NOTREADY);
    assert.deepEqual(processesOf('sleep 1000', agent.dir), []);
  });

  it('notices that a shim dies under its eyes', async () => {
    const pod = await runPod('d');
    const id = await start(pod, 'd', 'c', 'sleep 1000');
    for (const pid of processesOf('berth-shim', agent.dir)) process.kill(pid, 'SIGKILL');
    for (let i = 0; i < 100 && (await status(id))?.state !== ContainerState.CONTAINER_EXITED; i++) await sleep(50);
    assert.match((await status(id))?.message ?? '', /the pod's shim ended/);
  });

  it('understands a reboot: all processes gone, /run empty', async () => {
    const pod = await runPod('r');
    const id = await start(pod, 'r', 'c', 'sleep 1000');
    await agent.crash();
    for (const pid of processesOf('berth-shim', agent.dir)) process.kill(pid, 'SIGKILL');
    await sleep(200);
    for (const name of readdirSync(join(agent.dir, 'netns'))) {
      execFileSync('umount', ['-l', join(agent.dir, 'netns', name)]);
      rmSync(join(agent.dir, 'netns', name));
    }
    rmSync(join(agent.dir, 's'), { recursive: true });
    await agent.start();
    assert.equal((await status(id))?.state, ContainerState.CONTAINER_EXITED);
    assert.equal((await status(id))?.reason, 'Unknown');
    await agent.cri.runtime.removePodSandbox({ podSandboxId: pod });
    assert.equal((await agent.cri.runtime.listContainers()).containers.length, 0);
    await runPod('r');
  });
});

/** Pids whose command line holds both words. */
function processesOf(word: string, other: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .filter((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
        return line.includes(word) && line.includes(other);
      } catch {
        return false;
      }
    })
    .map(Number);
}
