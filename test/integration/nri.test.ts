import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Event, type ContainerRequest } from '../../api/nri/v1alpha1/generated/api.js';
import { sleep } from '../../src/kit/deadline.js';
import { isKind, type ErrorKind } from '../../src/kit/errors.js';
import { silentObserver, type Observer } from '../../src/kit/observer.js';
import type { ContainerConfig } from '../../src/runtime/model.js';
import { connectPlugin, refusal, type PluginDouble, type PluginOptions } from '../support/nri-plugin.js';
import { usePods } from '../support/pods.js';
import { call, containerConfig, logText } from '../support/runtime.js';

describe('plugins of the node', function () {
  this.timeout(60_000);
  const pods = usePods({
    flags: { 'nri-request-timeout': '1s', 'nri-registration-timeout': '3s' },
    prepare: ({ host }) => host.runtime.openToPlugins('1.2.3'),
  });
  const connected: PluginDouble[] = [];
  const plugin = async (options: PluginOptions = {}): Promise<PluginDouble> => {
    const double = await connectPlugin(pods.testHost.config.nri.socketPath, options);
    connected.push(double);
    await until(() => pods.host.parts.lifecycle.active);
    return double;
  };
  // Before the pods go.
  afterEach(async () => {
    for (const double of connected.splice(0)) double.close();
    await until(() => !pods.host.parts.lifecycle.active);
  });

  const create = (pod: string, config: ContainerConfig, observer: Observer = silentObserver) =>
    pods.host.runtime.containers.create({ sandboxId: pod, config }, call(observer));
  const fails = (work: Promise<unknown>, kind: ErrorKind, message: RegExp) =>
    assert.rejects(work, (error) => {
      assert.ok(isKind(error, kind), String(error));
      assert.match(error.message, message);
      return true;
    });
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

  it('change what a container is made with', async () => {
    const source = pods.directory('given');
    writeFileSync(join(source, 'file'), 'from a plugin\n');
    await plugin({
      on: {
        createContainer: () => ({
          adjust: {
            annotations: { added: 'yes' },
            env: [{ key: 'NEW', value: 'set' }, { key: '-GONE' }, { key: 'KEPT', value: 'changed' }],
            mounts: [
              { destination: '/given', type: 'bind', source, options: ['rbind', 'ro'] },
              { destination: '-/etc/hostname' },
            ],
            rlimits: [{ type: 'RLIMIT_NOFILE', soft: 77n, hard: 88n }],
            linux: {
              devices: [{ path: '/dev/extra', type: 'c', major: 1n, minor: 3n, fileMode: { value: 0o640 } }],
              oomScoreAdj: { value: 777n },
              sysctl: { 'net.ipv4.ip_forward': '1' },
              resources: { cpu: { shares: { value: 321n } }, pids: { limit: 55n } },
            },
          },
        }),
      },
    });
    const script = [
      'echo $NEW,$GONE,$KEPT',
      'cat /given/file',
      'touch /given/x 2>/dev/null || echo read-only',
      'ulimit -Sn; ulimit -Hn',
      'cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward',
      '[ -c /dev/extra ] && echo x > /dev/extra && echo device',
      'grep -c " /etc/hostname " /proc/self/mountinfo',
    ].join('\n');
    const env = [
      { key: 'GONE', value: Buffer.from('still') },
      { key: 'KEPT', value: Buffer.from('old') },
    ];
    const { id, output } = await pods.toEnd(await pods.run(), containerConfig(script, { env }));
    assert.deepEqual(output.trim().split('\n'), [
      'set,,changed',
      'from a plugin',
      'read-only',
      '77',
      '88',
      '777',
      '1',
      'device',
      '0',
    ]);
    const view = pods.host.runtime.containers.status(id);
    assert.deepEqual(view.resources, { cpuShares: 321, pidsLimit: 55, oomScoreAdj: 777 });
    const { bundle } = pods.host.runtime.containers.inspect(id) as { bundle: string };
    const spec = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')) as {
      annotations: Record<string, string>;
    };
    assert.equal(spec.annotations['added'], 'yes');
  });

  it('change the program, its cgroup and its namespaces', async () => {
    const cgroups: string[] = [];
    await plugin({
      on: {
        createContainer: ({ container }) => {
          const cgroupsPath = `${container?.linux?.cgroupsPath}-other`;
          cgroups.push(cgroupsPath);
          return {
            adjust: {
              args: ['/bin/sh', '-c', 'readlink /proc/self/ns/uts; cat /proc/self/cgroup'],
              linux: { cgroupsPath, namespaces: [{ type: '-uts' }] },
            },
          };
        },
      },
    });
    const { output } = await pods.toEnd(await pods.run(), containerConfig('echo not this'));
    const [uts, ...lines] = output.trim().split('\n');
    assert.equal(uts, readlinkSync('/proc/self/ns/uts'));
    assert.ok(
      lines.some((line) => line.endsWith('-other') || line.endsWith(':/')),
      output,
    );
    assert.equal(cgroups.length, 1);
  });

  it('put a filter of their own in front of a container', async () => {
    const errno = { value: 99 };
    const syscalls = [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: errno, args: [] }];
    await plugin({
      on: {
        createContainer: () => ({
          adjust: { linux: { seccompPolicy: { defaultAction: 'SCMP_ACT_ALLOW', syscalls } } },
        }),
      },
    });
    const { output } = await pods.toEnd(await pods.run(), containerConfig('mkdir /x 2>&1 || echo refused'));
    assert.match(output, /refused/);
  });

  it('are asked in the order of their indexes, and each sees what those before it did', async () => {
    const seen: string[] = [];
    const adding = (index: string): PluginOptions => ({
      index,
      name: 'adder',
      on: {
        createContainer: ({ container }) => {
          seen.push(
            `${index}: ${container?.env
              .filter((entry) => entry.startsWith('P'))
              .sort()
              .join(' ')}`,
          );
          return { adjust: { env: [{ key: `P${index}`, value: index }] } };
        },
      },
    });
    for (const index of ['50', '05', '20']) await plugin(adding(index));
    const { output } = await pods.toEnd(await pods.run(), containerConfig('echo $P05 $P20 $P50'));
    assert.equal(output.trim(), '05 20 50');
    const plain = seen[0]?.slice(4);
    assert.deepEqual(pods.host.runtime.info()['plugins'], ['05-adder', '20-adder', '50-adder']);
    assert.deepEqual(seen, [`05: ${plain}`, `20: P05=05 ${plain}`, `50: P05=05 P20=20 ${plain}`]);
  });

  it('contradict each other by name, unless the later takes back what the earlier set', async () => {
    const setting = (index: string, ...env: { key: string; value: string }[]): PluginOptions => ({
      index,
      name: 'setter',
      on: { createContainer: () => ({ adjust: { env } }) },
    });
    await plugin(setting('10', { key: 'X', value: 'first' }));
    const second = await plugin(setting('20', { key: 'X', value: 'second' }));
    const pod = await pods.run();
    await fails(
      create(pod, containerConfig('true')),
      'wrong-state',
      /plugins 10-setter and 20-setter both set env X of/,
    );
    assert.deepEqual(pods.host.runtime.containers.list({}), []);
    second.close();
    await second.closed;
    await plugin(setting('30', { key: '-X', value: '' }, { key: 'X', value: 'third' }));
    assert.equal(await pods.output(pod, containerConfig('echo $X')), 'third\n');
  });

  const refused: readonly (readonly [string, object, RegExp])[] = [
    ['OCI hooks', { hooks: { poststop: [{ path: '/bin/true' }] } }, /10-double set OCI hooks \(poststop\)/],
    ['CDI devices', { cdiDevices: [{ name: 'v/c=d' }] }, /10-double set the CDI device v\/c=d/],
    ['I/O priority', { linux: { ioPriority: { class: 2, priority: 3 } } }, /10-double set an I\/O priority/],
    ['scheduling', { linux: { scheduler: { policy: 2 } } }, /10-double set a scheduling policy/],
    ['RDT classes', { linux: { rdt: { closId: { value: 'gold' } } } }, /10-double set an RDT class of service/],
    ['block I/O classes', { linux: { resources: { blockioClass: { value: 'slow' } } } }, /the block I\/O class slow/],
    ['network devices', { linux: { netDevices: { eth9: { name: 'net0' } } } }, /the network device eth9/],
    ['memory policy', { linux: { memoryPolicy: { mode: 2, nodes: '0' } } }, /a NUMA memory policy/],
    ['user namespaces', { linux: { namespaces: [{ type: 'user' }] } }, /the user namespace/],
    ['reservations', { linux: { resources: { memory: { reservation: { value: 1n } } } } }, /a memory reservation/],
  ];
  for (const [what, adjust, message] of refused)
    it(`may not set ${what}, and hear so`, async () => {
      await plugin({ on: { createContainer: () => ({ adjust }) } });
      await fails(create(await pods.run(), containerConfig('true')), 'unimplemented', message);
    });

  it('may not lead a container out of its pod', async () => {
    let adjust: object = { linux: { cgroupsPath: '/elsewhere' } };
    await plugin({ on: { createContainer: () => ({ adjust }) } });
    const pod = await pods.run();
    await fails(create(pod, containerConfig('true')), 'invalid-argument', /"\/elsewhere" is not directly in/);
    adjust = { linux: { sysctl: { 'kernel.core_pattern': '|/x' } } };
    await fails(create(pod, containerConfig('true')), 'invalid-argument', /kernel\.core_pattern/);
  });

  it('may refuse a pod, a container or a start, and nothing is left', async () => {
    let refusing = '';
    const refuse = (what: string) => (): void => {
      if (refusing === what) throw refusal(`no ${what} today`);
    };
    const double = await plugin({
      on: { runPodSandbox: refuse('pod'), createContainer: refuse('container'), startContainer: refuse('start') },
    });
    refusing = 'pod';
    await fails(pods.run(), 'denied', /plugin 10-double: RunPodSandbox: no pod today/);
    assert.deepEqual(pods.host.runtime.sandboxes.list({}), []);
    assert.match(double.calls.at(-1) ?? '', /^RemovePodSandbox/);
    refusing = 'container';
    const pod = await pods.run();
    await fails(create(pod, containerConfig('true')), 'denied', /no container today/);
    assert.match(double.calls.at(-1) ?? '', /^RemoveContainer/);
    refusing = 'start';
    const id = await create(pod, containerConfig('true'));
    await fails(pods.host.runtime.containers.start(id, call()), 'denied', /no start today/);
    const { state, exit } = pods.host.runtime.containers.status(id);
    assert.deepEqual([state, exit?.reason], ['exited', 'StartError']);
  });

  it('hear of the end of a container whose creation fails after they were asked', async () => {
    const double = await plugin();
    const pod = await pods.run();
    const config = containerConfig('true');
    const breaking: Observer = {
      note: () => undefined,
      step: async (name, work) => {
        if (name === 'record created') throw new Error('broken');
        return await work();
      },
    };
    await assert.rejects(create(pod, config, breaking), /broken/);
    assert.deepEqual(
      double.calls.filter((each) => each.endsWith(config.metadata.name)).map((each) => each.split(' ')[0]),
      ['CreateContainer', 'ValidateContainerAdjustment', 'RemoveContainer'],
    );
  });

  it('have the last word as validators, who hear who wants what', async () => {
    await plugin({
      index: '10',
      name: 'setter',
      events: [Event.CREATE_CONTAINER],
      on: { createContainer: () => ({ adjust: { env: [{ key: 'X', value: '1' }], args: ['true'] } }) },
    });
    await plugin({
      index: '90',
      name: 'judge',
      events: [Event.VALIDATE_CONTAINER_ADJUSTMENT],
      on: {
        validateContainerAdjustment: ({ container, adjust, owners, plugins }) => {
          const fields = owners?.owners[container?.id ?? ''];
          assert.deepEqual(container?.args, ['/bin/sh', '-c', 'true']);
          assert.deepEqual(adjust?.args, ['true']);
          assert.deepEqual(fields?.simple, { 7: '10-setter' });
          assert.deepEqual(fields?.compound[6]?.owners, { X: '10-setter' });
          assert.deepEqual(
            plugins.map(({ index, name }) => `${index}-${name}`),
            ['10-setter', '90-judge'],
          );
          return { reject: true, reason: 'X is forbidden' };
        },
      },
    });
    await fails(create(await pods.run(), containerConfig('true')), 'denied', /90-judge rejects .*: X is forbidden/);
  });

  it('change an update, and other containers on the way', async () => {
    let other = '';
    await plugin({
      on: {
        updateContainer: ({ container, linuxResources }) => {
          assert.deepEqual(linuxResources?.cpu?.shares, { value: 100n });
          return {
            update: [
              { containerId: container?.id ?? '', linux: { resources: { cpu: { shares: { value: 200n } } } } },
              { containerId: other, linux: { resources: { cpu: { shares: { value: 300n } } } } },
              { containerId: 'missing', ignoreFailure: true, linux: { resources: { cpu: { shares: { value: 3n } } } } },
            ],
          };
        },
      },
    });
    const pod = await pods.run();
    other = await pods.start(pod, containerConfig('exec sleep 100'));
    const id = await pods.start(pod, containerConfig('exec sleep 100'));
    await pods.host.runtime.containers.updateResources(id, { cpuShares: 100 }, {}, call());
    const shares = [id, other].map((each) => pods.host.runtime.containers.status(each).resources.cpuShares);
    assert.deepEqual(shares, [200, 300]);
  });

  it('change and evict containers of their own accord, and hear what failed', async () => {
    const double = await plugin();
    const pod = await pods.run();
    const config = containerConfig('trap "exit 0" TERM; echo ready; while :; do sleep 0.1; done');
    const id = await pods.start(pod, config);
    const resources = { cpu: { shares: { value: 444n } } };
    const { failed } = await double.update({
      update: [
        { containerId: id, linux: { resources } },
        { containerId: 'nobody', linux: { resources } },
        { containerId: 'ignored', linux: { resources }, ignoreFailure: true },
        { containerId: id, linux: { resources: { rdtClass: { value: 'gold' } } } },
      ],
    });
    assert.deepEqual(
      failed.map(({ containerId }) => containerId),
      ['nobody', id],
    );
    assert.equal(pods.host.runtime.containers.status(id).resources.cpuShares, 444);
    await until(() => logText(pods.host.runtime.containers.status(id).logPath) !== '');
    await double.update({ evict: [{ containerId: id, reason: 'because' }] });
    await double.seen(`StopContainer ${config.metadata.name}`);
    assert.equal(pods.host.runtime.containers.status(id).exit?.code, 0);
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
    await fails(create(pod, containerConfig('true')), 'unavailable', /10-double did not validate/);
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

async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !holds(); i++) await sleep(25);
  assert.ok(holds());
}
