import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { NamespaceMode } from '../../api/cri/v1/generated/api.js';
import { StepRecorder } from '../../src/kit/step-recorder.js';
import { silentObserver } from '../../src/kit/observer.js';
import type { CreateContainerInput } from '../../src/runtime/facade.js';
import { startAgent, type TestAgent } from '../support/agent.js';
import type { CreateOrder } from '../support/create-process.js';
import { call, containerConfig, makeTestHost, podConfig, runToEnd, testImage } from '../support/runtime.js';
import type { TarEntry } from '../support/tar-builder.js';
import { buildTestImage } from '../support/test-image.js';
import { namespaces } from '../support/userns.js';

const ways = ['metacopy', 'copy'] as const;

describe('an agent that is killed while it makes a remapped snapshot', function () {
  this.timeout(300_000);

  for (const way of ways) {
    it(`at each step of its creation leaves nothing, and the next one succeeds, ${way}`, async () => {
      const testHost = makeTestHost({ 'userns-snapshots': way, 'userns-unused-remaps': '0' });
      const snapshots = join(testHost.config.root, 'snapshots');
      let host = await testHost.open();
      try {
        const { security } = podConfig(testHost.dir);
        const config = podConfig(testHost.dir, { security: { ...security, namespaces: namespaces() } });
        const sandboxId = await host.runtime.sandboxes.run({ config, runtimeHandler: '' }, call());
        const ofContainer = (): CreateContainerInput['config'] =>
          containerConfig('test "$(stat -c %u:%g /etc/passwd)" = 0:0', { security: { namespaces: namespaces() } });
        const recorder = new StepRecorder(silentObserver);
        const input = { sandboxId, config: ofContainer() };
        const first = await host.runtime.containers.create(input, call(recorder));
        await host.runtime.containers.remove(first, call());
        const steps = recorder.steps.map(({ name }) => name);
        assert.ok(steps.includes('remap snapshot'));
        for (const step of steps) {
          for (const when of ['before', 'after'] as const) {
            await host.runtime.close();
            const order: CreateOrder = { config: testHost.config, input, dieAt: { step, when } };
            assert.equal(await createAndDie(order), 'SIGKILL', `${when} ${step}`);
            host = await testHost.open();
            // Only once it is written down that it is whole, it is there; the next request finds it then.
            const isWhole = step === steps.at(-1) && when === 'after';
            assert.equal(host.runtime.containers.list({}).length, isWhole ? 1 : 0, `${when} ${step}`);
            const again = await runToEnd(host, sandboxId, input.config);
            assert.equal(again.code, 0, `${when} ${step}`);
            await host.runtime.containers.remove(again.id, call());
            assert.deepEqual(await host.runtime.maintenance.orphans(), []);
            assert.deepEqual(await leftBelow(snapshots), [], `${when} ${step}`);
          }
        }
        await host.runtime.sandboxes.remove(sandboxId, call());
        await host.runtime.images.remove(testImage, call());
        await eventually(() => readdirSync(join(snapshots, 'layers')).length === 0);
      } finally {
        await testHost.destroy();
      }
    });

    it(`at any moment of it, ${way}`, async () => {
      const agent = await startAgent({ env: { BERTH_USERNS_SNAPSHOTS: way, BERTH_USERNS_UNUSED_REMAPS: '0' } });
      const before = tree(agent);
      try {
        const layout = buildTestImage(join(agent.dir, 'image'), { name: largeImage, layers: [largeLayer] });
        const imported = await agent.berth('image', 'import', layout);
        assert.equal(imported.code, 0, imported.stderr);
        const podSandboxId = await runPod(agent);
        const create = async (): Promise<string> =>
          (await agent.cri.runtime.createContainer({ podSandboxId, config: ofContainer }, { timeoutMs: 60_000 }))
            .containerId;
        const begin = Date.now();
        await agent.cri.runtime.removeContainer({ containerId: await create() });
        const whole = Date.now() - begin;
        for (let round = 0; round < 6; round++) {
          const attempt = create().catch(() => undefined);
          await sleep(Math.random() * whole);
          await agent.crash();
          await attempt;
          await eventually(() => remapsAtWork(agent.dir).length === 0);
          await agent.start();
          const containerId = await create();
          const { info } = await agent.cri.runtime.containerStatus({ containerId, verbose: true });
          const { snapshot } = JSON.parse(info['info'] ?? '') as {
            snapshot: { way: string; remap: { origin: string } };
          };
          assert.equal(snapshot.way, way);
          await agent.cri.runtime.removeContainer({ containerId });
          const doctor = await agent.berth('doctor');
          assert.doesNotMatch(doctor.stdout, /no record names it/, `round ${round}`);
          assert.deepEqual(await leftBelow(join(agent.dir, 'root/snapshots')), [], `round ${round}`);
        }
        await agent.cri.runtime.removePodSandbox({ podSandboxId });
        await agent.cri.images.removeImage({ image: { image: largeImage } });
        await eventually(() => isDeepStrictEqual(tree(agent), before));
      } finally {
        assert.deepEqual(await agent.close(), []);
      }
    });
  }
});

