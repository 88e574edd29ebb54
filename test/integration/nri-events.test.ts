import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Event, type ContainerRequest } from '../../api/nri/v1alpha1/generated/api.js';
import { sleep } from '../../src/kit/deadline.js';
import type { ContainerConfig } from '../../src/runtime/model.js';
import { failsWith, until, usePlugins } from '../support/nri-plugin.js';
import { usePods } from '../support/pods.js';
import { call, containerConfig } from '../support/runtime.js';

describe('plugins of the node, and what they hear', function () {
  this.timeout(60_000);
  const pods = usePods({
    flags: { 'nri-request-timeout': '1s', 'nri-registration-timeout': '3s' },
    prepare: ({ host }) => host.runtime.openToPlugins('1.2.3'),
  });
  const plugin = usePlugins(pods);
  const create = (pod: string, config: ContainerConfig) =>
    pods.host.runtime.containers.create({ sandboxId: pod, config }, call());

  it('connect over a socket that only root can reach', () => {
    const { socketPath } = pods.testHost.config.nri;
    assert.equal(statSync(socketPath).mode & 0o777, 0o600);
    assert.equal(statSync(dirname(socketPath)).mode & 0o777, 0o700);
  });

  it('are told who the runtime is, and hear of what happens in its order', async () => {
    const double = await plugin();
    const { runtimeName, runtimeVersion, requestTimeout, registrationTimeout } = await double.configured;
    assert.deepEqual(
      [runtimeName, runtimeVersion, requestTimeout, registrationTimeout],
      ['berth', 'v1.2.3', 1000n, 3000n],
    );
    const pod = await pods.run();
    const config = containerConfig('exec sleep 100');
    const id = await pods.start(pod, config);
    await pods.host.runtime.containers.updateResources(id, { cpuShares: 100 }, {}, call());
    await pods.host.runtime.sandboxes.updateResources(pod, { overhead: { cpuShares: 2 } }, call());
    await pods.host.runtime.containers.stop(id, 0, call());
    await pods.host.runtime.containers.remove(id, call());
    await pods.remove(pod);
    const [podName] = double.calls.filter((each) => each.startsWith('RunPodSandbox')).map((each) => each.split(' ')[1]);
    const { name } = config.metadata;
    assert.deepEqual(double.calls, [
      'Configure',
      'Synchronize',
      `RunPodSandbox ${podName}`,
      `CreateContainer ${name}`,
      `ValidateContainerAdjustment ${name}`,
      `PostCreateContainer ${name}`,
      `StartContainer ${name}`,
      `PostStartContainer ${name}`,
      `UpdateContainer ${name}`,
      `PostUpdateContainer ${name}`,
      `UpdatePodSandbox ${podName}`,
      `PostUpdatePodSandbox ${podName}`,
      `StopContainer ${name}`,
      `RemoveContainer ${name}`,
      `StopPodSandbox ${podName}`,
      `RemovePodSandbox ${podName}`,
    ]);
  });

  it('get only the events they want, and hear of a container that ends by itself', async () => {
    const double = await plugin({ events: [Event.STOP_CONTAINER] });
    const config = containerConfig('exit 3');
    await pods.toEnd(await pods.run(), config);
    await double.seen(`StopContainer ${config.metadata.name}`);
    assert.deepEqual(double.calls, ['Configure', 'Synchronize', `StopContainer ${config.metadata.name}`]);
  });

  it('hear of the stop of a pod once', async () => {
    const double = await plugin({ events: [Event.STOP_POD_SANDBOX] });
    const pod = await pods.run();
    for (let i = 0; i < 2; i++) await pods.host.runtime.sandboxes.stop(pod, call());
    await pods.remove(pod);
    assert.equal(double.calls.filter((each) => each.startsWith('StopPodSandbox')).length, 1);
  });

  it('hear that a pod is over whose shim died', async () => {
    const double = await plugin({ events: [Event.STOP_POD_SANDBOX, Event.STOP_CONTAINER] });
    const pod = await pods.run();
    const config = containerConfig('exec sleep 100');
    await pods.start(pod, config);
    process.kill(pods.host.parts.registry.sandbox(pod).record.shimPid, 'SIGKILL');
    await until(() => double.calls.some((each) => each.startsWith('StopPodSandbox')));
    assert.ok(double.calls.includes(`StopContainer ${config.metadata.name}`), double.calls.join());
  });

  it('are told what pods and containers are like', async () => {
    const requests: ContainerRequest[] = [];
    await plugin({
      on: {
        createContainer: (request) => void requests.push(request),
        stopContainer: (request) => void requests.push(request),
      },
    });
    const pod = await pods.run({ labels: { app: 'x' }, annotations: { note: 'y' } });
    const resources = { cpuShares: 512, memoryLimit: 64 << 20, oomScoreAdj: 500 };
    const config = containerConfig('exit 4', {
      resources,
      labels: { l: '1' },
      env: [{ key: 'A', value: Buffer.from('b') }],
    });
    const { id } = await pods.toEnd(pod, config);
    await until(() => requests.length === 2);
    const [created, stopped] = requests;
    assert.equal(created?.pod?.id, pod);
    assert.deepEqual([created?.pod?.labels, created?.pod?.annotations], [{ app: 'x' }, { note: 'y' }]);
    assert.ok((created?.pod?.ips.length ?? 0) > 0);
    const [namespace] = created?.pod?.linux?.namespaces ?? [];
    assert.equal(namespace?.type, 'network');
    assert.ok(existsSync(namespace.path));
    const { container } = created ?? {};
    assert.deepEqual(
      [container?.id, container?.podSandboxId, container?.state, container?.labels, container?.args],
      [id, pod, 1, { l: '1' }, ['/bin/sh', '-c', 'exit 4']],
    );
    assert.ok(container?.env.includes('A=b'));
    assert.ok(container?.mounts.some(({ destination, source }) => destination === '/etc/hosts' && source !== ''));
    assert.deepEqual(container?.linux?.resources?.memory?.limit, { value: BigInt(64 << 20) });
    assert.deepEqual(container?.linux?.resources?.cpu?.shares, { value: 512n });
    assert.deepEqual(container?.linux?.oomScoreAdj, { value: 500n });
    assert.equal(container?.linux?.cgroupsPath, pods.host.parts.registry.container(id).record.cgroupPath);
    assert.deepEqual([stopped?.container?.state, stopped?.container?.exitCode], [4, 4]);
    assert.deepEqual(stopped?.container?.args, container?.args);
  });

  it('take in what is there when they come', async () => {
    const pod = await pods.run();
    const config = containerConfig('exec sleep 100');
    const id = await pods.start(pod, config);
    const created = await create(pod, containerConfig('true'));
    await pods.toEnd(pod, containerConfig('true'));
    const stopped = await pods.run();
    await pods.host.runtime.sandboxes.stop(stopped, call());
    const double = await plugin({
      on: {
        synchronize: () => ({
          update: [{ containerId: id, linux: { resources: { cpu: { shares: { value: 99n } } } } }],
        }),
      },
    });
    const { pods: told, containers } = await double.synchronized;
    assert.deepEqual(
      told.map((each) => each.id),
      [pod],
    );
    assert.deepEqual(
      containers.map((each) => [each.id, each.state]).sort(),
      [
        [id, 3],
        [created, 1],
      ].sort(),
    );
    assert.deepEqual(containers.find((each) => each.id === id)?.args, config.command);
    await until(() => pods.host.runtime.containers.status(id).resources.cpuShares === 99);
  });

  it('miss nothing that is made while they come', async () => {
    const pod = await pods.run();
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    const creating = create(pod, containerConfig('true'));
    const coming = plugin({ on: { synchronize: async () => void (await held) } });
    await sleep(100);
    const later = create(pod, containerConfig('true'));
    await sleep(100);
    release();
    const double = await coming;
    const ids = await Promise.all([creating, later]);
    const { containers } = await double.synchronized;
    const names = ids.map((id) => pods.host.runtime.containers.status(id).config.metadata.name);
    const inList = containers.map(({ name }) => name);
    for (const name of names)
      assert.equal([inList.includes(name), double.calls.includes(`CreateContainer ${name}`)].filter(Boolean).length, 1);
    assert.equal(inList.includes(names[1] ?? ''), false);
  });

  it('are left behind when they do not answer in time, or die, and pods go on', async () => {
    const pod = await pods.run();
    const slow = await plugin({ index: '01', on: { createContainer: () => new Promise<void>(() => undefined) } });
    const dying = await plugin({ index: '02', on: { createContainer: () => dying.close() } });
    const lasting = await plugin({
      on: { createContainer: () => ({ adjust: { env: [{ key: 'X', value: 'here' }] } }) },
    });
    assert.equal(await pods.output(pod, containerConfig('echo $X')), 'here\n');
    await slow.closed;
    await dying.closed;
    assert.equal(await pods.output(pod, containerConfig('echo $X')), 'here\n');
    assert.equal(lasting.calls.filter((each) => each.startsWith('CreateContainer')).length, 2);
    assert.equal(slow.calls.filter((each) => each.startsWith('CreateContainer')).length, 1);
  });

  it('let nobody through when a validator does not answer', async () => {
    await plugin({
      events: [Event.VALIDATE_CONTAINER_ADJUSTMENT],
      on: { validateContainerAdjustment: () => new Promise<void>(() => undefined) },
    });
    const pod = await pods.run();
    await failsWith(create(pod, containerConfig('true')), 'unavailable', /10-double did not validate/);
  });

  it('are turned away with a wrong name or index, or wishes there are not', async () => {
    for (const wrong of [
      { index: '1' },
      { index: 'ab' },
      { name: 'a/b' },
      { on: { configure: () => ({ events: 1 << 20 }) } },
    ])
      await assert.rejects(plugin(wrong), /closed the connection/);
  });

  it('may be older than methods for events, and hear of them all the same', async () => {
    const double = await plugin({
      unknown: ['runPodSandbox', 'startContainer', 'postStartContainer', 'removeContainer'],
    });
    const pod = await pods.run();
    const config = containerConfig('exec sleep 100');
    await pods.start(pod, config);
    await pods.remove(pod);
    const name = config.metadata.name;
    for (const event of [Event.START_CONTAINER, Event.POST_START_CONTAINER, Event.REMOVE_CONTAINER])
      assert.ok(double.calls.includes(`StateChange ${event} ${name}`), double.calls.join('\n'));
    assert.ok(double.calls.some((each) => each.startsWith(`StateChange ${Event.RUN_POD_SANDBOX} `)));
    assert.ok(double.calls.includes(`CreateContainer ${name}`));
  });
});

