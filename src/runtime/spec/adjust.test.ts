import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { adjustSpec, adjustedCgroup, adjustedResources } from './adjust.js';
import type { OciMount, OciSpec } from './oci.js';

const bind = (destination: string, source = '/src', options: readonly string[] = ['rbind']): OciMount => ({
  destination,
  type: 'bind',
  source,
  options,
});

const spec: OciSpec = {
  ociVersion: '1.2.0',
  process: {
    user: { uid: 0, gid: 0 },
    args: ['sh'],
    env: ['PATH=/bin', 'A=1', 'B=2'].map((entry) => Buffer.from(entry)),
    cwd: '/',
    rlimits: [{ type: 'nofile', soft: 1n, hard: 2n }],
  },
  mounts: [bind('/proc'), bind('/data'), bind('/etc/hosts')],
  annotations: { kept: 'k', gone: 'g' },
  linux: {
    namespaces: [{ type: 'pid' }, { type: 'network' }, { type: 'mount' }],
    devices: [{ path: '/dev/a', type: 'c', major: 1, minor: 1 }],
    resources: { devices: [{ allow: false, type: 'a' }], memory: { limit: 10 }, cpu: { shares: 2 } },
    rootfsPropagation: 'rprivate',
  },
};

const environment = ({ process }: OciSpec): string[] =>
  (process?.env ?? []).map((entry) => Buffer.from(entry).toString());

describe('adjustments of a spec', () => {
  it('changes nothing when there is nothing to change', () => {
    const adjusted = adjustSpec(spec, {});
    assert.deepEqual(adjusted.mounts, spec.mounts);
    assert.deepEqual(environment(adjusted), environment(spec));
    assert.deepEqual(adjusted.linux, spec.linux);
    assert.deepEqual(adjusted.process, { ...spec.process, env: adjusted.process?.env });
  });

  it('sets, adds and removes annotations and sysctls', () => {
    const annotations = new Map([
      ['gone', undefined],
      ['new', 'n'],
      ['kept', 'K'],
    ]);
    const adjusted = adjustSpec(spec, { annotations, sysctls: new Map([['net.x', '1']]) });
    assert.deepEqual(adjusted.annotations, { kept: 'K', new: 'n' });
    assert.deepEqual(adjusted.linux.sysctl, { 'net.x': '1' });
  });

  it('keeps a variable in its place, and adds new ones last', () => {
    const env = new Map([
      ['C', '3'],
      ['A', 'x=y'],
      ['B', undefined],
      ['D', undefined],
    ]);
    assert.deepEqual(environment(adjustSpec(spec, { env })), ['PATH=/bin', 'A=x=y', 'C=3']);
  });

  it('finds mounts however their destination is written, and mounts parents first', () => {
    const mounts = new Map([
      ['//proc/', undefined],
      ['/data', bind('/data', '/other')],
      ['/x/y/z', bind('/x/y/z')],
      ['/x', bind('/x')],
    ]);
    const adjusted = adjustSpec(spec, { mounts });
    assert.deepEqual(
      adjusted.mounts?.map(({ destination, source }) => `${source} ${destination}`),
      ['/other /data', '/src /x', '/src /etc/hosts', '/src /x/y/z'],
    );
  });

  it('lets mount events through the root for a mount that wants them', () => {
    const propagation = (...options: readonly string[]) =>
      adjustSpec(spec, { mounts: new Map([['/m', bind('/m', '/src', options)]]) }).linux.rootfsPropagation;
    assert.deepEqual(
      [propagation('rbind'), propagation('rslave'), propagation('rshared')],
      ['rprivate', 'rslave', 'rshared'],
    );
  });

  it('lets a device that is added be opened', () => {
    const added = { path: '/dev/b', type: 'b', major: 8, minor: 0 } as const;
    const devices = new Map([
      ['/dev/a', undefined],
      ['/dev/b', added],
    ]);
    const { linux } = adjustSpec(spec, { devices, deviceRules: [{ allow: false, type: 'c', major: 5 }] });
    assert.deepEqual(linux.devices, [added]);
    assert.deepEqual(linux.resources?.devices, [
      { allow: false, type: 'a' },
      { allow: true, type: 'b', major: 8, minor: 0, access: 'rwm' },
      { allow: false, type: 'c', major: 5 },
    ]);
  });

  it('replaces a limit of the same name, however it is written', () => {
    const limit = { type: 'RLIMIT_NOFILE', soft: 7n, hard: 8n };
    assert.deepEqual(adjustSpec(spec, { rlimits: [limit] }).process?.rlimits, [limit]);
  });

  it('gives namespaces another source, or takes them away', () => {
    const namespaces = new Map([
      ['pid', undefined],
      ['network', { type: 'network', path: '/n' }],
      ['ipc', { type: 'ipc' }],
    ] as const);
    assert.deepEqual(adjustSpec(spec, { namespaces }).linux.namespaces, [
      { type: 'mount' },
      { type: 'network', path: '/n' },
      { type: 'ipc' },
    ]);
  });

  it('sets arguments, filter, cgroup, OOM score and resources', () => {
    const adjusted = adjustSpec(spec, {
      args: ['a', 'b'],
      seccomp: { defaultAction: 'SCMP_ACT_ALLOW' },
      cgroupsPath: '/p/c',
      resources: { oomScoreAdj: 5, memoryLimit: 20, cpuQuota: 3, pidsLimit: 9, cpusetCpus: '0' },
    });
    assert.deepEqual(adjusted.process?.args, ['a', 'b']);
    assert.equal(adjusted.process?.oomScoreAdj, 5);
    assert.deepEqual(adjusted.linux.seccomp, { defaultAction: 'SCMP_ACT_ALLOW' });
    assert.equal(adjusted.linux.cgroupsPath, '/p/c');
    const { memory, cpu, pids } = adjusted.linux.resources ?? {};
    assert.deepEqual([memory, cpu, pids], [{ limit: 20 }, { shares: 2, quota: 3, cpus: '0' }, { limit: 9 }]);
  });
});

