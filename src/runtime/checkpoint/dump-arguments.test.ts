import assert from 'node:assert/strict';
import { parseMountTable } from '../../kit/mount-table.js';
import { dumpArguments, type DumpFacts } from './dump-arguments.js';

const mounts = parseMountTable(
  [
    '50 1 0:45 / / rw - overlay none rw',
    '51 50 0:46 / /proc rw - proc proc rw',
    '52 50 0:47 / /dev rw - tmpfs tmpfs rw',
    '53 52 0:48 / /dev/pts rw - devpts devpts rw',
    '54 52 0:48 /0 /dev/console rw - devpts devpts rw',
    '55 50 8:1 /volumes/data /data rw - ext4 /dev/sda1 rw',
    '56 50 0:30 / /secret ro - tmpfs tmpfs rw',
    '57 50 0:60 / /image ro - overlay none ro',
    '58 50 0:61 /c /sys/fs/cgroup ro - cgroup2 cgroup rw',
    '59 51 0:21 / /proc/host rw - proc proc rw',
    '60 50 0:70 / /tmp rw - tmpfs tmpfs rw',
  ].join('\n'),
);
const facts: DumpFacts = {
  pid: 42,
  freezerDir: '/sys/fs/cgroup/pod/c',
  sharedNamespaces: {},
  mounts,
  outsideDevices: new Set(['8:1', '0:30', '0:21']),
  outsideFiles: [],
};
const external = (changes: Partial<DumpFacts>): string[] => {
  const args = dumpArguments({ ...facts, ...changes });
  return args.filter((_, index) => args[index - 1] === '--external');
};

describe('arguments of a dump', () => {
  it('name as external what is mounted from outside, parts of something, and nothing else', () => {
    const points = ['/dev/console', '/data', '/secret', '/image', '/sys/fs/cgroup'];
    assert.deepEqual(
      external({}),
      points.map((point) => `mnt[${point}]:${point}`),
    );
  });

  it('name namespaces, files and a terminal by the kernel’s numbers', () => {
    const found = external({
      mounts: [],
      sharedNamespaces: { net: 4026531840, pid: 4026531836 },
      outsideFiles: [{ mountId: 187, inode: 4 }],
      terminal: { rdev: 0x8800, dev: 0x59 },
    });
    assert.deepEqual(found, [
      'net[4026531840]:extRootNetNS',
      'pid[4026531836]:extRootPidNS',
      'file[bb:4]',
      'tty[8800:59]',
    ]);
  });

  it('let the container run on and leave its cgroups alone', () => {
    const args = dumpArguments(facts);
    for (const wanted of ['--leave-running', '--manage-cgroups=ignore']) assert.ok(args.includes(wanted));
    assert.equal(args[args.indexOf('--freeze-cgroup') + 1], facts.freezerDir);
  });
});
