import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { mapArguments, rootlessMaps } from './subordinate-ids.js';

const account = { name: 'anna', uid: 1000, gid: 1001 };

describe('ids of a rootless agent', () => {
  it('are the user as root, then the subordinate ones, each kind from its own file', () => {
    const maps = rootlessMaps(account, 'bob:1:2\nanna:100000:65536\nanna:300000:10\n', '1000:500000:100\n');
    assert.deepEqual(maps.uids, [
      { containerId: 0, hostId: 1000, size: 1 },
      { containerId: 1, hostId: 100000, size: 65536 },
      { containerId: 65537, hostId: 300000, size: 10 },
    ]);
    assert.deepEqual(maps.gids, [
      { containerId: 0, hostId: 1001, size: 1 },
      { containerId: 1, hostId: 500000, size: 100 },
    ]);
    assert.deepEqual(mapArguments(77, maps.gids), ['77', '0', '1001', '1', '1', '500000', '100']);
  });

  it('are refused with the file and the command when there are none', () => {
    const refused = (subuid: string, subgid: string, message: RegExp): void =>
      assert.throws(
        () => rootlessMaps(account, subuid, subgid),
        (error) => isKind(error, 'denied') && message.test((error as Error).message),
      );
    refused('', 'anna:1:1', /\/etc\/subuid .*"anna".* usermod --add-subuids 100000-165535 anna/);
    refused('anna:5:5', 'bob:1:1', /\/etc\/subgid .*"anna".* usermod --add-subgids/);
  });
});