const largeImage = 'test.example/large:1';
const largeLayer = Array.from({ length: 10_000 }, (_, i): TarEntry => ({
  path: `files/${i % 200}/${i}`,
  content: `${i}`,
  uid: i % 1000,
}));

const line = [{ containerId: 0, hostId: 1_000_000, length: 65536 }];
const namespaceOptions = {
  pid: NamespaceMode.CONTAINER,
  network: NamespaceMode.NODE,
  usernsOptions: { mode: NamespaceMode.POD, uids: line, gids: line },
};
const ofContainer = {
  metadata: { name: 'c', attempt: 0 },
  image: { image: largeImage },
  command: ['true'],
  linux: { securityContext: { namespaceOptions } },
};

async function runPod(agent: TestAgent): Promise<string> {
  const logDirectory = join(agent.dir, 'logs');
  mkdirSync(logDirectory);
  const metadata = { name: 'p', uid: 'uid-p', namespace: 'test', attempt: 0 };
  const config = { metadata, hostname: 'p', logDirectory, linux: { securityContext: { namespaceOptions } } };
  return (await agent.cri.runtime.runPodSandbox({ config })).podSandboxId;
}

/** How the process ended: the signal, or `exit CODE`. */
function createAndDie(order: CreateOrder): Promise<string> {
  const args = ['--import=tsx', 'test/support/create-process.ts', JSON.stringify(order)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  return new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? `exit ${code}`)));
}

async function eventually(isSo: () => boolean): Promise<void> {
  for (let i = 0; i < 600 && !isSo(); i++) await sleep(50);
  assert.ok(isSo(), String(isSo));
}

/** What is left of snapshots and of their making, once deletions have had their time. */
async function leftBelow(snapshots: string): Promise<readonly string[]> {
  const left = (): string[] =>
    ['tmp', 'active', 'remaps'].flatMap((name) => readdirSync(join(snapshots, name)).map((each) => join(name, each)));
  for (let i = 0; i < 600 && left().length > 0; i++) await sleep(50);
  return [...left(), ...remapsAtWork(snapshots)];
}

/** Processes that write a remapped layer below a directory. */
const remapsAtWork = (below: string): string[] =>
  readdirSync('/proc').filter((pid) => {
    try {
      return readlinkSync(`/proc/${pid}/exe`).endsWith('/berth-remap') && destination(pid).startsWith(below);
    } catch {
      return false;
    }
  });

const destination = (pid: string): string => readlinkSync(`/proc/${pid}/fd/3`);

/** Every path that content and snapshots have on the disk, with its size. */
const tree = ({ dir }: TestAgent): string[] =>
  spawnSync('find', ['root/content/blobs', 'root/snapshots', '-printf', '%p %b\n'], { cwd: dir, encoding: 'utf8' })
    .stdout.split('\n')
    .sort();
