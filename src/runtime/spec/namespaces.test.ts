import assert from 'node:assert/strict';
import type { NamespaceOptions } from '../model.js';
import { admitSysctls, checkUserNamespace, containerNamespaces, sandboxNamespaces, sysctlPath } from './namespaces.js';

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

  describe('with a user namespace', () => {
    const line = (hostId: number) => [{ containerId: 0, hostId, size: 65536 }];
    const userns = { mode: 'pod' as const, uids: line(65536), gids: line(65536) };
    const facts = { cgroupNamespace: false };
    const modes = ['pod', 'node'] as const;

    it('is owned by the pod, and shares of the host’s namespaces only the network', () => {
      for (const network of modes)
        for (const ipc of modes)
          for (const pid of ['pod', 'container', 'node'] as const) {
            const wanted = options({ network, ipc, pid, userns });
            const refused = ipc === 'node' || pid === 'node';
            if (refused) {
              assert.throws(
                () => checkUserNamespace(wanted, 'ns'),
                /^.*ns\.(ipc|pid): is node.*no rights over the host's$/,
              );
              continue;
            }
            checkUserNamespace(wanted, 'ns');
            assert.ok(sandboxNamespaces(wanted).own.includes('user'));
            assert.deepEqual(containerNamespaces(wanted, wanted, facts).user, { from: 'pod' });
          }
      assert.throws(
        () => containerNamespaces(options({ userns }), options({ userns, pid: 'node' }), facts),
        /\.pid: is node/,
      );
    });

    it('is the same for a container as for its pod, in whatever way it is written', () => {
      const node = { mode: 'node' as const, uids: [], gids: [] };
      const halves = [
        { containerId: 0, hostId: 65536, size: 1000 },
        { containerId: 1000, hostId: 66536, size: 64536 },
      ];
      const given = (option: NamespaceOptions['userns']) => (option === undefined ? {} : { userns: option });
      const agree = (pod: NamespaceOptions['userns'], own: NamespaceOptions['userns']): string =>
        containerNamespaces(options(given(pod)), options(given(own)), facts).user.from;
      assert.equal(agree(userns, userns), 'pod');
      assert.equal(agree(userns, { ...userns, uids: halves }), 'pod');
      assert.equal(agree(undefined, node), 'host');
      assert.equal(agree(node, undefined), 'host');
      for (const [pod, own] of [
        [userns, undefined],
        [userns, node],
        [undefined, userns],
        [userns, { ...userns, uids: line(131072) }],
        [userns, { ...userns, gids: line(131072) }],
      ] as const) {
        assert.throws(() => agree(pod, own), /userns_options: is .*, but the pod's is /);
      }
    });

    it('may come from the handler, and is then not the container’s business', () => {
      const namespaces = containerNamespaces(options({}), options({}), { ...facts, userNamespace: true });
      assert.deepEqual(namespaces.user, { from: 'pod' });
      assert.throws(
        () => containerNamespaces(options({}), options({ pid: 'node' }), { ...facts, userNamespace: true }),
        /\.pid: is node/,
      );
    });
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
