import { realpath } from 'node:fs/promises';
import { withDeadline } from '../../kit/deadline.js';
import { invalid, isErrno, messageOf } from '../../kit/errors.js';

/** Milliseconds a path of the host may take to answer before the request says which one hangs (a dead NFS server). */
const hostPathDeadlineMs = 10_000;

/** The path with its links followed, now and once. Errors: invalid-argument naming `field`, deadline. */
export async function hostPathOf(path: string, field: string): Promise<string> {
  try {
    return await withDeadline(`${field}: look up ${path}`, hostPathDeadlineMs, () => realpath(path));
  } catch (error) {
    if (isErrno(error, 'ENOENT')) throw invalid(field, `${path} does not exist`);
    if (isErrno(error, 'ENOTDIR') || isErrno(error, 'ELOOP')) throw invalid(field, messageOf(error));
    throw error;
  }
}
