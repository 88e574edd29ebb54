import assert from 'node:assert/strict';
import { findDelegation } from './delegation.js';

const v2 = '31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n';
const v1 = '32 31 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n';
const procCgroups = '#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t1\n';
const session = '/user.slice/user-1000.slice/user@1000.service/app.slice/berth.service';

const find = (ownCgroup: string, mine: string, mountinfo = v2) =>
  findDelegation({
    mountinfo,
    procCgroups,
    ownCgroup,
    writable: (path) => mine !== '' && path.startsWith(`/sys/fs/cgroup${mine}/`),
  });

describe('a delegated part of cgroup v2', () => {
  it('is the highest that is ours above our own', () => {
    const root = '/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service';
    assert.deepEqual(find(`0::${session}\n`, '/user.slice/user-1000.slice/user@1000.service'), {
      root,
      holdsUs: false,
    });
  });

  it('may hold our own process', () => {
    assert.deepEqual(find('0::/mine\n', '/mine'), { root: '/sys/fs/cgroup/mine', holdsUs: true });
  });

  it('may be all of it, in a cgroup namespace', () => {
    const all = { mountinfo: v2, procCgroups, ownCgroup: '0::/\n', writable: () => true };
    assert.deepEqual(findDelegation(all), { root: '/sys/fs/cgroup', holdsUs: true });
  });

  it('is none where our own cgroup is somebody else’s, whatever else we may write to', () => {
    assert.equal(find('0::/user.slice/session-1.scope\n', '/other'), undefined);
    assert.equal(find('0::/user.slice/session-1.scope\n', ''), undefined);
  });

  it('is none on cgroup v1 and on hybrid hosts', () => {
    assert.equal(find('5:memory:/mine\n0::/mine\n', '/mine', v1), undefined);
    assert.equal(find('5:memory:/mine\n0::/mine\n', '/mine', v2 + v1), undefined);
    assert.equal(find('', '/mine', ''), undefined);
  });
});
