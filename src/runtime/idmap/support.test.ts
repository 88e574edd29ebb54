import assert from 'node:assert/strict';
import type { KernelFacts } from '../../native/kernel-facts.js';
import { chooseWay, mountOf, probeUserNamespaces, requireUserNamespaces } from './support.js';

const mountinfo = [
  '1 0 254:0 / / rw,relatime - ext4 /dev/vda rw',
  '2 1 0:5 / /srv rw - nfs4 server:/x rw',
  '3 2 0:6 / /srv/deep\\040dir rw shared:7 master:1 - fuse.sshfs x rw',
  '4 1 0:7 / /srv rw - xfs /dev/vdb rw',
  '',
].join('\n');

describe('user namespace support', () => {
  it('finds the mount a path lies on: the longest, and of those the last', () => {
    assert.deepEqual(mountOf('/etc', mountinfo), { fstype: 'ext4', point: '/' });
    assert.deepEqual(mountOf('/srvother', mountinfo), { fstype: 'ext4', point: '/' });
    assert.deepEqual(mountOf('/srv/data', mountinfo), { fstype: 'xfs', point: '/srv' });
    assert.deepEqual(mountOf('/srv/deep dir/x', mountinfo), { fstype: 'fuse.sshfs', point: '/srv/deep dir' });
  });

  it('says why there are none, and refuses pods with that', () => {
    const support = probeUserNamespaces({
      native: { mounts: undefined as never, files: undefined as never },
      kernel: { release: '4.19.0' } as KernelFacts,
      openUserNamespace: () => {
        throw new Error('EPERM');
      },
      layers: ['/a', '/b'],
      volumes: ['/'],
      way: 'auto',
    });
    assert.equal(support.supported, false);
    assert.equal(support.refusal('/', false), 'user namespaces cannot be made: EPERM');
    assert.throws(() => requireUserNamespaces(support), /user namespace: user namespaces cannot be made: EPERM/);
  });

  it('takes the first way that works, or the configured one, or says why that cannot be', () => {
    const works = (): undefined => undefined;
    const all = { idmapped: works, metacopy: works, copy: works };
    const none = { idmapped: () => 'ext2', metacopy: () => 'no attributes', copy: works };
    assert.deepEqual(chooseWay('auto', all), { way: 'idmapped', wayReason: '' });
    assert.deepEqual(chooseWay('auto', { ...none, metacopy: works }), { way: 'metacopy', wayReason: 'ext2' });
    assert.deepEqual(chooseWay('auto', none), { way: 'copy', wayReason: 'ext2; no attributes' });
    assert.deepEqual(chooseWay('copy', all), { way: 'copy', wayReason: 'userns.snapshots says so' });
    assert.throws(() => chooseWay('metacopy', none), /userns\.snapshots: metacopy is not possible here: no attributes/);
  });
});
