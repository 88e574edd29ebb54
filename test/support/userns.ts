import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
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

/** Tells what it sees (test/support/facts.c). */
export const factsProgram = (): string => insideProgram('facts');

/** Tries to get out (test/support/attacks.c). */
export const attacksProgram = (): string => insideProgram('attacks');

/**
 * Builds a program for the inside of containers, static, when its source is newer; in the test machine, which has no
 * compiler, what was built outside has to do.
 */
function insideProgram(name: 'facts' | 'attacks'): string {
  const out = fileURLToPath(new URL(`../../build/test-${name}/${name}`, import.meta.url));
  const source = fileURLToPath(new URL(`${name}.c`, import.meta.url));
  if (existsSync(out) && statSync(out).mtimeMs >= statSync(source).mtimeMs) return out;
  mkdirSync(dirname(out), { recursive: true });
  execFileSync('gcc', ['-D_GNU_SOURCE', '-static', '-O1', '-o', `${out}.${process.pid}`, source], { stdio: 'pipe' });
  renameSync(`${out}.${process.pid}`, out);
  return out;
}
