import { realpath, stat } from 'node:fs/promises';
import { withDeadline } from '../../kit/deadline.js';
import { invalid, isErrno, isKind, messageOf, RuntimeError } from '../../kit/errors.js';

/** Paths of the host that a request names: whether they are there, on file systems that may never answer. */
export interface HostLookups {
  /**
   * The path with its links followed, now and once. Errors: invalid-argument naming `field`; deadline when the file
   * system does not answer, and at once as long as it has not answered an earlier request.
   */
  find(path: string, field: string): Promise<string>;
}

/**
 * A call that hangs (a dead NFS server) keeps one of the few threads of Node's pool until it returns: repetitions of the
 * request must not take another one each.
 *
 * @param deadlineMs what a path may take to answer
 */
export function openHostLookups(deadlineMs = 10_000): HostLookups {
  const hanging = new Set<string>();
  return {
    async find(path, field) {
      const what = `${field}: look up ${path}`;
      if (hanging.has(path)) throw new RuntimeError('deadline', `${what}: no answer to an earlier request yet`);
      const lookup = lookUp(path);
      try {
        return await withDeadline(what, deadlineMs, () => lookup);
      } catch (error) {
        if (isKind(error, 'deadline')) remember(hanging, path, lookup);
        if (isErrno(error, 'ENOENT')) throw invalid(field, `${path} does not exist`);
        if (isErrno(error, 'ENOTDIR') || isErrno(error, 'ELOOP')) throw invalid(field, messageOf(error));
        throw error;
      }
    },
  };
}

/** To find the root of a mount asks nobody; its attributes do. Who may have them is not the question. */
async function lookUp(path: string): Promise<string> {
  const found = await realpath(path);
  await stat(found).catch(() => undefined);
  return found;
}

function remember(hanging: Set<string>, path: string, lookup: Promise<unknown>): void {
  hanging.add(path);
  const forget = (): void => void hanging.delete(path);
  lookup.then(forget, forget);
}
