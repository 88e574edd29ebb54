import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { IdMapping, Mount, NamespaceOptions, UserNamespaceOption } from '../../src/runtime/model.js';

export const line = (hostId: number, size = 65536): IdMapping => ({ containerId: 0, hostId, size });

/** Uids and gids differ, so that one read for the other shows. */
export const userns = (uid = 1_000_000, gid = 2_000_000): UserNamespaceOption => ({
  mode: 'pod',
  uids: [line(uid)],
  gids: [line(gid)],
});

export const namespaces = (changes: Partial<NamespaceOptions> = {}): NamespaceOptions => ({
  network: 'pod',
  pid: 'container',
  ipc: 'pod',
  userns: userns(),
  ...changes,
});

export const volume = (hostPath: string, containerPath: string, changes: Partial<Mount> = {}): Mount => ({
  containerPath,
  hostPath,
  readonly: false,
  selinuxRelabel: false,
  propagation: 'private',
  uidMappings: [],
  gidMappings: [],
  recursiveReadOnly: false,
  imageSubPath: '',
  options: [],
  ...changes,
});

/** Compiles the program that tells what it sees (test/support/facts.c), static, into `dir`. */
export function buildFacts(dir: string): string {
  const out = join(dir, 'facts');
  const source = fileURLToPath(new URL('facts.c', import.meta.url));
  execFileSync('gcc', ['-D_GNU_SOURCE', '-static', '-O1', '-o', out, source], { stdio: 'pipe' });
  return out;
}
