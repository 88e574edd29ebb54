import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { isKind } from '../../src/kit/errors.js';
import type { PodSandboxConfig } from '../../src/runtime/model.js';
import { usePods } from '../support/pods.js';
import { call } from '../support/runtime.js';

describe('resources of a pod', function () {
  this.timeout(60_000);
  const pods = usePods();
  const update = (pod: string, change: Pick<PodSandboxConfig, 'resources' | 'overhead'>): Promise<void> =>
    pods.host.runtime.sandboxes.updateResources(pod, change, call());
  const configOf = (pod: string): PodSandboxConfig => pods.host.runtime.sandboxes.status(pod).config;
  const memoryLimit = (path: string): number | undefined => pods.host.parts.cgroups.stats(path)?.memory?.limit;

  it('are put into a cgroup of our own, and noted', async () => {
    const pod = await pods.run({ resources: { memoryLimit: 64 << 20 } });
    const { cgroupPath } = pods.host.parts.registry.sandbox(pod).record;
    assert.equal(memoryLimit(cgroupPath), 64 << 20);
    await update(pod, { resources: { memoryLimit: 128 << 20 }, overhead: { cpuShares: 2 } });
    assert.equal(memoryLimit(cgroupPath), 128 << 20);
    assert.deepEqual(configOf(pod).resources, { memoryLimit: 128 << 20 });
    assert.deepEqual(configOf(pod).overhead, { cpuShares: 2 });
    await pods.reopen();
    assert.deepEqual(configOf(pod).resources, { memoryLimit: 128 << 20 });
  });

  it('change all or not at all', async () => {
    const pod = await pods.run({ resources: { memoryLimit: 64 << 20, cpuShares: 512 } });
    const { cgroupPath } = pods.host.parts.registry.sandbox(pod).record;
    const before = configOf(pod);
    await assert.rejects(update(pod, { resources: { memoryLimit: 32 << 20, cpusetCpus: '4000' } }), /cpuset/);
    assert.equal(memoryLimit(cgroupPath), 64 << 20);
    assert.deepEqual(configOf(pod), before);
  });

  it('of a cgroup that is the kubelet’s are noted only', async () => {
    const { cgroups } = pods.host.parts;
    const parent = `${pods.testHost.config.cgroup.parent}/kubelet-${randomBytes(3).toString('hex')}`;
    await cgroups.create(parent, { memoryLimit: 64 << 20 });
    try {
      const pod = await pods.run({ cgroupParent: parent });
      await update(pod, { resources: { memoryLimit: 128 << 20 } });
      assert.equal(memoryLimit(parent), 64 << 20);
      assert.deepEqual(configOf(pod).resources, { memoryLimit: 128 << 20 });
      await pods.remove(pod);
    } finally {
      await cgroups.remove(parent);
    }
  });

  it('cannot be changed of a pod that has stopped, or is not there', async () => {
    const pod = await pods.run();
    await pods.host.runtime.sandboxes.stop(pod, call());
    await assert.rejects(update(pod, { overhead: { cpuShares: 2 } }), (error) => isKind(error, 'wrong-state'));
    await assert.rejects(update('nothing', {}), (error) => isKind(error, 'not-found'));
  });
});
