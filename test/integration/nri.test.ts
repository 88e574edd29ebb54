import assert from 'node:assert/strict';
import { readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Event } from '../../api/nri/v1alpha1/generated/api.js';
import { silentObserver, type Observer } from '../../src/kit/observer.js';
import type { ContainerConfig } from '../../src/runtime/model.js';
import { failsWith, refusal, until, usePlugins, type PluginOptions } from '../support/nri-plugin.js';
import { usePods } from '../support/pods.js';
import { call, containerConfig, logText } from '../support/runtime.js';

describe('plugins of the node, and what they change', function () {
  this.timeout(60_000);
  const pods = usePods({
    flags: { 'nri-request-timeout': '1s', 'nri-registration-timeout': '3s' },
    prepare: ({ host }) => host.runtime.openToPlugins('1.2.3'),
  });
  const plugin = usePlugins(pods);
  const create = (pod: string, config: ContainerConfig, observer: Observer = silentObserver) =>
    pods.host.runtime.containers.create({ sandboxId: pod, config }, call(observer));
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
    await failsWith(
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
      await failsWith(create(await pods.run(), containerConfig('true')), 'unimplemented', message);
    });

  it('may give CDI devices, and hear of those there are not', async () => {
    let name = 'v.com/c=one';
    await plugin({ on: { createContainer: () => ({ adjust: { cdiDevices: [{ name }] } }) } });
    const spec = {
      cdiVersion: '0.5.0',
      kind: 'v.com/c',
      devices: [
        { name: 'one', containerEdits: { env: ['ONE=1'], deviceNodes: [{ path: '/dev/x', hostPath: '/dev/null' }] } },
      ],
    };
    writeFileSync(join(pods.directory('cdi/etc'), 'v.json'), JSON.stringify(spec));
    const pod = await pods.run();
    assert.equal(await pods.output(pod, containerConfig('echo $ONE; echo > /dev/x && echo open')), '1\nopen\n');
    name = 'v.com/c=two';
    await failsWith(
      create(pod, containerConfig('true')),
      'invalid-argument',
      /CDI devices of plugin 10-double: no spec in .* describes the CDI device v\.com\/c=two/,
    );
  });

  it('may not lead a container out of its pod', async () => {
    let adjust: object = { linux: { cgroupsPath: '/elsewhere' } };
    await plugin({ on: { createContainer: () => ({ adjust }) } });
    const pod = await pods.run();
    await failsWith(create(pod, containerConfig('true')), 'invalid-argument', /"\/elsewhere" is not directly in/);
    adjust = { linux: { sysctl: { 'kernel.core_pattern': '|/x' } } };
    await failsWith(create(pod, containerConfig('true')), 'invalid-argument', /kernel\.core_pattern/);
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
    await failsWith(pods.run(), 'denied', /plugin 10-double: RunPodSandbox: no pod today/);
    assert.deepEqual(pods.host.runtime.sandboxes.list({}), []);
    assert.match(double.calls.at(-1) ?? '', /^RemovePodSandbox/);
    refusing = 'container';
    const pod = await pods.run();
    await failsWith(create(pod, containerConfig('true')), 'denied', /no container today/);
    assert.match(double.calls.at(-1) ?? '', /^RemoveContainer/);
    refusing = 'start';
    const id = await create(pod, containerConfig('true'));
    await failsWith(pods.host.runtime.containers.start(id, call()), 'denied', /no start today/);
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
    await failsWith(create(await pods.run(), containerConfig('true')), 'denied', /90-judge rejects .*: X is forbidden/);
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
});
