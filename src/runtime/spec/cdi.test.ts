import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { adjustSpec } from './adjust.js';
import { askedDevices, cdiAdjustment, qualifiedName, refuseUnsupported, type CdiEdits, type CdiFacts } from './cdi.js';
import type { OciSpec } from './oci.js';

const spec: OciSpec = {
  ociVersion: '1.2.0',
  process: {
    user: { uid: 1000, gid: 0, additionalGids: [5] },
    args: ['x'],
    env: [Buffer.from('A=old'), Buffer.from('P=p')],
    cwd: '/',
  },
  mounts: [{ destination: '/a/b', source: '/old' }],
  linux: { namespaces: [], devices: [{ path: '/dev/x', type: 'c', major: 9, minor: 9 }], resources: { devices: [] } },
};

const none: CdiEdits = { env: [], deviceNodes: [], netDevices: [], hooks: [], mounts: [], additionalGids: [] };
const of = (edits: Partial<CdiEdits>) => ({
  device: 'v.com/c=d',
  origin: 'containerEdits of /f',
  edits: { ...none, ...edits },
});
const facts = (changes: Partial<CdiFacts> = {}): CdiFacts => ({
  nodes: [],
  mounts: [],
  user: spec.process?.user ?? { uid: 0, gid: 0 },
  mapped: false,
  ...changes,
});

describe('names of CDI devices', () => {
  it('are vendor/class=name', () => {
    assert.deepEqual(qualifiedName('v.com/c_1=0:a.b-c', 'f'), { kind: 'v.com/c_1', device: '0:a.b-c' });
    for (const name of [
      '',
      'gpu0',
      'v.com/c',
      'v.com/c=',
      'v.com/c=a=b',
      '/c=a',
      'v.com/=a',
      'v.com/c=-a',
      'v.com/c=a\n',
    ])
      assert.throws(
        () => qualifiedName(name, 'the.field'),
        (error) => isKind(error, 'invalid-argument') && error.message.startsWith('the.field: '),
      );
  });

  it('come from the field, then once each from annotations', () => {
    const annotations = { 'cdi.k8s.io/b': 'v/c=3', 'cdi.k8s.io/a': 'v/c=1,v/c=2', 'x.k8s.io/a': 'v/c=9' };
    assert.deepEqual(askedDevices({ cdiDevices: ['v/c=1', 'v/c=1'], annotations }), [
      { name: 'v/c=1', field: 'config.CDI_devices[0].name' },
      { name: 'v/c=2', field: 'config.annotations["cdi.k8s.io/a"]' },
      { name: 'v/c=3', field: 'config.annotations["cdi.k8s.io/b"]' },
    ]);
  });
});

describe('edits of CDI devices', () => {
  it('set variables, groups, devices and mounts, the last word theirs', () => {
    const all = [of({ env: ['A=1', 'B=x=y'], additionalGids: [0, 5, 7] }), of({ env: ['A=2'] })];
    const nodes = [{ path: '/dev/x', type: 'b' as const, major: 1, minor: 2, gid: 8, access: 'r', hostPath: '/dev/y' }];
    const mounts = [{ hostPath: '/new', containerPath: '/a/b', options: ['ro'] }];
    const edited = adjustSpec(spec, cdiAdjustment(all, facts({ nodes, mounts })));
    assert.deepEqual(edited.process?.env.map(String), ['A=2', 'P=p', 'B=x=y']);
    assert.deepEqual(edited.process?.user.additionalGids, [5, 7]);
    assert.deepEqual(edited.linux.devices, [{ path: '/dev/x', type: 'b', major: 1, minor: 2, uid: 1000, gid: 8 }]);
    assert.deepEqual(edited.linux.resources?.devices, [{ allow: true, type: 'b', major: 1, minor: 2, access: 'r' }]);
    assert.deepEqual(edited.mounts, [{ destination: '/a/b', source: '/new', type: 'bind', options: ['ro'] }]);
  });

  it('open neither pipes nor devices without permissions', () => {
    const nodes = [
      { path: '/dev/p', type: 'p' as const, major: 0, minor: 0 },
      { path: '/dev/n', type: 'u' as const, major: 1, minor: 3, access: '' },
    ];
    const edited = adjustSpec(spec, cdiAdjustment([of({})], facts({ nodes })));
    assert.deepEqual(edited.linux.resources?.devices, []);
    assert.equal(edited.linux.devices?.length, 3);
  });

  it('map what they bind into a user namespace', () => {
    const mounts = [
      { hostPath: '/a', containerPath: '/a', options: ['bind'] },
      { hostPath: '/b', containerPath: '/b', type: 'none', options: ['rbind'] },
      { hostPath: '/c', containerPath: '/c', options: ['idmap'] },
      { hostPath: 'tmpfs', containerPath: '/d', type: 'tmpfs', options: ['size=1m'] },
    ];
    const { mounts: changes } = cdiAdjustment([of({})], facts({ mounts, mapped: true }));
    assert.deepEqual(
      [...(changes?.values() ?? [])].map((mount) => [mount?.type, mount?.options]),
      [
        ['bind', ['bind', 'idmap']],
        ['bind', ['rbind', 'ridmap']],
        ['bind', ['idmap']],
        ['tmpfs', ['size=1m']],
      ],
    );
  });

  const unsupported: readonly (readonly [Partial<CdiEdits>, RegExp])[] = [
    [
      { hooks: [{ hookName: 'poststop', path: '/h' }] },
      /CDI device v\.com\/c=d: hooks\[0\] in .* of \/f: .*poststop \/h/,
    ],
    [{ intelRdt: { closID: '' } }, /CDI device v\.com\/c=d: intelRdt in/],
    [{ netDevices: [{ hostInterfaceName: 'eth1', name: 'n' }] }, /CDI device v\.com\/c=d: netDevices\[0\] in .*eth1/],
  ];
  for (const [edits, message] of unsupported)
    it(`are refused with ${Object.keys(edits)[0]}`, () => {
      assert.throws(
        () => refuseUnsupported(of(edits)),
        (error) => isKind(error, 'unimplemented') && message.test(error.message),
      );
    });
});
