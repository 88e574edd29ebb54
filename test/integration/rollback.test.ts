import assert from 'node:assert/strict';
import type { Observer } from '../../src/kit/observer.js';
import { silentObserver } from '../../src/kit/observer.js';
import type { ContainerConfig, NamespaceOptions, PodSandboxConfig } from '../../src/runtime/model.js';
import {
  assertNothingLeft,
  call,
  containerConfig,
  makeTestHost,
  podConfig,
  testImage,
  traces,
  type OpenHost,
  type TestHost,
} from '../support/runtime.js';
import { userns, volume } from '../support/userns.js';

/** Fails the n-th step, before or after its work was done. */
function breaking(n: number, when: 'before' | 'after'): Observer & { readonly broken: () => string | undefined } {
  let seen = 0;
  let broken: string | undefined;
  return {
    async step(name, work) {
      const mine = seen++ === n;
      if (mine && when === 'before') {
        broken = name;
        throw new Error(`broken before ${name}`);
      }
      const result = await work();
      if (mine) {
        broken = name;
        throw new Error(`broken after ${name}`);
      }
      return result;
    },
    note: silentObserver.note,
    broken: () => broken,
  };
}

describe('every step broken once', function () {
  this.timeout(120_000);
  let testHost: TestHost;
  let host: OpenHost;

  before(async () => {
    testHost = makeTestHost({ 'userns-snapshots': 'metacopy' }); // the way with the most steps
    host = await testHost.open();
  });
  after(() => testHost.destroy());

  const plain: NamespaceOptions = { network: 'pod', pid: 'pod', ipc: 'pod' };
  for (const [when, where, options] of [
    ['before', '', plain],
    ['after', '', plain],
    ['before', ' of a user namespace', { ...plain, userns: userns() }],
    ['after', ' of a user namespace', { ...plain, userns: userns() }],
  ] as const) {
    const ofPod = (): PodSandboxConfig => {
      const config = podConfig(testHost.dir);
      return { ...config, security: { ...config.security, namespaces: options } };
    };
    const itself = { image: testImage, userSpecifiedImage: testImage, annotations: {}, runtimeHandler: '' };
    const ofContainer = (script: string): ContainerConfig =>
      containerConfig(script, { security: { namespaces: options }, mounts: [volume('', '/image', { image: itself })] });

    it(`RunPodSandbox leaves nothing behind, broken ${when} each step${where}`, async () => {
      const steps: string[] = [];
      const before = traces(testHost);
      const config = ofPod();
      for (let n = 0; n < 40; n++) {
        const observer = breaking(n, when);
        const attempt = host.runtime.sandboxes.run({ config, runtimeHandler: '' }, call(observer));
        const outcome = await attempt.then(
          (id) => ({ id }),
          (error: unknown) => ({ error }),
        );
        if ('id' in outcome && observer.broken() === undefined) {
          await host.runtime.sandboxes.remove(outcome.id, call());
          break;
        }
        assert.ok('error' in outcome, `step ${observer.broken()} was broken, yet the request succeeded`);
        steps.push(observer.broken() ?? '');
        assert.deepEqual(host.runtime.sandboxes.list({}), []);
        await assertNothingLeft(testHost, host, before, observer.broken() ?? '');
      }
      assert.ok(steps.length >= 8, `only ${steps.join(', ')}`);
    });

    it(`CreateContainer leaves nothing behind, broken ${when} each step${where}`, async () => {
      const pod = await host.runtime.sandboxes.run({ config: ofPod(), runtimeHandler: '' }, call());
      const before = traces(testHost);
      const config = ofContainer('true');
      const steps: string[] = [];
      for (let n = 0; n < 40; n++) {
        const observer = breaking(n, when);
        const created = await host.runtime.containers
          .create({ sandboxId: pod, config }, call(observer))
          .catch(() => undefined);
        if (created !== undefined && observer.broken() === undefined) break;
        assert.equal(created, undefined);
        steps.push(observer.broken() ?? '');
        assert.deepEqual(host.runtime.containers.list({}), []);
        await assertNothingLeft(testHost, host, before, observer.broken() ?? '');
      }
      await host.runtime.sandboxes.remove(pod, call());
      assert.ok(steps.length >= 6, `only ${steps.join(', ')}`);
    });

    it(`StartContainer ends in EXITED or not started, broken ${when} each step${where}`, async () => {
      const before = traces(testHost);
      const pod = await host.runtime.sandboxes.run({ config: ofPod(), runtimeHandler: '' }, call());
      for (let n = 0; n < 40; n++) {
        const id = await host.runtime.containers.create({ sandboxId: pod, config: ofContainer('sleep 100') }, call());
        const observer = breaking(n, when);
        const failed = await host.runtime.containers.start(id, call(observer)).then(
          () => false,
          () => true,
        );
        if (!failed && observer.broken() === undefined) break;
        assert.ok(failed);
        const view = host.runtime.containers.status(id);
        assert.equal(view.state, 'exited', `after ${observer.broken()}`);
        assert.equal(view.exit?.reason, 'StartError');
        assert.match(view.exit?.message ?? '', /broken/);
        assert.deepEqual(host.parts.cgroups.pids(host.parts.registry.container(id).record.cgroupPath), []);
        await host.runtime.containers.remove(id, call());
      }
      await host.runtime.sandboxes.remove(pod, call());
      await assertNothingLeft(testHost, host, before, 'starts');
    });
  }
});
