import assert from 'node:assert/strict';
import type { NamespaceOptions } from '../model.js';
import { admitSysctls, containerNamespaces, sandboxNamespaces, sysctlPath } from './namespaces.js';

const options = (changes: Partial<NamespaceOptions>): NamespaceOptions => ({
  network: 'pod',
  pid: 'container',
  ipc: 'pod',
  ...changes,
});

describe('spec/namespaces', () => {
  it('makes what the pod does not share with the host', () => {
    assert.deepEqual(sandboxNamespaces(options({})).own, ['net', 'uts', 'ipc']);
    assert.deepEqual(sandboxNamespaces(options({ pid: 'pod' })).own, ['net', 'uts', 'ipc', 'pid']);
    assert.deepEqual(sandboxNamespaces(options({ network: 'node', ipc: 'node', pid: 'node' })).own, []);
  });

  it('takes each namespace of a container from one place', () => {
    const facts = { cgroupNamespace: true };
    const target = containerNamespaces(options({}), options({ pid: 'target', targetId: 'c1' }), facts);
    assert.deepEqual(target.pid, { from: 'container', id: 'c1' });
    assert.deepEqual(target.net, { from: 'pod' });
    assert.deepEqual(containerNamespaces(options({}), options({ pid: 'node' }), facts).pid, { from: 'host' });
  });

  it('refuses a container that disagrees with its pod', () => {
    const facts = { cgroupNamespace: false };
    assert.throws(() => containerNamespaces(options({}), options({ network: 'node' }), facts), /\.network: is node/);
    assert.throws(() => containerNamespaces(options({}), options({ ipc: 'node' }), facts), /\.ipc: is node/);
    assert.throws(() => containerNamespaces(options({}), options({ pid: 'pod' }), facts), /made with container/);
    assert.throws(() => containerNamespaces(options({}), options({ pid: 'target' }), facts), /target_id/);
  });

  it('admits sysctls only of namespaces the pod owns', () => {
    assert.deepEqual(admitSysctls({ 'kernel.shm_rmid_forced': '1', 'net/ipv4/ip_forward': '1' }, options({})), [
      ['kernel.shm_rmid_forced', '1'],
      ['net.ipv4.ip_forward', '1'],
    ]);
    assert.throws(() => admitSysctls({ 'net.core.somaxconn': '1' }, options({ network: 'node' })), /needs a net/);
    assert.throws(() => admitSysctls({ 'kernel.core_pattern': '|x' }, options({})), /not a sysctl of any namespace/);
    assert.throws(() => admitSysctls({ 'net.ipv4.x': '1\nkernel.core_pattern=|x' }, options({})), /line break/);
    assert.throws(() => admitSysctls({ 'net.../../kernel/core_pattern': 'x' }, options({})), /no sysctl name/);
  });

  it('turns names into paths, dots inside names included', () => {
    assert.equal(sysctlPath('net.ipv4.conf.eth0/1.forwarding'), 'net/ipv4/conf/eth0.1/forwarding');
  });
});
