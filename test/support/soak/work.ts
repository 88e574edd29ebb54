/** What a busy node asks of its agent, for days in minutes: execs, attaches, pods that come and go, crashes. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { NamespaceMode } from '../../../api/cri/v1/generated/api.js';
import type { TestAgent } from '../agent.js';
import { spdyClient } from '../spdy-client.js';

export const soakImage = 'test.example/soak:1';

export interface RunningPod {
  readonly sandbox: string;
  readonly container: string;
}

const linux = { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } };

/** A pod with one container that runs `script` in a shell. */
export async function runPod(agent: TestAgent, name: string, script: string): Promise<RunningPod> {
  const { runtime } = agent.cri;
  const logDirectory = join(agent.dir, 'logs');
  mkdirSync(logDirectory, { recursive: true });
  const metadata = { name, uid: `uid-${name}`, namespace: 'soak', attempt: 0 };
  const sandboxConfig = { metadata, hostname: name, logDirectory, labels: { soak: name }, linux };
  const { podSandboxId } = await runtime.runPodSandbox({ config: sandboxConfig });
  const config = {
    metadata: { name: 'main', attempt: 0 },
    image: { image: soakImage },
    command: ['/bin/sh', '-c', script],
    logPath: 'pods.log',
    stdin: true,
    linux,
  };
  const { containerId } = await runtime.createContainer({ podSandboxId, sandboxConfig, config });
  await runtime.startContainer({ containerId });
  return { sandbox: podSandboxId, container: containerId };
}

export async function shimOf(agent: TestAgent, podSandboxId: string): Promise<number> {
  const { info } = await agent.cri.runtime.podSandboxStatus({ podSandboxId, verbose: true });
  return (JSON.parse(info['info'] ?? '{}') as { shimPid: number }).shimPid;
}

/** `count` pieces of work, some at a time. */
export async function inParallel(count: number, width: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: width }, worker));
}

/** Mostly probes that succeed; some fail, some name no program, some run out of time. */
export async function execOnce(agent: TestAgent, containerId: string, index: number): Promise<void> {
  const { runtime } = agent.cri;
  if (index % 100 === 99) {
    await assert.rejects(runtime.execSync({ containerId, cmd: ['/no/such/program'], timeout: 10n }));
  } else if (index % 500 === 250) {
    await assert.rejects(runtime.execSync({ containerId, cmd: ['sleep', '60'], timeout: 1n }), /DEADLINE/);
  } else {
    const [cmd, wanted] = index % 10 === 9 ? [['false'], 1] : [['echo', `probe ${index}`], 0];
    const { exitCode, stdout } = await runtime.execSync({ containerId, cmd, timeout: 10n });
    assert.equal(exitCode, wanted);
    assert.equal(stdout.toString(), wanted === 0 ? `probe ${index}\n` : '');
  }
}

/** Attaches to a container that answers each line, waits for an answer, and leaves without a word. */
export async function attachOnce(agent: TestAgent, containerId: string, index: number): Promise<void> {
  const { url } = await agent.cri.runtime.attach({ containerId, stdin: true, stdout: true });
  if (index % 20 === 19) return; // nobody comes
  const client = await spdyClient(url, ['v4.channel.k8s.io']);
  client.open({ streamtype: 'error' });
  const [input, output] = [client.open({ streamtype: 'stdin' }), client.open({ streamtype: 'stdout' })];
  input.send(`line ${index}.\n`);
  for (const end = Date.now() + 20_000; !output.text().includes(`got line ${index}.`); await sleep(1)) {
    assert.ok(Date.now() < end, `no answer to line ${index}; so far ${JSON.stringify(output.text().slice(-200))}`);
  }
  client.close();
}

/** Crashes the agent and starts it again; whoever was interrupted waits until it is back. */
export class Crashes {
  readonly #agent: TestAgent;
  #back: Promise<void> = Promise.resolve();
  /** Crashes that have begun. */
  count = 0;

  constructor(agent: TestAgent) {
    this.#agent = agent;
  }

  /** Resolves when no crash is under way. */
  async back(): Promise<void> {
    for (let seen: Promise<void> | undefined; seen !== this.#back; await seen) seen = this.#back;
  }

  crash(): Promise<void> {
    this.#back = this.#back.then(async () => {
      this.count++;
      await this.#agent.crash();
      await this.#agent.start();
    });
    return this.#back;
  }
}

/** One pod's life. A request that a crash interrupts is not known to have happened: the pod is removed either way. */
export async function podOnce(agent: TestAgent, crashes: Crashes, index: number): Promise<void> {
  const name = `pod-${index}`;
  await crashes.back();
  const before = crashes.count;
  try {
    const { container } = await runPod(agent, name, 'echo up; exec sleep 1000');
    const { exitCode } = await agent.cri.runtime.execSync({ containerId: container, cmd: ['true'], timeout: 10n });
    assert.equal(exitCode, 0);
    await agent.cri.runtime.listPodSandboxStats();
  } catch (error) {
    if (crashes.count === before) throw error;
  }
  for (;;) {
    await crashes.back();
    const seen = crashes.count;
    try {
      return await removePods(agent, name);
    } catch (error) {
      if (crashes.count === seen) throw error;
    }
  }
}

async function removePods({ cri: { runtime } }: TestAgent, name: string): Promise<void> {
  const { items } = await runtime.listPodSandbox({ filter: { labelSelector: { soak: name } } });
  for (const { id: podSandboxId } of items) {
    await runtime.stopPodSandbox({ podSandboxId });
    await runtime.removePodSandbox({ podSandboxId });
  }
}
