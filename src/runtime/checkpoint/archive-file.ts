import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isErrno } from '../../kit/errors.js';
import type { Files } from '../../native/files.js';

/** A file that comes to be beside its place and is put there whole, or leaves nothing. */
export interface ArchiveFile extends AsyncDisposable {
  readonly file: FileHandle;
  /** In the place of what is there. On disk when this resolves. */
  publish(): Promise<void>;
}

/** __O_TMPFILE with O_DIRECTORY (open(2)): a file without a name, which goes with its last descriptor. */
const unnamed = 0o20000000 | constants.O_DIRECTORY;

/** Mode 0600. Has no name until it is published, where the file system can do that: nothing is left by a killed agent. */
export async function openArchiveFile(location: string, files: Pick<Files, 'linkAt'>): Promise<ArchiveFile> {
  const directory = dirname(location);
  const name = `.${basename(location)}.${randomBytes(6).toString('hex')}`;
  const waiting = join(directory, name);
  const { file, named } = await openFresh(directory, waiting);
  let published = false;
  return {
    file,
    async publish() {
      await file.sync();
      await using parent = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
      if (!named) files.linkAt(file.fd, '', parent.fd, name);
      await rename(waiting, location);
      published = true;
      await parent.sync();
    },
    async [Symbol.asyncDispose]() {
      await file.close();
      if (!published) await rm(waiting, { force: true });
    },
  };
}

async function openFresh(
  directory: string,
  name: string,
): Promise<{ readonly file: FileHandle; readonly named: boolean }> {
  try {
    return { file: await open(directory, unnamed | constants.O_RDWR, 0o600), named: false };
  } catch (error) {
    if (!isErrno(error, 'EOPNOTSUPP') && !isErrno(error, 'EISDIR')) throw error;
    return { file: await open(name, 'wx+', 0o600), named: true };
  }
}
