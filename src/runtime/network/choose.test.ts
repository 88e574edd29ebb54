import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { silentObserver } from '../../kit/observer.js';
import type { BuiltinNetwork } from './builtin.js';
import { chooseNetwork } from './choose.js';
import type { CniNetwork } from './cni.js';
import { type NetworkRequest, networkReady } from './pod-network.js';

const call = { signal: new AbortController().signal, observer: silentObserver };
const request = { sandboxId: 'a', netnsPath: '/run/netns/a' } as NetworkRequest;

describe('choice of the network', () => {
  let calls: string[];
  let populated: boolean;

  /** A network that writes down what it is asked. */
  const network = (name: string): CniNetwork & BuiltinNetwork => {
    const held = new Set<string>();
    return {
      attach: ({ sandboxId }) => {
        calls.push(`${name} attach`);
        held.add(sandboxId);
        return Promise.resolve({ ips: [name], interfaceName: 'eth0', mac: '' });
      },
      detach: ({ sandboxId }) => {
        if (held.delete(sandboxId)) calls.push(`${name} detach`);
        return Promise.resolve();
      },
      check: () => Promise.resolve(void calls.push(`${name} check`)),
      reconcile: () =>
        name === 'cni' ? Promise.reject(new Error('broken')) : Promise.resolve(void calls.push(`${name} reconcile`)),
      status: () =>
        name === 'cni' ? { ready: false, reason: 'NetworkPluginNotReady', message: 'none' } : networkReady,
      info: () => ({ kind: name }),
      has: (sandboxId) => held.has(sandboxId),
      populated: () => populated,
      teardown: () => Promise.resolve(),
      close: () => Promise.resolve(void calls.push(`${name} close`)),
    };
  };
  const choose = (mode: 'auto' | 'cni' | 'builtin') => chooseNetwork(mode, network('cni'), network('builtin'));

  beforeEach(() => {
    calls = [];
    populated = false;
  });

  it('is CNI as soon as there is a configuration', async () => {
    const chosen = choose('auto');
    assert.equal(chosen.status().ready, true);
    await chosen.attach(request, call);
    populated = true;
    assert.equal(chosen.status().ready, false);
    assert.deepEqual(chosen.info(), { mode: 'auto', kind: 'cni' });
    await chosen.attach({ ...request, sandboxId: 'b' }, call);
    assert.deepEqual(calls, ['builtin attach', 'cni attach']);
  });

  it('is what the operator says', async () => {
    await choose('cni').attach(request, call);
    populated = true;
    await choose('builtin').attach(request, call);
    assert.deepEqual(calls, ['cni attach', 'builtin attach']);
  });

  it('detaches, and attaches anew, where a pod was attached', async () => {
    const chosen = choose('auto');
    await chosen.attach(request, call);
    populated = true;
    await chosen.check(request, call);
    await chosen.attach(request, call);
    await chosen.detach(request, call);
    assert.deepEqual(calls, ['builtin attach', 'builtin check', 'builtin detach', 'cni attach', 'cni detach']);
    await assert.rejects(chosen.check(request, call), (error) => isKind(error, 'not-found'));
  });

  it('goes on when one of them cannot clean up', async () => {
    const chosen = choose('auto');
    await chosen.reconcile(new Set(), call);
    await chosen.close();
    assert.deepEqual(calls, ['builtin reconcile', 'cni close', 'builtin close']);
  });
});
