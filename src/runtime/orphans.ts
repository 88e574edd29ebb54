import { readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../kit/errors.js';
import type { Orphan } from './facade.js';
import type { Parts } from './parts.js';
import { holderOf } from './containers/volumes.js';
import type { ResidueKind } from './state/residue.js';

export type OrphanDeps = Pick<Parts, 'paths' | 'registry' | 'residue' | 'cgroups' | 'snapshots' | 'settings'> & {
  readonly listNetnsPins: () => Promise<readonly string[]>;
};

/** Something on the host in Berth's name that no record accounts for, with the cleaner that takes it away. */
interface Stranger {
  readonly kind: ResidueKind;
  readonly target: string;
  readonly reason: string;
}

/** Pods' shims, directories, snapshots, namespaces and cgroups that no record names. */
export async function findStrangers(deps: OrphanDeps): Promise<Stranger[]> {
  const { registry, paths } = deps;
  const pods = new Set([...registry.sandboxes()].map(({ record }) => record.id));
  const containers = new Set([...registry.containers()].map(({ record }) => record.id));
  const reason = 'no record names it';
  const strangers: Stranger[] = [];
  for (const id of await strayShims(paths.pods, registry)) strangers.push({ kind: 'shim', target: id, reason });
  for (const name of await entries(paths.pods)) {
    if (!pods.has(name)) strangers.push({ kind: 'directory', target: join(paths.pods, name), reason });
  }
  for (const { key } of deps.snapshots.list()) {
    if (!containers.has(holderOf(key))) strangers.push({ kind: 'snapshot', target: key, reason });
  }
  for (const name of await entries(paths.volumes)) {
    if (!containers.has(name)) strangers.push({ kind: 'volumes', target: name, reason });
  }
  const pins = new Set([...pods].map((id) => paths.netnsPin(id)));
  for (const pin of await deps.listNetnsPins()) {
    if (!pins.has(pin)) strangers.push({ kind: 'netns', target: pin, reason });
  }
  for (const name of deps.cgroups.children(deps.settings.cgroupParent)) {
    const pod = /^pod-([0-9a-f]{64})$/.exec(name)?.[1];
    if (pod === undefined || pods.has(pod)) continue;
    strangers.push({ kind: 'cgroup', target: join(deps.settings.cgroupParent, name), reason });
  }
  return strangers;
}

/** For people: strangers, what resisted removal, and mounts in Berth's directories, which should never be there. */
export async function findOrphans(deps: OrphanDeps): Promise<Orphan[]> {
  const residue = deps.residue.list().map(({ kind, target, reason }) => ({ kind, target, reason }));
  const mounts = await strayMounts(deps.paths.pods);
  const known = new Set(residue.map(({ kind, target }) => `${kind}:${target}`));
  const strangers = (await findStrangers(deps)).filter(({ kind, target }) => !known.has(`${kind}:${target}`));
  return [...residue, ...strangers, ...mounts];
}

/** Takes away what it can; answers what is left. */
export async function cleanOrphans(deps: OrphanDeps): Promise<Orphan[]> {
  await deps.residue.retry();
  for (const { kind, target } of await findStrangers(deps)) await deps.residue.clean(kind, target);
  return await findOrphans(deps);
}

/** Ids of pods whose shim runs although no record names them, by the shims' own command lines. */
async function strayShims(podsDir: string, registry: OrphanDeps['registry']): Promise<string[]> {
  const connected = new Set([...registry.sandboxes()].map(({ shim }) => shim?.pid));
  const found = new Set<string>();
  for (const name of await entries('/proc')) {
    if (!/^[0-9]+$/.test(name) || connected.has(Number(name)) || !isShim(name)) continue;
    const words = (await readFile(join('/proc', name, 'cmdline'), 'utf8').catch(() => '')).split('\0');
    const dir = words[words.indexOf('--dir') + 1] ?? '';
    if (!(words[0] ?? '').endsWith('berth-shim') || !dir.startsWith(`${podsDir}/`)) continue;
    const id = dir.slice(podsDir.length + 1);
    if (registry.findSandbox(id) === undefined) found.add(id);
  }
  return [...found];
}

/** By the name the kernel has for it, which never waits: a command line is the process's own memory. */
function isShim(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8') === 'berth-shim\n';
  } catch {
    return false;
  }
}

async function strayMounts(podsDir: string): Promise<Orphan[]> {
  const table = await readFile('/proc/self/mountinfo', 'utf8');
  return table
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(`${podsDir}/`))
    .map((target) => ({ kind: 'mount', target, reason: 'pods have their mounts in namespaces of their own' }));
}

async function entries(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}