describe('adjusted resources', () => {
  it('keep what is not given, and the room for swap', () => {
    const now = { cpuShares: 2, memoryLimit: 100, memorySwapLimit: 150 };
    assert.deepEqual(adjustedResources(now, { memoryLimit: 300 }), {
      cpuShares: 2,
      memoryLimit: 300,
      memorySwapLimit: 350,
    });
    assert.equal(adjustedResources(now, { memoryLimit: 300, memorySwapLimit: 300 }).memorySwapLimit, 300);
    assert.equal(adjustedResources(now, { memoryLimit: -1 }).memorySwapLimit, -1);
    assert.equal(adjustedResources({ ...now, memorySwapLimit: -1 }, { memoryLimit: 300 }).memorySwapLimit, -1);
    assert.deepEqual(adjustedResources({}, { memoryLimit: 300 }), { memoryLimit: 300 });
  });

  it('merge hugepage sizes and unified files', () => {
    const now = { hugepageLimits: [{ pageSize: '2MB', limitBytes: 1 }], unified: { a: '1' } };
    const change = { hugepageLimits: [{ pageSize: '1GB', limitBytes: 2 }], unified: { b: '2' } };
    assert.deepEqual(adjustedResources(now, change), {
      hugepageLimits: [...now.hugepageLimits, ...change.hugepageLimits],
      unified: { a: '1', b: '2' },
    });
  });
});

describe('an adjusted cgroup', () => {
  it('is directly in the pod’s, or refused', () => {
    assert.equal(adjustedCgroup('/pods/p/c', '/pods/p/other'), '/pods/p/other');
    for (const wanted of ['/pods/p', '/pods/p/', '/pods/p/..', '/pods/p/a/b', '/elsewhere/c', '/pods/p2/c'])
      assert.throws(
        () => adjustedCgroup('/pods/p/c', wanted),
        (error) => isKind(error, 'invalid-argument'),
        wanted,
      );
  });
});
