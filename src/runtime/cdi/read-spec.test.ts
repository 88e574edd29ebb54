import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { readCdiSpec } from './read-spec.js';

const device = { name: 'one', containerEdits: { env: ['A=1'] } };
const whole = { cdiVersion: '1.1.0', kind: 'vendor.com/thing', devices: [device] };
const read = (changes: object) => readCdiSpec(JSON.stringify({ ...whole, ...changes }), 'json');
const edits = (containerEdits: object, cdiVersion = '1.1.0') => read({ cdiVersion, containerEdits }).containerEdits;

function refused(work: () => unknown, message: RegExp): void {
  assert.throws(work, (error) => isKind(error, 'invalid-argument') && message.test(error.message));
}

describe('CDI specs', () => {
  it('have every field of the newest version', () => {
    const node = {
      path: '/dev/x',
      hostPath: '/dev/y',
      type: 'c',
      major: 1,
      minor: 3,
      fileMode: 438,
      permissions: 'rw',
      uid: 5,
      gid: 6,
    };
    const given = {
      env: ['A=1', 'B==', 'C='],
      deviceNodes: [node, { path: '/dev/z' }],
      netDevices: [{ hostInterfaceName: 'eth7', name: 'net0' }],
      hooks: [{ hookName: 'createContainer', path: '/bin/h', args: ['h', ''], env: ['X=y'], timeout: 3 }],
      mounts: [{ hostPath: '/lib/x', containerPath: '/x', type: 'bind', options: ['ro', 'rbind'] }],
      intelRdt: {
        closID: 'gold',
        l3CacheSchema: 'L3:0=f',
        memBwSchema: 'MB:0=20',
        schemata: [],
        enableMonitoring: true,
      },
      additionalGids: [7, 0],
    };
    assert.deepEqual(edits(given), {
      ...given,
      hooks: [{ hookName: 'createContainer', path: '/bin/h' }],
      intelRdt: { closID: 'gold' },
    });
    assert.deepEqual(edits({ deviceNodes: [{ path: '/dev/x', permissions: 'none' }] }).deviceNodes, [
      { path: '/dev/x', permissions: '' },
    ]);
  });

  it('are the same in YAML, whatever its version makes of scalars', () => {
    const yaml = `---
cdiVersion: 0.7.0
kind: "vendor.com/thing"
devices:
- name: 0
  containerEdits: &same
    env: [ON=yes]
- name: on
  annotations: {a: 1}
  containerEdits: *same
containerEdits:
  deviceNodes:
  - {path: /dev/x, fileMode: 0660, major: 0x10, minor: 010}
  mounts:
  additionalGIDs: [44]
`;
    const spec = readCdiSpec(yaml, 'yaml');
    const env = { ...spec.containerEdits, deviceNodes: [], additionalGids: [], env: ['ON=yes'] };
    assert.deepEqual(spec.devices, [
      { name: '0', containerEdits: env },
      { name: 'on', containerEdits: env },
    ]);
    assert.deepEqual(spec.containerEdits.deviceNodes, [{ path: '/dev/x', fileMode: 0o660, major: 16, minor: 8 }]);
    assert.deepEqual(spec.containerEdits.additionalGids, [44]);
  });

  const newer: readonly (readonly [string, object, RegExp])[] = [
    ['1.0.0', { containerEdits: { netDevices: [{ hostInterfaceName: 'a', name: 'b' }] } }, /netDevices\[0\]/],
    ['1.0.0', { containerEdits: { intelRdt: { enableMonitoring: true } } }, /intelRdt\.enableMonitoring/],
    ['1.0.0', { containerEdits: { intelRdt: { schemata: ['L3:0=f'] } } }, /intelRdt\.schemata/],
    ['0.6.0', { containerEdits: { intelRdt: { closID: 'x' } } }, /intelRdt: it needs cdiVersion 0\.7\.0/],
    ['0.6.0', { containerEdits: { additionalGids: [1] } }, /additionalGids/],
    ['0.5.0', { annotations: { a: 'b' } }, /annotations/],
    ['0.5.0', { devices: [{ ...device, annotations: { a: 'b' } }] }, /devices\[0\]\.annotations/],
    ['0.5.0', { kind: 'vendor.com/a.b' }, /kind: a dot in the class needs cdiVersion 0\.6\.0, not 0\.5\.0/],
    ['0.4.0', { devices: [{ ...device, name: '1a' }] }, /devices\[0\]\.name/],
    ['0.4.0', { containerEdits: { deviceNodes: [{ path: '/dev/x', hostPath: '/dev/y' }] } }, /hostPath/],
    ['0.3.0', { containerEdits: { mounts: [{ hostPath: '/a', containerPath: '/b', type: 'bind' }] } }, /type/],
  ];
  for (const [cdiVersion, changes, message] of newer)
    it(`of version ${cdiVersion} have no ${String(message).slice(1, -1)}`, () => {
      read(changes);
      refused(() => read({ ...changes, cdiVersion }), message);
    });

  const faults: readonly (readonly [object, RegExp])[] = [
    [{ cdiVersion: undefined }, /cdiVersion: is missing/],
    [{ cdiVersion: '1.2.0' }, /cdiVersion: "1\.2\.0" is none of/],
    [{ cdiVersion: '0.2.0' }, /cdiVersion/],
    [{ kind: 'thing' }, /kind: "thing" is not vendor\/class/],
    [{ kind: 'vendor.com/a/b' }, /kind/],
    [{ kind: '1vendor.com/a' }, /kind/],
    [{ kind: 'vendor.com/a-' }, /kind/],
    [{ kind: `vendor.com/${'a'.repeat(64)}` }, /class is longer/],
    [{ kind: `${'a'.repeat(254)}/b` }, /vendor is longer/],
    [{ devices: [] }, /devices: there is none/],
    [{ devices: [device, device] }, /devices: "one" is there twice/],
    [{ devices: [{ ...device, name: 'a/b' }] }, /devices\[0\]\.name: "a\/b"/],
    [{ devices: {} }, /devices: is no list/],
    [{ extra: 1 }, /^extra: is no field/],
    [{ devices: [{ ...device, more: 1 }] }, /^devices\[0\]\.more: is no field/],
    [{ annotations: { a: 1 } }, /annotations\.a: is no string/],
    [{ containerEdits: [] }, /containerEdits: is no object/],
    [{ containerEdits: { env: ['=x'] } }, /containerEdits\.env\[0\]: "=x" is not NAME=value/],
    [{ containerEdits: { env: [1] } }, /env\[0\]: is no string/],
    [{ containerEdits: { deviceNodes: [{ path: 'dev/x' }] } }, /deviceNodes\[0\]\.path: "dev\/x" is not an absolute/],
    [{ containerEdits: { deviceNodes: [{ path: '/dev/x', type: 'block' }] } }, /type: "block"/],
    [{ containerEdits: { deviceNodes: [{ path: '/dev/x', permissions: 'x' }] } }, /permissions: "x"/],
    [{ containerEdits: { deviceNodes: [{ path: '/dev/x', major: -1 }] } }, /major: is no integer/],
    [{ containerEdits: { hooks: [{ hookName: 'never', path: '/h' }] } }, /hooks\[0\]\.hookName: "never"/],
    [{ containerEdits: { hooks: [{ hookName: 'poststop', path: 'h' }] } }, /hooks\[0\]\.path/],
    [{ containerEdits: { mounts: [{ containerPath: '/b' }] } }, /mounts\[0\]\.hostPath: is missing/],
    [{ containerEdits: { intelRdt: { closID: '..' } } }, /intelRdt\.closID/],
    [{ containerEdits: { additionalGids: ['x'] } }, /additionalGids\[0\]: is no integer/],
  ];
  for (const [changes, message] of faults)
    it(`are none with ${JSON.stringify(changes).slice(0, 70)}`, () => refused(() => read(changes), message));

  it('that are no JSON or YAML say why, and cannot swell', () => {
    refused(() => readCdiSpec('{', 'json'), /^JSON: /);
    refused(() => readCdiSpec('a: [', 'yaml'), /^YAML: /);
    refused(() => readCdiSpec('a: 1\na: 2\n', 'yaml'), /^YAML: Map keys must be unique/);
    const lines = Array.from(
      { length: 12 },
      (_, n) => `a${n}: &a${n} [${Array(9).fill(n === 0 ? 'x' : `*a${n - 1}`)}]`,
    );
    refused(() => readCdiSpec(lines.join('\n'), 'yaml'), /^YAML: Excessive alias count/);
    refused(() => readCdiSpec('', 'yaml'), /spec: is no object/);
  });
});
