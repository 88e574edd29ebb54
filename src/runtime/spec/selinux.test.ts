import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import type { SelinuxOption } from '../model.js';
import type { OciSpec } from './oci.js';
import { freeLevel, labelledSpec, policyLabels, policyType, relabelRefusal, selinuxLabels } from './selinux.js';

const node = policyLabels('');
const none: SelinuxOption = { user: '', role: '', type: '', level: '' };
const labels = (options?: Partial<SelinuxOption>, level = 's0:c1,c2') =>
  Object.values(selinuxLabels(node, options && { ...none, ...options }, level, 'f'));

describe('SELinux labels', () => {
  it('are those of the node’s policy', () => {
    const text =
      '# x\nprocess = "system_u:system_r:svirt_t:s0"\n  file="system_u:object_r:svirt_file_t:s0"\nro_file = "a:b:c:s0"\n';
    assert.deepEqual(policyLabels(text), {
      process: 'system_u:system_r:svirt_t:s0',
      mount: 'system_u:object_r:svirt_file_t:s0',
    });
    assert.equal(policyLabels('file = x').process, 'system_u:system_r:container_t:s0');
    assert.equal(policyType('SELINUX=enforcing\n#SELINUXTYPE=mls\nSELINUXTYPE=targeted\n'), 'targeted');
    assert.equal(policyType(''), undefined);
  });

  const cases: readonly (readonly [Partial<SelinuxOption> | undefined, string, string])[] = [
    [undefined, 'system_u:system_r:container_t:s0:c1,c2', 'system_u:object_r:container_file_t:s0:c1,c2'],
    [{ type: 'spc_t' }, 'system_u:system_r:spc_t:s0:c1,c2', 'system_u:object_r:container_file_t:s0:c1,c2'],
    [{ level: 's0:c7' }, 'system_u:system_r:container_t:s0:c7', 'system_u:object_r:container_file_t:s0:c7'],
    [
      { user: 'u_u', role: 'r_r', level: 's0-s0:c0.c1023' },
      'u_u:r_r:container_t:s0-s0:c0.c1023',
      'u_u:object_r:container_file_t:s0-s0:c0.c1023',
    ],
  ];
  for (const [options, process, mount] of cases)
    it(`of ${JSON.stringify(options)} are ${process}`, () => assert.deepEqual(labels(options), [process, mount]));

  it('are at the policy’s own level for pods without one, and at none where it has none', () => {
    assert.deepEqual(labels({ type: 't' }, ''), ['system_u:system_r:t:s0', 'system_u:object_r:container_file_t:s0']);
    const flat = { process: 'u:r:t', mount: 'u:r:f' };
    assert.deepEqual(selinuxLabels(flat, undefined, 's0:c1,c2', 'f'), flat);
  });

  for (const wrong of [{ user: 'a:b' }, { role: 'r r' }, { type: 't,x' }, { level: 'high' }, { level: 's0:c1,' }])
    it(`have no ${JSON.stringify(wrong)}`, () => {
      const [part] = Object.keys(wrong);
      assert.throws(
        () => labels(wrong),
        (error) => isKind(error, 'invalid-argument') && error.message.startsWith(`f.${part}: `),
      );
    });

  it('are in a spec; a privileged container’s processes have none', () => {
    const spec: OciSpec = {
      ociVersion: '1.2.0',
      process: { user: { uid: 0, gid: 0 }, args: [], env: [], cwd: '/' },
      linux: { namespaces: [] },
    };
    const [process, mount] = ['p:p:p', 'm:m:m'];
    const shown = ({ process: its, linux }: OciSpec) => [its?.selinuxLabel, linux.mountLabel];
    assert.deepEqual(shown(labelledSpec(spec, { process, mount }, false)), [process, mount]);
    assert.deepEqual(shown(labelledSpec(spec, { process, mount }, true)), [undefined, mount]);
  });
});

describe('MCS levels', () => {
  it('are pairs of categories that nobody has', () => {
    assert.equal(freeLevel([], 0), 's0:c0,c1');
    assert.equal(freeLevel([], 1022), 's0:c0,c1023');
    assert.equal(freeLevel([], 1023), 's0:c1,c2');
    assert.equal(freeLevel([], 523_775), 's0:c1022,c1023');
    assert.equal(freeLevel(['s0:c1022,c1023'], 523_775), 's0:c0,c1');
    assert.equal(freeLevel(['', 's0', 's0:c1,c0', 's0:c0,c2'], 523_776), 's0:c0,c3');
  });

  it('are different for as many pods as there are', () => {
    const taken: string[] = [];
    for (let pod = 0; pod < 600; pod++) taken.push(freeLevel(taken, pod * 0x9e3779b1));
    assert.equal(new Set(taken).size, 600);
  });
});

describe('paths that keep their labels', () => {
  const kept = [
    '/',
    '/etc',
    '/home/',
    '/usr',
    '/usr/share/x',
    '/var',
    '/var/lib',
    '/proc/1',
    '/dev/shm',
    '/lib64/x',
    '/tmp',
  ];
  for (const path of kept) it(`have ${path}`, () => assert.match(relabelRefusal(path) ?? '', /never relabelled/));
  const free = [
    '/var/lib/kubelet/pods/1/volumes/x',
    '/home/me/data',
    '/data',
    '/etc/kubernetes/x',
    '/tmp/x',
    '/library',
    '/run/x',
  ];
  for (const path of free) it(`do not have ${path}`, () => assert.equal(relabelRefusal(path), undefined));
});
