import assert from 'node:assert/strict';
import { admitDefaultSysctls, admitSysctls, sysctlPath } from './sysctls.js';

const all = ['net', 'uts', 'ipc'] as const;

describe('spec/sysctls', () => {
  it('admit only what lives in a namespace the pod owns', () => {
    assert.deepEqual(admitSysctls({ 'kernel.shm_rmid_forced': '1', 'net/ipv4/ip_forward': '1' }, all), [
      ['kernel.shm_rmid_forced', '1'],
      ['net.ipv4.ip_forward', '1'],
    ]);
    assert.throws(() => admitSysctls({ 'net.core.somaxconn': '1' }, ['uts', 'ipc']), /needs a net namespace/);
    assert.throws(() => admitSysctls({ 'kernel.core_pattern': '|x' }, all), /not a sysctl of any namespace/);
    assert.throws(() => admitSysctls({ 'net.ipv4.x': '1\nkernel.core_pattern=|x' }, all), /line break/);
    assert.throws(() => admitSysctls({ 'net.../../kernel/core_pattern': 'x' }, all), /no sysctl name/);
  });

  it('of the configuration apply where the pod has the namespace, and only to namespaces', () => {
    const defaults = { 'net.core.somaxconn': '1', 'kernel/msgmax': '2' };
    assert.deepEqual(admitDefaultSysctls(defaults, ['ipc']), [['kernel.msgmax', '2']]);
    assert.equal(admitDefaultSysctls(defaults, all).length, 2);
    assert.throws(
      () => admitDefaultSysctls({ 'kernel.core_pattern': '|x' }, all),
      /^.*runtime\.defaultSysctls\["kernel/,
    );
  });

  it('become paths, dots inside names included', () => {
    assert.equal(sysctlPath('net.ipv4.conf.eth0/1.forwarding'), 'net/ipv4/conf/eth0.1/forwarding');
  });
});
