import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { isKind } from '../../kit/errors.js';
import { defaultMounts } from './defaults.js';
import type { OciMount, OciSpec } from './oci.js';
import { isWithin, toRootless, type RootlessFacts } from './rootless.js';

const directory = new URL('../../../test/golden/rootless/', import.meta.url);

const facts: RootlessFacts = {
  maps: {
    uids: [
      { containerId: 0, hostId: 1000, size: 1 },
      { containerId: 1, hostId: 100000, size: 65536 },
    ],
    gids: [
      { containerId: 0, hostId: 1000, size: 1 },
      { containerId: 1, hostId: 300000, size: 1000 },
    ],
  },
  cgroups: 'delegated',
  hostQueues: true,
  oomScoreAdj: 200,
  hardLimits: new Map([['RLIMIT_NOFILE', 524288n]]),
};

const spec: OciSpec = {
  ociVersion: '1.2.0',
  process: {
    user: { uid: 0, gid: 0 },
    args: ['sh'],
    env: [],
    cwd: '/',
    rlimits: [
      { type: 'RLIMIT_NOFILE', soft: 1024n, hard: 1048576n },
      { type: 'RLIMIT_CORE', soft: 0n, hard: 0n },
    ],
    oomScoreAdj: -500,
  },
  root: { path: '/run/berth/pods/p/root' },
  mounts: [
    ...defaultMounts({ privileged: false, sys: 'fresh' }),
    { destination: '/cache', type: 'tmpfs', source: 'tmpfs', options: ['uid=999', 'gid=999', 'mode=700'] },
    { destination: '/shared', type: 'tmpfs', source: 'tmpfs', options: ['uid=70000', 'gid=5000'] },
    { destination: '/sys/fs/bpf', type: 'bpf', source: 'bpf' },
    { destination: '/sysroot', type: 'bind', source: '/srv/sysroot', options: ['rbind', 'rprivate', 'rw'] },
    { destination: '/data', type: 'bind', source: '/srv/data', options: ['rbind', 'ro', 'exec', 'rsuid', 'noatime'] },
  ],
  linux: {
    namespaces: [{ type: 'pid' }, { type: 'network' }, { type: 'ipc' }, { type: 'mount' }, { type: 'cgroup' }],
    cgroupsPath: '/berth/pod-p/c',
    devices: [{ path: '/dev/fuse', type: 'c', major: 10, minor: 229 }],
    resources: {
      devices: [{ allow: false, type: 'a', access: 'rwm' }],
      memory: { limit: 268435456 },
      cpu: { quota: 50000, period: 100000 },
      pids: { limit: 100 },
      unified: { 'memory.high': '200000000' },
    },
    rootfsPropagation: 'rprivate',
  },
};

const withLinux = (changes: Partial<OciSpec['linux']>): OciSpec => ({ ...spec, linux: { ...spec.linux, ...changes } });
const without = (...gone: readonly string[]): OciSpec =>
  withLinux({ namespaces: spec.linux.namespaces.filter(({ type }) => !gone.includes(type)) });

const one = [{ containerId: 0, hostId: 1000, size: 1 }];
const cases: Readonly<Record<string, readonly [OciSpec, RootlessFacts]>> = {
  delegated: [spec, facts],
  'no-cgroups': [spec, { ...facts, cgroups: 'none' }],
  'host-namespaces': [without('network', 'pid', 'ipc'), { ...facts, cgroups: 'none' }],
  'no-host-queues': [without('ipc'), { ...facts, hostQueues: false }],
  'one-id': [spec, { ...facts, maps: { uids: one, gids: one } }],
  'nested-user-namespace': [
    withLinux({
      namespaces: [...spec.linux.namespaces, { type: 'user' }],
      uidMappings: [{ containerID: 0, hostID: 1, size: 60000 }],
      gidMappings: [{ containerID: 0, hostID: 1, size: 900 }],
    }),
    facts,
  ],
  'nested-without-maps': [withLinux({ namespaces: [...spec.linux.namespaces, { type: 'user' }] }), facts],
  'nothing-said': [
    { ociVersion: '1.2.0', linux: { namespaces: [] } },
    { ...facts, cgroups: 'none' },
  ],
};

const text = (name: string): string => {
  const [given, known] = cases[name] ?? assert.fail(name);
  const show = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? `${value}` : value);
  return `${JSON.stringify(toRootless(given, known), show, 2)}\n`;
};

describe('a spec for an agent without root', () => {
  for (const name of Object.keys(cases)) {
    it(`is as the golden file says: ${name} (UPDATE_GOLDEN=1 writes it anew)`, () => {
      const file = new URL(`${name}.json`, directory);
      if (process.env['UPDATE_GOLDEN'] === '1') {
        mkdirSync(directory, { recursive: true });
        writeFileSync(file, text(name));
      }
      assert.equal(text(name), readFileSync(file, 'utf8'));
    });
  }

  it('has no golden file too many', () => {
    const files = existsSync(directory) ? readdirSync(directory) : [];
    assert.deepEqual(
      files.sort(),
      Object.keys(cases)
        .map((name) => `${name}.json`)
        .sort(),
    );
  });

  it('changes nothing it was given', () => {
    const before = structuredClone(spec);
    toRootless(spec, { ...facts, cgroups: 'none' });
    assert.deepEqual(spec, before);
  });

  it('refuses maps beyond the agent’s own, each kind by its own', () => {
    const nested = (uidHost: number, gidHost: number): OciSpec =>
      withLinux({
        namespaces: [...spec.linux.namespaces, { type: 'user' }],
        uidMappings: [{ containerID: 0, hostID: uidHost, size: 65536 }],
        gidMappings: [{ containerID: 0, hostID: gidHost, size: 500 }],
      });
    const refused = (given: OciSpec, message: RegExp): void =>
      assert.throws(
        () => toRootless(given, facts),
        (error) => isKind(error, 'invalid-argument') && message.test((error as Error).message),
      );
    refused(nested(100000, 1), /linux\.uidMappings\[0\].* no uid 100000/);
    refused(nested(2, 1), /linux\.uidMappings\[0\].* no uid 65537/);
    refused(nested(1, 600), /linux\.gidMappings\[0\].* no gid 1001/);
    toRootless(nested(0, 501), facts);
  });

  it('has a fresh /sys with a network namespace, else the host’s, read-only with all below it', () => {
    const sys = (given: OciSpec): OciMount | undefined =>
      toRootless(given, facts).spec.mounts?.find(({ destination }) => destination === '/sys');
    assert.equal(sys(spec)?.type, 'sysfs');
    assert.deepEqual(sys(without('network')), {
      destination: '/sys',
      type: 'bind',
      source: '/sys',
      options: ['rbind', 'rprivate', 'rnosuid', 'rnoexec', 'rnodev', 'rro'],
    });
  });

  it('knows what is within a directory by component', () => {
    for (const path of ['/sys', '/sys/', '/sys/fs/cgroup', '//sys/fs', '/run/../sys'])
      assert.ok(isWithin(path, '/sys'));
    for (const path of ['/sysroot', '/system', '/syslog/x', '/', '/run/sys']) assert.ok(!isWithin(path, '/sys'));
  });
});
