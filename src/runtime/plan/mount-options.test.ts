import assert from 'node:assert/strict';
import { RuntimeError } from '../../kit/errors.js';
import { MOUNT_ATTR, MS } from './kernel.js';
import { parseMountOptions } from './mount-options.js';

const parse = (...options: readonly string[]) => parseMountOptions(options, 'mounts[0].options');

describe('mount options', () => {
  it('become attributes, the last one winning', () => {
    const { set, clear } = parse('ro', 'nosuid', 'nodev', 'suid', 'noexec', 'exec', 'nosymfollow');
    assert.equal(set, MOUNT_ATTR.RDONLY | MOUNT_ATTR.NODEV | MOUNT_ATTR.NOSYMFOLLOW);
    assert.equal(clear, MOUNT_ATTR.NOSUID | MOUNT_ATTR.NOEXEC);
  });

  it('treat access time as one field', () => {
    assert.deepEqual(pick(parse('noatime')), { set: MOUNT_ATTR.NOATIME, clear: MOUNT_ATTR.ATIME_MASK });
    assert.deepEqual(pick(parse('noatime', 'strictatime')), {
      set: MOUNT_ATTR.STRICTATIME,
      clear: MOUNT_ATTR.ATIME_MASK,
    });
    assert.deepEqual(pick(parse('strictatime', 'relatime')), { set: 0, clear: MOUNT_ATTR.ATIME_MASK });
  });

  it('keep recursive ones apart', () => {
    const options = parse('rro', 'rnosuid', 'rrw', 'nodev');
    assert.equal(options.recursiveSet, MOUNT_ATTR.NOSUID);
    assert.equal(options.recursiveClear, MOUNT_ATTR.RDONLY);
    assert.equal(options.set, MOUNT_ATTR.NODEV);
  });

  it('name propagation', () => {
    assert.deepEqual(
      [parse('rslave'), parse('shared'), parse()].map((o) => [o.propagation, o.recursivePropagation]),
      [
        [MS.SLAVE, true],
        [MS.SHARED, false],
        [0, false],
      ],
    );
  });

  it('leave the rest to the file system, values with = included', () => {
    const { data } = parse(
      'size=64m',
      'newinstance',
      'context=a=b',
      'rw',
      'defaults',
      'x-systemd.automount',
      'lazytime',
      'acl',
    );
    assert.deepEqual(data, [
      { key: 'size', value: '64m' },
      { key: 'newinstance' },
      { key: 'context', value: 'a=b' },
      { key: 'lazytime' },
      { key: 'acl' },
    ]);
  });

  it('refuse a remount and zero bytes, by their place', () => {
    const refused = (options: string[], message: RegExp) =>
      assert.throws(
        () => parse(...options),
        (e) => e instanceof RuntimeError && e.kind === 'invalid-argument' && message.test(e.message),
      );
    refused(['ro', 'remount'], /^mounts\[0\]\.options\[1\]: a remount/);
    refused(['size=1\0'], /^mounts\[0\]\.options\[0\]: holds a zero byte/);
  });
});

const pick = ({ set, clear }: { set: number; clear: number }): { set: number; clear: number } => ({ set, clear });
