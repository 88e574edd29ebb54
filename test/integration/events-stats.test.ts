import assert from 'node:assert/strict';
import { metricDescriptors, wirePodMetrics } from '../../src/cri/translate/metrics.js';
import { wireSandboxStats } from '../../src/cri/translate/stats.js';
import type { RuntimeEvent } from '../../src/runtime/facade.js';
import { call, containerConfig, makeTestHost, podConfig, type OpenHost, type TestHost } from '../support/runtime.js';

describe('events and usage on the kernel', function () {
  this.timeout(60_000);
  let testHost: TestHost;
  let host: OpenHost;

  before(async () => {
    testHost = makeTestHost();
    host = await testHost.open();
  });
  after(() => testHost.destroy());

  const run = (): Promise<string> =>
    host.runtime.sandboxes.run({ config: podConfig(testHost.dir), runtimeHandler: '' }, call());
  const create = (sandboxId: string, script: string): Promise<string> =>
    host.runtime.containers.create({ sandboxId, config: containerConfig(script) }, call());

  it('tells what happens to pods and containers, each in order, with the pod as it is then', async () => {
    const gone = new AbortController();
    const events: RuntimeEvent[] = [];
    const reading = (async () => {
      for await (const event of host.runtime.events(gone.signal)) events.push(event);
    })();
    const pods = await Promise.all([run(), run(), run()]);
    for (const pod of pods) {
      const container = await create(pod, 'exit 3');
      await host.runtime.containers.start(container, call());
      assert.ok(await host.parts.registry.waitForExit(container, 10_000));
      await host.runtime.containers.remove(container, call());
    }
    await Promise.all(pods.map((pod) => host.runtime.sandboxes.remove(pod, call())));
    await new Promise(setImmediate);
    gone.abort();
    await reading;

    const byObject = new Map<string, string[]>();
    for (const { objectId, type } of events) byObject.set(objectId, [...(byObject.get(objectId) ?? []), type]);
    assert.equal(byObject.size, 6);
    for (const types of byObject.values()) assert.deepEqual(types, ['created', 'started', 'stopped', 'deleted']);
    const times = events.map(({ timestamp }) => timestamp);
    assert.deepEqual(
      times,
      [...times].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0)),
    );
    const stopped = events.find(({ type, containers }) => type === 'stopped' && containers.length === 1);
    assert.equal(stopped?.containers[0]?.exit?.code, 3);
    assert.equal(stopped.sandbox?.state, 'ready');
  });

  it('reads usage of a pod, its network and its containers, and lists what is there', async () => {
    const pod = await run();
    const busy = await create(pod, 'while :; do :; done');
    await host.runtime.containers.start(busy, call());
    const first = await host.runtime.sandboxes.stats(pod);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const second = await host.runtime.sandboxes.stats(pod);
    assert.ok((second.cpu?.usageCoreNanoSeconds ?? 0n) > (first.cpu?.usageCoreNanoSeconds ?? 0n));
    assert.ok((second.cpu?.usageNanoCores ?? 0n) > 10_000_000n);
    assert.deepEqual(
      second.interfaces.map(({ name }) => name),
      ['eth0'],
    );
    assert.ok((second.tasks ?? 0) >= 1);
    assert.equal(second.containers[0]?.container.id, busy);
    assert.ok((second.containers[0].memory?.workingSetBytes ?? -1) >= 0);
    const wire = wireSandboxStats(second);
    assert.equal(wire.linux?.network?.defaultInterface?.name, 'eth0');
    assert.deepEqual(
      (await host.runtime.sandboxes.listStats({})).map(({ sandbox }) => sandbox.id),
      [pod],
    );
    const usages = host.runtime.sandboxes.listStats({});
    await host.runtime.sandboxes.remove(pod, call());
    await usages; // a pod that goes meanwhile spoils nothing
    assert.deepEqual(await host.runtime.sandboxes.listStats({}), []);
  });

  it('has a descriptor for every metric, with as many labels', async () => {
    const pod = await run();
    const id = await create(pod, 'exec sleep 1000');
    await host.runtime.containers.start(id, call());
    const [usage] = await host.runtime.sandboxes.listUsage();
    assert.ok(usage !== undefined);
    const metrics = wirePodMetrics(usage);
    const descriptors = new Map(metricDescriptors().map(({ name, labelKeys }) => [name, labelKeys]));
    const all = [...metrics.metrics, ...metrics.containerMetrics.flatMap((container) => container.metrics)];
    for (const { name, labelValues } of all) assert.equal(labelValues.length, descriptors.get(name)?.length, name);
    const value = (name: string): bigint | undefined =>
      metrics.containerMetrics[0]?.metrics.find((metric) => metric.name === name)?.value?.value;
    assert.equal(value('container_processes'), 1n);
    assert.equal(value('container_threads'), 1n);
    assert.ok((value('container_file_descriptors') ?? 0n) >= 3n);
    assert.ok((value('container_fs_limit_bytes') ?? 0n) > 0n);
    assert.ok((value('container_start_time_seconds') ?? 0n) > 1_000_000_000n);
    assert.ok(metrics.metrics.some(({ name }) => name === 'container_network_receive_bytes_total'));
    await host.runtime.sandboxes.remove(pod, call());
  });
});
