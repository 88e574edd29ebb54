import type { Call } from '../../kit/call.js';
import { killContainer } from '../containers/stop.js';
import { releaseNetwork } from './release-network.js';
import type { Parts } from '../parts.js';

export type StopPodSandboxDeps = Pick<
  Parts,
  'settings' | 'paths' | 'host' | 'registry' | 'residue' | 'cgroups' | 'shims' | 'network' | 'lifecycle'
>;

/**
 * StopPodSandbox: kills every container, frees the network, ends the shim. Converges: processes go first, whatever
 * resists is residue and does not keep the pod from being NOTREADY. A missing pod is success.
 */
export async function stopPodSandbox(idOrPrefix: string, deps: StopPodSandboxDeps, call: Call): Promise<void> {
  const { registry, residue } = deps;
  const entry = registry.findSandbox(idOrPrefix);
  if (entry === undefined || entry.record.stage === 'creating') return;
  const { id } = entry.record;
  const { observer } = call;

  await observer.step('kill containers', async () => {
    await Promise.all(registry.containersOf(id).map((container) => killContainer(container.record.id, deps)));
  });
  if (entry.record.stage === 'stopped') return;
  if (deps.lifecycle.active)
    await observer.step('tell plugins', () => deps.lifecycle.tell('stop-sandbox', entry.record));
  await observer.step('release network', () => releaseNetwork(entry.record, deps));
  await observer.step('end shim', async () => {
    registry.updateSandbox(id, { stage: 'stopped' });
    const { shim } = registry.sandbox(id);
    registry.setShim(id, undefined);
    if (shim === undefined) await residue.clean('shim', id);
    else await shim.shutdown().catch(() => residue.clean('shim', id));
  });
}
