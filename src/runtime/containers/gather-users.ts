import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../../kit/errors.js';
import type { Image } from '../model.js';
import type { ImageParts } from '../parts.js';
import type { UserDatabase } from '../spec/user.js';

/** Bytes of a user database that are read; larger ones are an attack (CVE-2026-47262, CVE-2025-4437). */
const userDatabaseBytes = 10 * 1024 * 1024;

/** /etc/passwd and /etc/group, of the image's layers or of an unmanaged root. */
export async function gatherUserDatabase(
  from: { readonly image: Image; readonly images: ImageParts } | { readonly rootfs: string },
): Promise<UserDatabase> {
  const read = async (path: string): Promise<string> => {
    const bytes =
      'image' in from
        ? await from.images.rootFile(from.image, path, userDatabaseBytes)
        : await readPlainFile(join(from.rootfs, path));
    return bytes?.toString('utf8') ?? '';
  };
  const [passwd, group] = await Promise.all([read('/etc/passwd'), read('/etc/group')]);
  return { passwd, group };
}

/** A regular file that is no link; undefined when it is missing or anything else. */
async function readPlainFile(path: string): Promise<Buffer | undefined> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const facts = await file.stat();
    if (!facts.isFile() || facts.size > userDatabaseBytes) return undefined;
    return await file.readFile();
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ELOOP') || isErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}
