import assert from 'node:assert/strict';
import { mountAt, mountsBelow, parseMountTable } from './mount-table.js';

const text = [
  '22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw',
  '23 22 0:21 / /proc rw - proc proc rw',
  '24 22 0:30 / /srv rw shared:2 master:1 - tmpfs none rw',
  '25 22 0:31 / /srv rw master:7 propagate_from:1 - nfs4 server:/a\\040b rw',
  '26 25 0:32 / /srv/with\\040space rw - tmpfs none rw',
  '',
].join('\n');

describe('mount table', () => {
  const table = parseMountTable(text);

  it('reads points, file systems and propagation', () => {
    assert.deepEqual(table[0], {
      id: 22,
      point: '/',
      device: '8:1',
      root: '/',
      fstype: 'ext4',
      shared: true,
      slave: false,
    });
    assert.equal(table[2]?.shared && table[2].slave, true);
    assert.equal(table[3]?.shared, false);
    assert.deepEqual(table[4]?.point, '/srv/with space');
  });

  it('finds the mount of a path, the last of several', () => {
    assert.equal(mountAt(table, '/srv/x')?.fstype, 'nfs4');
    assert.equal(mountAt(table, '/srv')?.fstype, 'nfs4');
    assert.equal(mountAt(table, '/srvx')?.fstype, 'ext4');
    assert.equal(mountAt(table, '/')?.fstype, 'ext4');
    assert.equal(mountAt([], '/'), undefined);
  });

  it('finds what is mounted below', () => {
    assert.deepEqual(
      mountsBelow(table, '/srv').map(({ point }) => point),
      ['/srv/with space'],
    );
    assert.equal(mountsBelow(table, '/').length, 4);
  });
});
