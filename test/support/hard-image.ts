import { release } from 'node:os';
import { CAP_NET_RAW, fileCapability } from './file-attributes.js';
import type { TarEntry } from './tar-builder.js';

/** An image with all that can go wrong when its files get other ids, and what a container must see of it. */

/** acl(5) `u::rw-,u:USER:r--,g::---,m::r--,o::---` as the attribute of linux/posix_acl_xattr.h. */
function accessList(user: number): Buffer {
  const entries = [
    [0x01, 6, -1],
    [0x02, 4, user],
    [0x04, 0, -1],
    [0x10, 4, -1],
    [0x20, 0, -1],
  ];
  const bytes = Buffer.alloc(4 + entries.length * 8);
  bytes.writeUInt32LE(2, 0);
  entries.forEach(([tag = 0, permissions = 0, id = 0], index) => {
    bytes.writeUInt16LE(tag, 4 + index * 8);
    bytes.writeUInt16LE(permissions, 6 + index * 8);
    bytes.writeInt32LE(id, 8 + index * 8);
  });
  return bytes;
}

/** One mebibyte of nothing and four bytes (GNU tar's sparse format 1.0). */
const sparse = (path: string): TarEntry => ({
  path,
  uid: 1,
  gid: 2,
  content: Buffer.concat([Buffer.from('1\n1048576\n4\n'.padEnd(512, '\0')), Buffer.from('tail')]),
  pax: {
    'GNU.sparse.major': '1',
    'GNU.sparse.minor': '0',
    'GNU.sparse.name': path,
    'GNU.sparse.realsize': '1048580',
  },
});

/** Two layers; `facts` is the program of test/support/facts.c. */
export function hardLayers(facts: Buffer): readonly (readonly TarEntry[])[] {
  const xattr = (name: string, value: Buffer | string) => ({ [`SCHILY.xattr.${name}`]: value });
  const lower: TarEntry[] = [
    { path: './', mode: 0o751, uid: 5, gid: 6 },
    { path: 'bin/facts', content: facts, mode: 0o755 },
    { path: 'bin/setuid', content: facts, mode: 0o4755, uid: 1234, gid: 0 },
    { path: 'bin/setgid', content: facts, mode: 0o2755, uid: 0, gid: 4321 },
    {
      path: 'bin/capable',
      content: facts,
      mode: 0o755,
      pax: xattr('security.capability', fileCapability(CAP_NET_RAW)),
    },
    { path: 'hard/' },
    { path: 'hard/owned', content: 'owned', mode: 0o640, uid: 1000, gid: 50000 },
    { path: 'hard/first', content: 'linked', uid: 7, gid: 8 },
    { path: 'hard/second', type: 'link', linkTo: 'hard/first' },
    { path: 'hard/both', content: 'both', mode: 0o6755, uid: 11, gid: 12 },
    { path: 'hard/sticky/', mode: 0o1777 },
    { path: 'hard/sticky/both', type: 'link', linkTo: 'hard/both' },
    { path: 'hard/symbolic', type: 'symlink', linkTo: '/hard/owned', uid: 9, gid: 10, mode: 0o777 },
    { path: 'hard/listed', content: 'for 1000', mode: 0o640, pax: xattr('system.posix_acl_access', accessList(1000)) },
    { path: 'hard/inheriting/', pax: xattr('system.posix_acl_default', accessList(2000)) },
    { path: 'hard/noted', content: 'x', pax: xattr('user.note', 'hi') },
    { path: 'hard/highest', content: 'x', uid: 65535, gid: 65535, mode: 0o600 },
    { path: 'hard/pipe', type: 'fifo', mode: 0o622, uid: 3, gid: 4 },
    { path: 'hard/disk', type: 'block', major: 254, minor: 0, mode: 0o666 },
    { path: 'hard/null', type: 'char', major: 1, minor: 3, mode: 0o666, uid: 2 },
    sparse('hard/sparse'),
    { path: 'mix/' },
    { path: 'mix/gone', content: 'x' },
    { path: 'mix/kept', content: 'kept', uid: 1, gid: 1 },
    { path: 'mix/linked', content: 'below', uid: 21, gid: 22 },
    { path: 'mix/opaque/', uid: 31, gid: 32 },
    { path: 'mix/opaque/old', content: 'x' },
    { path: 'mix/turned/' },
    { path: 'mix/turned/inside', content: 'x' },
    { path: 'mix/file', content: 'x' },
  ];
  const upper: TarEntry[] = [
    { path: 'mix/.wh.gone' },
    { path: 'mix/kept', content: 'anew', uid: 77, gid: 78, mode: 0o600 },
    { path: 'mix/link', type: 'link', linkTo: 'mix/linked' },
    { path: 'mix/opaque/', uid: 33, gid: 34, mode: 0o750 },
    { path: 'mix/opaque/.wh..wh..opq' },
    { path: 'mix/opaque/new', content: 'new', uid: 35 },
    { path: 'mix/.wh.turned' },
    { path: 'mix/turned', content: 'now a file', gid: 41 },
    { path: 'mix/file/', uid: 42 },
    { path: 'mix/file/inside', content: 'now a directory' },
  ];
  return [lower, upper];
}

