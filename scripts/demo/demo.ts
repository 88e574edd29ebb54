/**
 * `npm run demo`: the main job on embedded defaults. Starts an agent in a temporary place, imports the image that the
 * build has made, runs a pod over the CRI, looks at it from outside and inside, shows where the time went, takes all
 * of it down again and checks that nothing is left on the host.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startAgent, type TestAgent } from '../../test/support/agent.js';
import { buildTestImage } from '../../test/support/test-image.js';

const repository = new URL('../..', import.meta.url).pathname;
const say = (text = ''): void => console.log(text);
const title = (text: string): void => say(`\n\x1b[1m${text}\x1b[0m`);

async function main(): Promise<void> {
  const layout = makeImage();
  title('Start the agent (berth serve)');
  const agent = await startAgent();
  say(`CRI on ${agent.socket}`);
  let left: readonly string[];
  try {
    await show(agent, layout);
  } finally {
    title('Take everything down');
    left = await agent.close();
  }
  if (left.length > 0) throw new Error(`left on the host:\n  ${left.join('\n  ')}`);
  say('Nothing is left: no process, mount, namespace, cgroup or bridge.');
}

function makeImage(): string {
  const layout = join(repository, 'build/demo/image');
  rmSync(layout, { recursive: true, force: true });
  mkdirSync(layout, { recursive: true });
  const binary = join(repository, 'build/demo/hello');
  const program = { binary, binaryPath: '/hello', entrypoint: ['/hello'], cmd: ['serve'] };
  return buildTestImage(layout, { name: 'localhost/hello:1', ...program });
}

async function show(agent: TestAgent, layout: string): Promise<void> {
  title('Import an image');
  await berth(agent, 'image', 'import', layout);
  await berth(agent, 'image', 'ls');

  title('Run a pod: RunPodSandbox, CreateContainer, StartContainer');
  const { podId, containerId } = await runPod(agent);
  await berth(agent, 'pods');
  await berth(agent, 'ps');

  title('It has a network of its own');
  const address = await addressOf(agent, podId);
  say(`$ curl http://${address}:8080/\n${await fetchText(`http://${address}:8080/`)}`);

  title('Its log');
  await sleep(1100);
  await berth(agent, 'logs', '--timestamps', containerId);

  title('Run a command in it');
  await berth(agent, 'exec', containerId, '/hello', 'id');

  title('Where the time of its start went');
  await berth(agent, 'inspect', '--waterfall', podId);
  await berth(agent, 'inspect', '--waterfall', containerId);

  title('Stop it');
  await agent.cri.runtime.stopContainer({ containerId, timeout: 10n });
  await berth(agent, 'logs', '--tail', '1', containerId);
  await berth(agent, 'ps', '--all');
}

async function runPod({ cri, dir }: TestAgent): Promise<{ podId: string; containerId: string }> {
  const config = {
    metadata: { name: 'hello', uid: 'demo-uid', namespace: 'default', attempt: 0 },
    hostname: 'hello',
    logDirectory: join(dir, 'logs'),
    linux: {},
  };
  mkdirSync(config.logDirectory);
  const timed = async <T>(name: string, work: Promise<T>): Promise<T> => {
    const start = performance.now();
    const result = await work;
    say(`  ${name.padEnd(16)} ${(performance.now() - start).toFixed(1).padStart(6)} ms`);
    return result;
  };
  const { podSandboxId: podId } = await timed('RunPodSandbox', cri.runtime.runPodSandbox({ config }));
  const container = {
    metadata: { name: 'hello', attempt: 0 },
    image: { image: 'localhost/hello:1' },
    logPath: 'hello.log',
    linux: {},
  };
  const create = cri.runtime.createContainer({ podSandboxId: podId, config: container, sandboxConfig: config });
  const { containerId } = await timed('CreateContainer', create);
  await timed('StartContainer', cri.runtime.startContainer({ containerId }));
  return { podId, containerId };
}

async function addressOf({ cri }: TestAgent, podSandboxId: string): Promise<string> {
  const { status } = await cri.runtime.podSandboxStatus({ podSandboxId });
  return status?.network?.ip ?? '';
}

/** Runs a berth command and shows it as a person would see it; a failure ends the demo. */
async function berth(agent: TestAgent, ...args: readonly string[]): Promise<void> {
  const { code, stdout, stderr } = await agent.berth(...args);
  say(`$ berth ${args.map((arg) => (arg.length > 32 && /^[0-9a-f]+$/.test(arg) ? arg.slice(0, 13) : arg)).join(' ')}`);
  process.stdout.write(stdout + stderr);
  if (code !== 0) throw new Error(`berth ${args[0]} ended with ${code}`);
}

function fetchText(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(url, { timeout: 5000, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => resolve(text.trimEnd()));
    });
    request.on('timeout', () => request.destroy(new Error(`${url}: no answer`)));
    request.on('error', reject);
  });
}

if (process.getuid?.() !== 0) {
  console.error('The demo makes namespaces and mounts: run it as root.');
  process.exit(1);
}
try {
  await main();
} catch (error) {
  console.error(`\nThe demo failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
