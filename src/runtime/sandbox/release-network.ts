import type { Parts } from '../parts.js';
import type { SandboxRecord } from '../state/records.js';

/** Frees a pod's addresses, ports and namespace pin. Repeatable; what resists becomes residue. */
export async function releaseNetwork(record: SandboxRecord, deps: Pick<Parts, 'residue' | 'paths'>): Promise<void> {
  if (record.config.security.namespaces.network === 'node') return;
  await deps.residue.clean('network', record.id);
  await deps.residue.clean('netns', deps.paths.netnsPin(record.id));
}