describe('installed plugins', function () {
  this.timeout(60_000);
  const program = fileURLToPath(new URL('../support/nri-installed.ts', import.meta.url));
  const pods = usePods({
    prepare: async ({ testHost, host }) => {
      const { pluginPath, pluginConfigPath } = testHost.config.nri;
      for (const dir of [pluginPath, pluginConfigPath]) mkdirSync(dir, { recursive: true });
      const script = `#!/bin/sh\nexec ${process.execPath} --import=${import.meta.resolve('tsx')} ${program}\n`;
      for (const name of ['07-own', '08-shared', 'nameless', '09-broken', '11-plain-file'])
        writeFileSync(join(pluginPath, name), name === '09-broken' ? '#!/nowhere\n' : script);
      for (const name of ['07-own', '08-shared', 'nameless', '09-broken']) chmodSync(join(pluginPath, name), 0o755);
      writeFileSync(join(pluginConfigPath, '07-own.conf'), join(testHost.dir, 'own'));
      writeFileSync(join(pluginConfigPath, 'own.conf'), join(testHost.dir, 'wrong'));
      writeFileSync(join(pluginConfigPath, 'shared.conf'), join(testHost.dir, 'shared'));
      await host.runtime.openToPlugins('1.2.3');
    },
  });
  const written = (name: string): { pid: number; env: string[]; runtimeName: string } =>
    JSON.parse(readFileSync(join(pods.testHost.dir, name), 'utf8')) as ReturnType<typeof written>;

  it('are started with their connection, their name and their configuration', () => {
    for (const name of ['own', 'shared']) {
      const { env, runtimeName } = written(name);
      assert.equal(runtimeName, 'berth');
      assert.ok(env.includes('NRI_PLUGIN_IDX') && env.includes('NRI_PLUGIN_NAME') && !env.includes('HOME'), env.join());
    }
    assert.equal(existsSync(join(pods.testHost.dir, 'wrong')), false);
    assert.ok(pods.host.parts.lifecycle.active);
  });

  it('end with the agent', async () => {
    const pids = ['own', 'shared'].map((name) => written(name).pid);
    await pods.reopen();
    await until(() => pids.every((pid) => !existsSync(`/proc/${pid}`)));
  });
});
