import { randomBytes } from 'node:crypto';
import { rename, rm, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isErrno } from '../kit/errors.js';
import { silentObserver } from '../kit/observer.js';
import type { Parts } from './parts.js';
import { removeTree } from './snapshots/tree.js';
import type { Cleaners } from './state/residue.js';

export type CleanerDeps = Pick<Parts, 'cgroups' | 'snapshots' | 'images' | 'shims' | 'network' | 'paths'> & {
  readonly unpin: (path: string) => Promise<void> | void;
  /** The metadata of a pod, as long as anything of it is known. */
  readonly podIdentity: (sandboxId: string) => {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
  };
};

/** The one table of how each kind of thing on the host is taken away. Every entry may be repeated; gone is success. */
export function cleaners(deps: CleanerDeps): Cleaners {
  return {
    cgroup: async (path) => {
      await deps.cgroups.kill(path);
      await deps.cgroups.remove(path);
    },
    snapshot: (key) => deps.snapshots.remove(key),
    directory: removeDirectory,
    volumes: (containerId) => removeVolumes(deps.paths.volumeDir(containerId)),
    shim: (sandboxId) => deps.shims.kill(sandboxId, deps.paths.podDir(sandboxId)),
    network: (sandboxId) =>
      deps.network.detach(
        { sandboxId, netnsPath: deps.paths.netnsPin(sandboxId), pod: deps.podIdentity(sandboxId) },
        { signal: new AbortController().signal, observer: silentObserver },
      ),
    netns: (path) => deps.unpin(path),
    'image-hold': (target) => {
      const [imageId, holder] = target.split(' ');
      if (imageId !== undefined && holder !== undefined) deps.images.unhold(imageId, holder);
    },
  };
}

/** Renames aside, then deletes: a crash in between leaves a hidden name that start-up purges, never half a directory. */
async function removeDirectory(path: string): Promise<void> {
  const aside = await setAside(path);
  if (aside === undefined) return;
  // A leftover mount would make a recursive delete reach into someone's files: rmdir of it fails first.
  await rmdir(join(aside, 'root')).catch((error: unknown) => {
    if (!isErrno(error, 'ENOENT') && !isErrno(error, 'ENOTDIR')) throw error;
  });
  await rm(aside, { recursive: true, force: true });
}

/** A container wrote these: links are not followed, and where something is mounted nothing is deleted. */
async function removeVolumes(path: string): Promise<void> {
  const aside = await setAside(path);
  if (aside !== undefined) await removeTree(aside);
}

async function setAside(path: string): Promise<string | undefined> {
  const aside = join(dirname(path), `.trash-${randomBytes(6).toString('hex')}`);
  try {
    await rename(path, aside);
    return aside;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
