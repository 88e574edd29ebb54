import assert from 'node:assert/strict';
import * as wire from '../../../api/cri/v1/generated/api.js';
import { isKind } from '../../kit/errors.js';
import type { ContainerConfig } from '../../runtime/model.js';
import { containerConfig } from './container.js';
import { wireMount } from './container-status.js';
import { linuxResources, wireResources } from './resources.js';
import { signalName, signalValue } from './signals.js';

type Config = wire.DeepPartial<wire.ContainerConfig>;
type Security = wire.DeepPartial<wire.LinuxContainerSecurityContext>;
type Resources = wire.DeepPartial<wire.LinuxContainerResources>;

const least = { metadata: { name: 'main' }, image: { image: 'busybox' } };
const translate = (config: Config): ContainerConfig =>
  containerConfig('config', wire.ContainerConfig.fromPartial({ ...least, ...config }));
const withSecurity = (securityContext: Security): ContainerConfig => translate({ linux: { securityContext } });
const withMount = (mount: wire.DeepPartial<wire.Mount>): ContainerConfig =>
  translate({ mounts: [{ containerPath: '/data', hostPath: '/srv', ...mount }] });
const resources = (fields: Resources) => linuxResources('r', wire.LinuxContainerResources.fromPartial(fields));

const { POD, NODE, TARGET } = wire.NamespaceMode;
const { PROPAGATION_PRIVATE, PROPAGATION_BIDIRECTIONAL } = wire.MountPropagation;

