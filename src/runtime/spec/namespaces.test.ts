import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { namespaceTable } from '../../../test/support/namespace-table.js';
import type { NamespaceMode, NamespaceOptions } from '../model.js';
import { containerNamespaces, sandboxNamespaces } from './namespaces.js';

const goldenFile = new URL('../../../test/golden/namespaces.txt', import.meta.url);
const options = (changes: Partial<NamespaceOptions>): NamespaceOptions => ({
  network: 'pod',
  pid: 'container',
  ipc: 'pod',
  ...changes,
});
const line = (hostId: number) => [{ containerId: 0, hostId, size: 65536 }];
const userns = { mode: 'pod' as const, uids: line(65536), gids: line(65536) };
const facts = { cgroupVersion: 'v2', privileged: false } as const;
const podOrNode = ['pod', 'node'] as const;

describe('spec/namespaces', () => {
  it('read as the golden table says (UPDATE_GOLDEN=1 writes it anew)', () => {
    const text = namespaceTable();
    if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(goldenFile, text);
    assert.equal(text, readFileSync(goldenFile, 'utf8'));
  });

  it('of a container follow kind by kind: none depends on what is chosen for another', () => {
    const own = (pid: NamespaceMode) => ({ pid, ...(pid === 'target' ? { targetId: 'other' } : {}) });
    const result = (pod: NamespaceOptions, container: NamespaceOptions): Record<string, unknown> | undefined => {
      try {
        return { ...containerNamespaces(pod, container, facts) };
      } catch {
        return undefined;
      }
    };
    for (const user of [{}, { userns }])
      for (const [network, ownNetwork] of pairs(podOrNode))
        for (const [ipc, ownIpc] of pairs(podOrNode))
          for (const pid of ['pod', 'container', 'node'] as const)
            for (const ownPid of ['pod', 'container', 'target', 'node'] as const) {
              const alone = [
                result(options({ ...user, network }), options({ ...user, network: ownNetwork })),
                result(options({ ...user, ipc }), options({ ...user, ipc: ownIpc })),
                result(options({ ...user, pid }), options({ ...user, ...own(ownPid) })),
              ];
              const all = result(
                options({ ...user, network, ipc, pid }),
                options({ ...user, network: ownNetwork, ipc: ownIpc, ...own(ownPid) }),
              );
              if (alone.includes(undefined)) assert.equal(all, undefined);
              else {
                const [ofNetwork, ofIpc, ofPid] = alone;
                assert.deepEqual(all, {
                  ...ofPid,
                  net: ofNetwork?.['net'],
                  uts: ofNetwork?.['uts'],
                  ipc: ofIpc?.['ipc'],
                });
              }
            }
  });

  it('name the field of what is refused', () => {
    const field = /^RuntimeError: config\.linux\.security_context\.namespace_options\./;
    const refusals: readonly (readonly [() => unknown, RegExp])[] = [
      [() => sandboxNamespaces(options({ userns, ipc: 'node' })), /\.ipc: is node.*no rights over the host's$/],
      [() => sandboxNamespaces(options({ pid: 'node' }), true), /\.pid: is node.*no rights over the host's$/],
      [() => containerNamespaces(options({}), options({ network: 'node' }), facts), /\.network: is node/],
      [() => containerNamespaces(options({}), options({ pid: 'pod' }), facts), /\.pid: .*made with container$/],
      [() => containerNamespaces(options({}), options({ pid: 'target' }), facts), /\.pid\.target_id: is needed/],
    ];
    for (const [work, reason] of refusals) {
      assert.throws(work, field);
      assert.throws(work, reason);
    }
  });

  describe('with a user namespace', () => {
    it('the same for a container as for its pod, in whatever way it is written', () => {
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

    it('that the handler gave, which is not the container’s business', () => {
      const mapped = { ...facts, mapped: true };
      assert.deepEqual(containerNamespaces(options({}), options({}), mapped).user, { from: 'pod' });
      assert.throws(() => containerNamespaces(options({}), options({ pid: 'node' }), mapped), /\.pid: is node/);
      assert.equal(sandboxNamespaces(options({ network: 'node' }), true).sys, 'bound');
    });
  });
});

const pairs = <T>(all: readonly T[]): (readonly [T, T])[] => all.flatMap((a) => all.map((b) => [a, b] as const));
