import assert from 'node:assert/strict';
import { convertResult, podIps, podMac } from './cni-result.js';

describe('CNI results', () => {
  const result = {
    cniVersion: '1.0.0',
    interfaces: [
      { name: 'cni0', mac: '00:00:00:00:00:01' },
      { name: 'eth0', mac: '00:00:00:00:00:02', sandbox: '/run/netns/x' },
    ],
    ips: [
      { address: '10.1.0.1/24', interface: 0 },
      { address: '10.1.0.2/24', gateway: '10.1.0.1', interface: 1 },
      { address: 'fd00::2/64' },
    ],
    dns: {},
  };

  it('gives addresses and MAC of the interface of the pod', () => {
    assert.deepEqual(podIps(result, 'eth0'), ['10.1.0.2', 'fd00::2']);
    assert.equal(podMac(result, 'eth0'), '00:00:00:00:00:02');
    assert.deepEqual(podIps({ ips: 'none' }, 'eth0'), []);
  });

  it('adds and drops what versions differ in', () => {
    const old = convertResult(result, '0.3.1');
    assert.deepEqual(old['cniVersion'], '0.3.1');
    assert.deepEqual((old['ips'] as object[])[2], { version: '6', address: 'fd00::2/64' });
    assert.deepEqual(convertResult(old, '1.0.0'), result);
    assert.equal(convertResult(result, '1.0.0')['ips'], result.ips);
  });
});