describe('containerConfig', () => {
  it('reads a minimal configuration', () => {
    const config = translate({});
    assert.deepEqual(config.metadata, { name: 'main', attempt: 0 });
    assert.deepEqual(config.image, { image: 'busybox', userSpecifiedImage: '', annotations: {}, runtimeHandler: '' });
    assert.deepEqual(config.resources, {});
    assert.equal('stopSignal' in config, false);
    assert.deepEqual(config.security, {
      namespaces: { network: 'pod', pid: 'pod', ipc: 'pod' },
      readonlyRootfs: false,
      supplementalGroups: [],
      supplementalGroupsPolicy: 'merge',
      privileged: false,
      capabilities: { add: [], drop: [], addAmbient: [] },
      noNewPrivs: false,
      maskedPaths: [],
      readonlyPaths: [],
    });
  });

  it('reads the process: environment values are bytes', () => {
    const value = Buffer.from([0xff, 0xfe]);
    const config = translate({
      command: ['/bin/sh', '-c'],
      args: ['echo'],
      workingDir: '/work',
      envs: [{ key: 'A', value }, { key: 'B' }],
      stopSignal: wire.Signal.SIGNAL_SIGRTMINPLUS3,
      logPath: 'main/0.log',
      CDIDevices: [{ name: 'vendor.com/gpu=0' }],
    });
    assert.deepEqual([config.command, config.args, config.workingDir], [['/bin/sh', '-c'], ['echo'], '/work']);
    assert.deepEqual(
      config.env.map((entry) => [entry.key, Buffer.from(entry.value)]),
      [
        ['A', value],
        ['B', Buffer.alloc(0)],
      ],
    );
    assert.deepEqual(
      [config.stopSignal, config.logPath, config.cdiDevices],
      ['SIGRTMIN+3', 'main/0.log', ['vendor.com/gpu=0']],
    );
  });

  it('writes capabilities in one form', () => {
    const capabilities = {
      addCapabilities: ['net_admin', 'CAP_SYS_TIME', 'ALL'],
      dropCapabilities: ['cap_all', 'kill'],
    };
    assert.deepEqual(withSecurity({ capabilities }).security.capabilities, {
      add: ['CAP_NET_ADMIN', 'CAP_SYS_TIME', 'ALL'],
      drop: ['ALL', 'CAP_KILL'],
      addAmbient: [],
    });
  });

  it('reads namespaces, users and profiles', () => {
    const { security } = withSecurity({
      namespaceOptions: { pid: TARGET, targetId: 'c1', network: NODE },
      runAsUsername: 'www',
      runAsGroup: { value: 5n },
      noNewPrivs: true,
      maskedPaths: ['/proc/kcore'],
      apparmorProfile: 'localhost/mine',
      seccompProfilePath: 'unconfined',
    });
    assert.deepEqual(security.namespaces, { network: 'node', pid: 'target', ipc: 'pod', targetId: 'c1' });
    assert.deepEqual([security.runAsUsername, security.runAsGroup, security.noNewPrivs], ['www', 5, true]);
    assert.deepEqual(security.apparmor, { kind: 'localhost', localhostRef: 'mine' });
    assert.deepEqual(security.seccomp, { kind: 'unconfined' });
    assert.deepEqual(security.maskedPaths, ['/proc/kcore']);
  });

  it('reads mounts and gives them back', () => {
    const mapping = { containerId: 0, hostId: 65536, length: 65536 };
    const host = wire.Mount.fromPartial({
      containerPath: '/data',
      hostPath: '/srv/data',
      readonly: true,
      selinuxRelabel: true,
      propagation: PROPAGATION_PRIVATE,
      uidMappings: [mapping],
      gidMappings: [mapping],
      recursiveReadOnly: true,
      mountOptions: ['noexec', 'nosuid'],
    });
    const image = wire.Mount.fromPartial({
      containerPath: '/img',
      image: { image: 'art:1' },
      imageSubPath: 'a/b',
      readonly: true,
    });
    assert.deepEqual(translate({ mounts: [host, image] }).mounts.map(wireMount), [host, image]);
  });

  it('mounts images read-only whatever is asked for', () => {
    assert.equal(withMount({ hostPath: '', image: { image: 'art:1' } }).mounts[0]?.readonly, true);
  });

  it('shows the id of an image that is mounted', () => {
    const [mount] = withMount({ hostPath: '', image: { image: 'art:1' } }).mounts;
    assert.ok(mount?.image !== undefined);
    const shown = wireMount({ ...mount, image: { ...mount.image, imageRef: 'sha256:1' } });
    assert.deepEqual([shown.image?.image, shown.image?.imageRef, shown.hostPath], ['art:1', 'sha256:1', '']);
  });

  it('gives devices their usual path and permissions', () => {
    const { devices } = translate({ devices: [{ hostPath: '/dev/fuse' }] });
    assert.deepEqual(devices, [{ hostPath: '/dev/fuse', containerPath: '/dev/fuse', permissions: 'rwm' }]);
  });

  const at = 'config.linux.security_context.';
  const mount = 'config.mounts[0]';
  const one = { containerId: 0, hostId: 1, length: 1 };
  const wrong: readonly (readonly [() => unknown, string])[] = [
    [() => containerConfig('config', undefined), 'config: is required'],
    [() => translate({ metadata: undefined }), 'config.metadata: is required'],
    [() => translate({ metadata: {} }), 'config.metadata.name: must not be empty'],
    [() => translate({ image: undefined }), 'config.image: is required'],
    [() => translate({ image: {} }), 'config.image.image: must not be empty'],
    [() => translate({ command: ['a', 'b\0'] }), 'config.command[1]: must not contain a NUL'],
    [() => translate({ workingDir: 'x' }), 'config.working_dir: "x" must be an absolute path'],
    [() => translate({ envs: [{ key: '' }] }), 'config.envs[0].key: must not be empty'],
    [() => translate({ envs: [{ key: 'a=b' }] }), 'config.envs[0].key: "a=b" must not contain "="'],
    [
      () => translate({ envs: [{ key: 'A', value: Buffer.from('s3cret\0') }] }),
      'config.envs[0].value: the value of A must',
    ],
    [() => translate({ logPath: '/x.log' }), 'config.log_path: "/x.log" must be a relative path'],
    [() => translate({ logPath: 'a/../../x' }), 'config.log_path: "a/../../x" must not contain ".."'],
    [() => translate({ logPath: 'a\nb' }), 'config.log_path: must not contain control'],
    [() => translate({ stopSignal: 99 as wire.Signal }), 'config.stop_signal: value 99 is not supported'],
    [() => translate({ CDIDevices: [{}] }), 'config.CDI_devices[0].name: must not be empty'],
    [() => translate({ devices: [{ hostPath: 'x' }] }), 'config.devices[0].host_path: "x" must be an absolute path'],
    [
      () => translate({ devices: [{ hostPath: '/x', permissions: 'rx' }] }),
      'config.devices[0].permissions: "rx" is not',
    ],
    [() => withMount({ containerPath: 'x' }), `${mount}.container_path: "x" must be an absolute path`],
    [() => withMount({ hostPath: '' }), `${mount}.host_path: must not be empty`],
    [() => withMount({ hostPath: 'x' }), `${mount}.host_path: "x" must be an absolute path`],
    [() => withMount({ image: { image: 'x' } }), `${mount}.host_path: excludes image`],
    [() => withMount({ imageSubPath: 'x' }), `${mount}.image_sub_path: needs image`],
    [() => withMount({ hostPath: '', image: {} }), `${mount}.image.image: must not be empty`],
    [() => withMount({ hostPath: '', image: { image: 'x' }, imageSubPath: '../y' }), `${mount}.image_sub_path: "../y"`],
    [() => withMount({ recursiveReadOnly: true }), `${mount}.recursive_read_only: needs readonly`],
    [
      () => withMount({ recursiveReadOnly: true, readonly: true, propagation: PROPAGATION_BIDIRECTIONAL }),
      `${mount}.recursive_read_only: needs propagation PRIVATE`,
    ],
    [() => withMount({ propagation: 3 as wire.MountPropagation }), `${mount}.propagation: value 3 is not supported`],
    [() => withMount({ mountOptions: ['noexec', 'exec'] }), `${mount}.mount_options[1]: "exec" is not one of`],
    [() => withMount({ uidMappings: [one] }), `${mount}: uidMappings and gidMappings must be given together`],
    [() => withSecurity({ runAsGroup: { value: 1n } }), `${at}run_as_group: needs run_as_user or run_as_username`],
    [
      () => withSecurity({ runAsUser: { value: 1n }, runAsUsername: 'x' }),
      `${at}run_as_username: excludes run_as_user`,
    ],
    [() => withSecurity({ namespaceOptions: { pid: TARGET } }), `${at}namespace_options.target_id: is required`],
    [
      () => withSecurity({ namespaceOptions: { pid: POD, targetId: 'x' } }),
      `${at}namespace_options.target_id: needs pid`,
    ],
    [
      () => withSecurity({ capabilities: { addCapabilities: ['a b'] } }),
      `${at}capabilities.add_capabilities[0]: "a b"`,
    ],
    [() => withSecurity({ maskedPaths: ['x'] }), `${at}masked_paths[0]: "x" must be an absolute path`],
    [() => withSecurity({ apparmorProfile: 'x' }), `${at}apparmor_profile: "x" is not a profile`],
  ];
  for (const [work, message] of wrong) {
    it(`refuses: ${message}`, () => {
      assert.throws(work, (error) => isKind(error, 'invalid-argument') && error.message.startsWith(message));
    });
  }

  it('never repeats an environment value in an error', () => {
    const envs = [{ key: 'A', value: Buffer.from('s3cret\0') }];
    assert.throws(
      () => translate({ envs }),
      (error) => !String(error).includes('s3cret'),
    );
  });
});

