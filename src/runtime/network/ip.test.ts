import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { addressAt, contains, formatIp, formatPrefix, maskOf, overlap, parseIp, parsePrefix, prefixOf } from './ip.js';

const invalid = (message: RegExp) => (error: unknown) => {
  assert.ok(isKind(error, 'invalid-argument'), String(error));
  assert.match(error.message, message);
  return true;
};

describe('IP addresses', () => {
  it('reads and writes both families', () => {
    for (const text of [
      '0.0.0.0',
      '10.199.0.2',
      '255.255.255.255',
      '::',
      '::1',
      'fd00:b::2',
      '2001:db8:0:1:1:1:1:1',
      '1::',
    ]) {
      assert.equal(formatIp(parseIp(text) ?? new Uint8Array()), text);
    }
    assert.equal(formatIp(parseIp('2001:DB8:0:0:1:0:0:0') ?? new Uint8Array()), '2001:db8:0:0:1::');
    assert.equal(formatIp(parseIp('::ffff:1.2.3.4') ?? new Uint8Array()), '::ffff:102:304');
  });

  it('refuses what is no address', () => {
    for (const text of [
      '',
      '1.2.3',
      '1.2.3.256',
      '01.2.3.4',
      '1.2.3.4.5',
      ':',
      ':::',
      '1:2',
      '::1::',
      '1:2:3:4:5:6:7:8:9',
      'g::',
      '1:2:3:4:5:6:7::8',
      'fe80::1%eth0',
      '::1.2.3',
    ]) {
      assert.equal(parseIp(text), undefined, text);
    }
  });

  it('computes with prefixes', () => {
    const subnet = parsePrefix('10.199.0.0/16', 'subnet');
    const six = parsePrefix('fd00:b::/64', 'subnet');
    assert.equal(formatIp(addressAt(subnet, 258)), '10.199.1.2');
    assert.equal(formatIp(addressAt(six, 65_536)), 'fd00:b::1:0');
    assert.equal(formatIp(maskOf(subnet)), '255.255.0.0');
    assert.equal(formatIp(maskOf(six)), 'ffff:ffff:ffff:ffff::');
    assert.equal(contains(subnet, Uint8Array.of(10, 200, 0, 0)), false);
    assert.equal(contains(six, parseIp('fd00:b::ffff:1') ?? new Uint8Array()), true);
    assert.equal(formatPrefix(prefixOf(Uint8Array.of(10, 199, 7, 9), 20)), '10.199.0.0/20');
    assert.equal(overlap(subnet, parsePrefix('10.0.0.0/8', 'subnet')), true);
    assert.equal(overlap(subnet, parsePrefix('10.198.0.0/16', 'subnet')), false);
    assert.equal(overlap(subnet, six), false);
  });

  it('refuses prefixes with host bits or without sense', () => {
    assert.throws(() => parsePrefix('10.199.0.1/16', 'network.subnets'), invalid(/^network\.subnets: .* host bits/));
    for (const text of ['10.0.0.0', '10.0.0.0/33', 'x/8', '::/129'])
      assert.throws(() => parsePrefix(text, 's'), invalid(/^s: /));
  });
});
