import assert from 'node:assert/strict';
import { isInUserNamespace, parseIdMap, parseIdMaps } from './mapping.js';

const whole = '         0          0 4294967295\n';
const subordinate = '         1     100000      65536\n         0       1000          1\n';

describe('maps of our own process', () => {
  it('are read by id, whatever order the kernel lists them in', () => {
    assert.deepEqual(parseIdMap(subordinate), [
      { containerId: 0, hostId: 1000, size: 1 },
      { containerId: 1, hostId: 100000, size: 65536 },
    ]);
  });

  it('are none before they were written', () => {
    assert.deepEqual(parseIdMap(''), []);
    assert.ok(isInUserNamespace(parseIdMaps('', '')));
  });

  it('are each read from their own text', () => {
    const maps = parseIdMaps('0 1000 1\n', '0 5 1\n1 300000 10\n');
    assert.deepEqual(maps.uids, [{ containerId: 0, hostId: 1000, size: 1 }]);
    assert.deepEqual(maps.gids, [
      { containerId: 0, hostId: 5, size: 1 },
      { containerId: 1, hostId: 300000, size: 10 },
    ]);
  });

  it('say where we are: only both whole identities are the first user namespace', () => {
    assert.ok(!isInUserNamespace(parseIdMaps(whole, whole)));
    assert.ok(isInUserNamespace(parseIdMaps(subordinate, subordinate)));
    assert.ok(isInUserNamespace(parseIdMaps(whole, subordinate)));
    assert.ok(isInUserNamespace(parseIdMaps(subordinate, whole)));
    assert.ok(isInUserNamespace(parseIdMaps('0 0 65536\n', whole)));
    assert.ok(isInUserNamespace(parseIdMaps('0 0 2147483648\n2147483648 2147483648 2147483647\n', whole)));
  });
});