describe('linuxResources', () => {
  it('takes 0 and empty for "not given", everywhere', () => {
    assert.deepEqual(resources({}), {});
    assert.deepEqual(linuxResources('r', undefined), {});
  });

  it('reads every field and gives it back', () => {
    const fields = wire.LinuxContainerResources.fromPartial({
      cpuPeriod: 100_000n,
      cpuQuota: -1n,
      cpuShares: 512n,
      memoryLimitInBytes: 1n << 30n,
      oomScoreAdj: -998n,
      cpusetCpus: '0-3,7',
      cpusetMems: '0',
      hugepageLimits: [
        { pageSize: '2MB', limit: 0n },
        { pageSize: '1GB', limit: 1n << 30n },
      ],
      unified: { 'memory.oom.group': '1' },
      memorySwapLimitInBytes: 1n << 31n,
    });
    const read = resources(fields);
    assert.deepEqual(read.hugepageLimits, [
      { pageSize: '2MB', limitBytes: 0 },
      { pageSize: '1GB', limitBytes: 2 ** 30 },
    ]);
    assert.deepEqual(wireResources(read), fields);
  });

  it('moves shares into the kernel\'s range, and any negative limit to "none"', () => {
    const read = resources({ cpuShares: 1n, cpuQuota: -7n, memoryLimitInBytes: -1n, memorySwapLimitInBytes: -1n });
    assert.deepEqual(read, { cpuShares: 2, cpuQuota: -1, memoryLimit: -1, memorySwapLimit: -1 });
    assert.equal(resources({ cpuShares: 1n << 30n }).cpuShares, 262144);
  });

  const wrong: readonly (readonly [Resources, string])[] = [
    [{ cpuShares: -1n }, 'r.cpu_shares: -1 is below 0'],
    [{ cpuPeriod: -1n }, 'r.cpu_period: -1 is below 1'],
    [{ memoryLimitInBytes: 2n ** 62n }, 'r.memory_limit_in_bytes: 4611686018427387904 is out of range'],
    [{ memoryLimitInBytes: 10n, memorySwapLimitInBytes: 9n }, 'r.memory_swap_limit_in_bytes: 9 is below 10'],
    [{ memoryLimitInBytes: -1n, memorySwapLimitInBytes: 9n }, 'r.memory_swap_limit_in_bytes: needs a memory limit'],
    [{ oomScoreAdj: -1001n }, 'r.oom_score_adj: -1001 is not within'],
    [{ cpusetCpus: '0-' }, 'r.cpuset_cpus: "0-" is not a list'],
    [{ cpusetMems: '0\n' }, 'r.cpuset_mems: '],
    [{ hugepageLimits: [{ pageSize: '2M' }] }, 'r.hugepage_limits[0].page_size: "2M" is not'],
    [{ hugepageLimits: [{ pageSize: '2MB' }, { pageSize: '2MB' }] }, 'r.hugepage_limits: a page size is given twice'],
    [{ unified: { '../x': '1' } }, 'r.unified["../x"]: is not a cgroup file name'],
    [{ unified: { 'memory.high': '1\0' } }, 'r.unified["memory.high"]: must not contain a NUL'],
  ];
  for (const [fields, message] of wrong) {
    it(`refuses: ${message}`, () => {
      assert.throws(
        () => resources(fields),
        (error) => isKind(error, 'invalid-argument') && error.message.startsWith(message),
      );
    });
  }
});

describe('signals', () => {
  it('have a name each, both ways', () => {
    for (const [key, value] of Object.entries(wire.Signal)) {
      const name = signalName('s', value);
      if (value === wire.Signal.SIGNAL_RUNTIME_DEFAULT) assert.equal(name, undefined);
      else assert.equal(signalValue(name ?? ''), value, key);
    }
    assert.equal(signalName('s', wire.Signal.SIGNAL_SIGRTMAXMINUS14), 'SIGRTMAX-14');
  });

  it("without a name in the enum are the runtime's default", () => {
    assert.equal(signalValue('SIGRTMIN+16'), wire.Signal.SIGNAL_RUNTIME_DEFAULT);
    assert.equal(signalValue('sigterm'), wire.Signal.SIGNAL_SIGTERM);
  });
});
