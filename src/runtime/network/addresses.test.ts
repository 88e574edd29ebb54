import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { createAddressPool } from './addresses.js';
import { formatIp, parseIp, parsePrefix } from './ip.js';

const invalid = (message: RegExp) => (error: unknown) => {
  assert.ok(isKind(error, 'invalid-argument'), String(error));
  assert.match(error.message, message);
  return true;
};

describe('address pool', () => {
  const pool = (subnet: string) => createAddressPool(parsePrefix(subnet, 'subnet'), 'subnet');

  it('goes round the subnet and never gives an address twice', () => {
    const small = pool('10.0.0.0/29');
    const all = Array.from({ length: 5 }, () => formatIp(small.allocate()));
    assert.deepEqual(all, ['10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6']);
    assert.throws(() => small.allocate(), /all 5 addresses of 10\.0\.0\.0\/29 are in use/);
    small.free(Uint8Array.of(10, 0, 0, 4));
    assert.equal(formatIp(small.allocate()), '10.0.0.4');
  });

  it('lets a freed address rest', () => {
    const small = pool('10.0.0.0/29');
    const first = small.allocate();
    small.free(first);
    assert.equal(formatIp(small.allocate()), '10.0.0.3');
  });

  it('goes on behind what is reserved, and refuses what it cannot hold', () => {
    const six = pool('fd00:b::/64');
    assert.equal(six.reserve(parseIp('fd00:b::9') ?? new Uint8Array()), true);
    assert.equal(six.reserve(parseIp('fd00:b::9') ?? new Uint8Array()), false);
    assert.equal(six.reserve(parseIp('fd00:c::9') ?? new Uint8Array()), false);
    assert.equal(six.reserve(six.gateway), false);
    assert.equal(formatIp(six.allocate()), 'fd00:b::a');
    assert.throws(() => pool('10.0.0.0/31'), invalid(/no room/));
  });
});
