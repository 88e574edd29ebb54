import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import type { IdMappings } from './mapping.js';
import { openRanges, parseRange, parseSubordinate } from './ranges.js';

const starts = ({ uids, gids }: IdMappings) => [uids[0]?.hostId, gids[0]?.hostId];

describe('id ranges', () => {
  it('give each pod ids no other has, and take back what is free again', () => {
    const ranges = openRanges({ ranges: ['100000:25', '200000:10'], user: 'berth', size: 10 });
    const given: IdMappings[] = [];
    for (const expected of [100000, 100010, 200000]) {
      const next = ranges.allocate(given);
      assert.deepEqual(starts(next), [expected, expected]);
      assert.deepEqual(next.uids, [{ containerId: 0, hostId: expected, size: 10 }]);
      given.push(next);
    }
    assert.throws(
      () => ranges.allocate(given),
      (error) => isKind(error, 'exhausted'),
    );
    given.splice(1, 1);
    assert.deepEqual(starts(ranges.allocate(given)), [100010, 100010]);
  });

  it('go around ids that others chose', () => {
    const ranges = openRanges({ ranges: ['100000:100'], user: 'berth', size: 10 });
    const line = (hostId: number, size: number) => [{ containerId: 0, hostId, size }];
    const taken = [{ uids: line(99995, 10), gids: line(5, 10) }];
    assert.deepEqual(starts(ranges.allocate(taken)), [100005, 100000]);
  });

  it('come from subuid and subgid, each from its own file', () => {
    const files: Record<string, string> = {
      '/etc/subuid': 'other:1:5\nberth:300000:65536\n',
      '/etc/subgid': '# no line\nberth:x:65536\nberth:400000:65536\n',
    };
    const ranges = openRanges({ ranges: [], user: 'berth', size: 65536, read: (path) => files[path] ?? '' });
    assert.deepEqual(starts(ranges.allocate([])), [300000, 400000]);
    const none = openRanges({ ranges: [], user: 'nobody', size: 65536, read: (path) => files[path] ?? '' });
    assert.throws(
      () => none.allocate([]),
      /no 65536 uids are left of userns\.ranges, or of user "nobody" in \/etc\/subuid/,
    );
  });

  it('never hold the host’s root, nothing, or more than there is', () => {
    for (const text of ['0:10', '5:0', '4294967290:10', 'x:1', '1:2:3', ''])
      assert.throws(() => parseRange(text), text);
    assert.deepEqual(parseSubordinate('berth:0:10\nberth:5:0\n', 'berth'), []);
  });
});