/** What `facts stat` says of each path, inside, with or without a user namespace. Sizes of programs are left out. */
export const hardFacts: readonly string[] = [
  '/ 5:6 751',
  '/bin/setuid 1234:0 4755 links=1',
  '/bin/setgid 0:4321 2755 links=1',
  `/bin/capable 0:0 755 links=1 cap=${fileCapability(CAP_NET_RAW).toString('hex')}`,
  '/hard/owned 1000:50000 640 links=1 size=5',
  '/hard/first 7:8 644 links=2 size=6',
  '/hard/second 7:8 644 links=2 size=6',
  '/hard/both 11:12 6755 links=2 size=4',
  '/hard/sticky/both 11:12 6755 links=2 size=4',
  '/hard/symbolic 9:10 777 links=1 -> /hard/owned',
  `/hard/listed 0:0 640 links=1 size=8 acl=${accessList(1000).toString('hex')}`,
  `/hard/inheriting 0:0 755 default=${accessList(2000).toString('hex')}`,
  '/hard/noted 0:0 644 links=1 size=1 note=6869',
  '/hard/highest 65535:65535 600 links=1 size=1',
  '/hard/pipe 3:4 622 links=1',
  '/hard/disk 0:0 666 links=1 dev=254:0',
  '/hard/null 2:0 666 links=1 dev=1:3',
  '/hard/sparse 1:2 644 links=1 size=1048580 sparse',
  '/hard/sticky 0:0 1777',
  '/mix/kept 77:78 600 links=1 size=4',
  '/mix/linked 21:22 644 links=2 size=5',
  '/mix/link 21:22 644 links=2 size=5',
  '/mix/opaque 33:34 750',
  '/mix/opaque/new 35:0 644 links=1 size=3',
  '/mix/turned 0:41 644 links=1 size=10',
  '/mix/file 42:0 755',
  '/mix/gone ENOENT',
  '/mix/opaque/old ENOENT',
];

/** The command that says it. */
export const lookAtHard = `facts stat ${hardFacts.map((line) => line.split(' ')[0]).join(' ')} | sed '/^\\/bin/s/ size=[0-9]*//'`;

/**
 * What a kernel shows of it through idmapped layers: before Linux 6.2 an overlay over them obeys access lists and does
 * not show whom they name.
 */
export function asIdmapped(line: string): string {
  const [major = 0, minor = 0] = release()
    .split('.')
    .map((part) => Number.parseInt(part, 10));
  return major > 6 || (major === 6 && minor >= 2) ? line : line.replace(/(e8030000|d0070000)/, 'ffffffff');
}
