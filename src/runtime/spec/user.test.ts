import assert from 'node:assert/strict';
import { resolveUser, type UserRequest } from './user.js';

const database = {
  passwd:
    'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\napp:x:1000:1001:,,,:/home/app:/bin/sh\n',
  group: 'root:x:0:\nwheel:x:10:root,app\nbig:x:50000:app\nbroken\n',
};
const request = (changes: Partial<UserRequest>): UserRequest => ({
  imageUser: '',
  supplementalGroups: [],
  policy: 'merge',
  ...changes,
});

describe('spec/user', () => {
  const accepted: [string, Partial<UserRequest>, { uid: number; gid: number; groups: number[]; home: string }][] = [
    ['nothing given is root', {}, { uid: 0, gid: 0, groups: [0, 10], home: '/root' }],
    ['uid above 1023', { imageUser: '2048' }, { uid: 2048, gid: 0, groups: [0], home: '/' }],
    ['leading zero is decimal', { imageUser: '010' }, { uid: 10, gid: 0, groups: [0], home: '/' }],
    ['uid:gid', { imageUser: '1003:1004' }, { uid: 1003, gid: 1004, groups: [1004], home: '/' }],
    ['name', { imageUser: 'www-data' }, { uid: 33, gid: 33, groups: [33], home: '/var/www' }],
    ['name:gid', { imageUser: 'www-data:7' }, { uid: 33, gid: 7, groups: [7], home: '/var/www' }],
    ['name:group', { imageUser: 'app:wheel' }, { uid: 1000, gid: 10, groups: [10, 50000], home: '/home/app' }],
    [
      'merge',
      { runAsUser: 1000, supplementalGroups: [5] },
      { uid: 1000, gid: 1001, groups: [1001, 10, 50000, 5], home: '/home/app' },
    ],
    [
      'strict',
      { runAsUser: 1000, supplementalGroups: [5], policy: 'strict' },
      { uid: 1000, gid: 1001, groups: [1001, 5], home: '/home/app' },
    ],
    [
      'group wins',
      { runAsUser: 1000, runAsGroup: 9 },
      { uid: 1000, gid: 9, groups: [9, 10, 50000], home: '/home/app' },
    ],
    [
      'username',
      { runAsUsername: 'app', imageUser: '7' },
      { uid: 1000, gid: 1001, groups: [1001, 10, 50000], home: '/home/app' },
    ],
  ];
  for (const [name, changes, expected] of accepted) {
    it(name, () => assert.deepEqual(resolveUser(request(changes), database), expected));
  }

  const refused: [string, Partial<UserRequest>, RegExp][] = [
    ['hexadecimal', { imageUser: '0x10' }, /not a decimal id/],
    ['negative', { imageUser: '-1' }, /not a decimal id/],
    ['above 2^31-1', { imageUser: '4294967296' }, /above 2147483647/],
    ['far above', { imageUser: '99999999999999999999' }, /not a decimal id/],
    ['unknown name', { imageUser: 'nobody' }, /image USER: user "nobody" is not in/],
    ['unknown username', { runAsUsername: 'nobody' }, /run_as_username: user "nobody"/],
    ['unknown group', { imageUser: 'app:none' }, /group "none" is not in/],
  ];
  for (const [name, changes, pattern] of refused) {
    it(`refuses ${name}`, () => assert.throws(() => resolveUser(request(changes), database), pattern));
  }
});
