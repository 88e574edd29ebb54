import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { RuntimeError, isErrno, messageOf } from '../../kit/errors.js';
import type { ErrorKind } from '../../kit/errors.js';

/**
 * Reading and writing cgroup files. They are kernel memory behind a few microseconds of system calls, so this is
 * synchronous; only writes that can make the kernel reclaim memory first go through the thread pool.
 */

let buffer = Buffer.allocUnsafeSlow(64 * 1024);

/** Whole content; three system calls. Throws Node's own error. */
export function readCgroupFile(file: string): string {
  const fd = openSync(file, 'r');
  try {
    return readOpenCgroupFile(fd);
  } finally {
    closeSync(fd);
  }
}

/** Whole content, wherever the descriptor stands. Throws Node's own error. */
export function readOpenCgroupFile(fd: number): string {
  let length = readSync(fd, buffer, 0, buffer.length, 0);
  // cgroup.procs and memory.numa_stat can be longer than one read gives; other files end here with one more call.
  if (length >= 4000) length = readRest(fd, length);
  return buffer.toString('latin1', 0, length);
}

function readRest(fd: number, already: number): number {
  let length = already;
  for (;;) {
    if (buffer.length - length < 4096) buffer = Buffer.concat([buffer], buffer.length * 2);
    const count = readSync(fd, buffer, length, buffer.length - length, length);
    if (count === 0) return length;
    length += count;
  }
}

/** Undefined when the file, or its cgroup, is not there (ENODEV: removed while open). */
export function tryReadCgroupFile(file: string): string | undefined {
  try {
    return readCgroupFile(file);
  } catch (error) {
    if (isUnreadable(error)) return undefined;
    throw cgroupError('read', file, undefined, error);
  }
}

/** Gone, or nothing that this kernel or this user lets be read. */
export const isUnreadable = (error: unknown): boolean =>
  isGone(error) || ['EOPNOTSUPP', 'EACCES', 'EINVAL'].some((code) => isErrno(error, code));

export const isGone = (error: unknown): boolean => isErrno(error, 'ENOENT') || isErrno(error, 'ENODEV');

/** One write(2), as the kernel parses each write by itself. Throws Node's own error. Never creates the file. */
export function rawWrite(file: string, value: string): void {
  const fd = openSync(file, constants.O_WRONLY);
  try {
    writeSync(fd, value);
  } finally {
    closeSync(fd);
  }
}

export async function rawWriteAsync(file: string, value: string): Promise<void> {
  const handle = await open(file, constants.O_WRONLY);
  try {
    await handle.write(value);
  } finally {
    await handle.close();
  }
}

export function writeCgroupFile(file: string, value: string): void {
  try {
    rawWrite(file, value);
  } catch (error) {
    throw cgroupError('write', file, value, error);
  }
}

/**
 * What a refused value means. The kernel says EINVAL or ERANGE for values it does not understand, EBUSY for a limit
 * below what cannot be freed, ENOSPC and E2BIG for exhausted ranges.
 */
const kinds: Readonly<Record<string, ErrorKind>> = {
  EINVAL: 'invalid-argument',
  ERANGE: 'invalid-argument',
  EBUSY: 'wrong-state',
  ENOTSUP: 'wrong-state',
  ENOSPC: 'exhausted',
  EAGAIN: 'exhausted',
  EPERM: 'denied',
  EACCES: 'denied',
  EROFS: 'denied',
};

export function cgroupError(doing: string, file: string, value: string | undefined, error: unknown): RuntimeError {
  if (error instanceof RuntimeError) return error;
  const errno = (error as NodeJS.ErrnoException).code;
  const what = value === undefined ? file : `${JSON.stringify(value)} to ${file}`;
  const kind = (errno === undefined ? undefined : kinds[errno]) ?? 'internal';
  return new RuntimeError(kind, `${doing} ${what}: ${errno ?? messageOf(error)}`, {
    facts: { file, errno },
    cause: error,
  });
}
