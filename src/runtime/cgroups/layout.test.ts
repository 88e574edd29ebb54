import assert from 'node:assert/strict';
import { detectLayout, lineage, normalizePath, v1Hierarchies } from './layout.js';

const procCgroups = `#subsys_name\thierarchy\tnum_cgroups\tenabled
cpuset\t3\t1\t1
cpu\t1\t1\t1
cpuacct\t1\t1\t1
memory\t4\t13\t1
freezer\t6\t1\t1
`;
const tmpfs = '31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755';
const v2 = '41 31 0:38 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate';
const unified = '41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw';
const cpu = '32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct';
const memory = '35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory';
const systemd = '40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd';

const detect = (...lines: string[]): ReturnType<typeof detectLayout> =>
  detectLayout(`${lines.join('\n')}\n`, procCgroups, '/sys/fs/cgroup');

describe('cgroup layout', () => {
  it('knows a v2 host', () => {
    assert.deepEqual(detect(v2), { version: 'v2', v2Root: '/sys/fs/cgroup', v1Roots: new Map() });
  });

  it('knows a v1 host, with controllers that share a mount', () => {
    const layout = detect(tmpfs, cpu, memory, systemd);
    assert.equal(layout.version, 'v1');
    assert.equal(layout.v2Root, undefined);
    assert.equal(layout.v1Roots.get('cpuacct'), '/sys/fs/cgroup/cpu,cpuacct');
    assert.equal(layout.v1Roots.get('name=systemd'), '/sys/fs/cgroup/systemd');
    assert.deepEqual(v1Hierarchies(layout).length, 3);
  });

  it('knows a hybrid host', () => {
    const layout = detect(tmpfs, memory, unified);
    assert.equal(layout.version, 'hybrid');
    assert.equal(layout.v2Root, '/sys/fs/cgroup/unified');
  });

  it('takes a v2 host with a named v1 hierarchy for v2', () => {
    assert.equal(detect(tmpfs, systemd, unified).version, 'v2');
  });

  it('looks only below the given root, and takes the first of two mounts', () => {
    const elsewhere = memory.replaceAll('/sys/fs/cgroup', '/sys/fs/cgroups');
    assert.throws(() => detect(elsewhere), /no cgroup hierarchy is mounted/);
    const twice = detect(memory, memory.replace('/sys/fs/cgroup/memory', '/sys/fs/cgroup/again'));
    assert.equal(twice.v1Roots.get('memory'), '/sys/fs/cgroup/memory');
  });

  it('reads escaped mount points', () => {
    assert.equal(detect(unified.replace('unified', 'a\\040b')).v2Root, '/sys/fs/cgroup/a b');
  });
});

describe('cgroup paths', () => {
  it('have one normal form', () => {
    assert.equal(normalizePath('//kubepods///pod1/'), '/kubepods/pod1');
    assert.equal(normalizePath('/a..b/...'), '/a..b/...');
  });

  it('list their ancestors', () => assert.deepEqual(lineage('/a/b/c'), ['/a', '/a/b', '/a/b/c']));
});
