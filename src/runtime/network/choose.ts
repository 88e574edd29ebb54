/** Which of the two networks a pod gets. A pod is always detached by the one that attached it. */
import { RuntimeError, messageOf } from '../../kit/errors.js';
import type { BuiltinNetwork } from './builtin.js';
import type { CniNetwork } from './cni.js';
import type { PodNetwork } from './pod-network.js';

/** `auto`: CNI as soon as its directory holds a configuration, else the built-in network. */
export const networkModes = ['auto', 'cni', 'builtin'] as const;
export type NetworkMode = (typeof networkModes)[number];

export function chooseNetwork(mode: NetworkMode, cni: CniNetwork, builtin: BuiltinNetwork): PodNetwork {
  const current = (): PodNetwork => (mode === 'cni' || (mode === 'auto' && cni.populated()) ? cni : builtin);
  const both = [cni, builtin];
  return {
    async attach(request, call) {
      const chosen = current();
      // A retry may find that the network has changed since the first attempt.
      for (const other of both) if (other !== chosen && other.has(request.sandboxId)) await other.detach(request, call);
      return chosen.attach(request, call);
    },
    async detach(request, call) {
      for (const network of both) await network.detach(request, call);
    },
    async check(request, call) {
      const owner = both.find((network) => network.has(request.sandboxId));
      if (owner === undefined) throw new RuntimeError('not-found', `sandbox ${request.sandboxId} has no network`);
      await owner.check(request, call);
    },
    async reconcile(live, call) {
      for (const network of both) {
        // What one of them cannot free must not keep the other, or the agent, from going on.
        await network.reconcile(live, call).catch((error: unknown) => {
          call.observer.note('error', `networks of dead sandboxes: ${messageOf(error)}`);
        });
      }
    },
    status: () => current().status(),
    info: () => ({ mode, ...current().info() }),
    async close() {
      for (const network of both) await network.close();
    },
  };
}
