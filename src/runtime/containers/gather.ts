import { lstat, open, readdir, realpath, stat } from 'node:fs/promises';
import { constants } from 'node:fs';
import { join } from 'node:path';
import { withDeadline } from '../../kit/deadline.js';
import { invalid, isErrno, messageOf } from '../../kit/errors.js';
import type { Device, Image, Mount } from '../model.js';
import type { ImageParts } from '../parts.js';
import type { HostDevice } from '../spec/container-spec.js';
import type { UserDatabase } from '../spec/user.js';

/** Milliseconds a path of the host may take to answer before the request says which one hangs (a dead NFS server). */
const hostPathDeadlineMs = 10_000;

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

/** Sources of mounts must exist; links in them are followed now, once. */
export function gatherMounts(mounts: readonly Mount[]): Promise<Mount[]> {
  return Promise.all(
    mounts.map(async (mount, index) => {
      if (mount.image !== undefined)
        throw invalid(`config.mounts[${index}].image`, 'image volumes are not offered yet');
      const field = `config.mounts[${index}].host_path`;
      const hostPath = await hostPathOf(mount.hostPath, field);
      return { ...mount, hostPath };
    }),
  );
}

async function hostPathOf(path: string, field: string): Promise<string> {
  try {
    return await withDeadline(`${field}: look up ${path}`, hostPathDeadlineMs, () => realpath(path));
  } catch (error) {
    if (isErrno(error, 'ENOENT')) throw invalid(field, `${path} does not exist`);
    if (isErrno(error, 'ENOTDIR') || isErrno(error, 'ELOOP')) throw invalid(field, messageOf(error));
    throw error;
  }
}

/** Device nodes of the request (a directory stands for those in it), or all of the host's for a privileged container. */
export async function gatherDevices(
  devices: readonly Device[],
  privileged: boolean,
  keep: (device: HostDevice) => boolean = () => true,
): Promise<HostDevice[]> {
  const asked = await Promise.all(
    devices.map(async (device, index) => {
      const field = `config.devices[${index}].host_path`;
      const hostPath = await hostPathOf(device.hostPath, field);
      const found = await devicesAt(hostPath, device.containerPath, device.permissions);
      if (found.length === 0) throw invalid(field, `${device.hostPath} is neither a device nor a directory of devices`);
      return found;
    }),
  );
  const all = privileged ? (await hostDevices('/dev')).filter(keep) : [];
  const byPath = new Map([...all, ...asked.flat()].map((device) => [device.path, device]));
  return [...byPath.values()];
}

async function devicesAt(hostPath: string, containerPath: string, access: string): Promise<HostDevice[]> {
  const facts = await stat(hostPath);
  if (!facts.isDirectory()) return device(facts, containerPath, access).map((found) => ({ ...found, hostPath }));
  const names = await readdir(hostPath);
  const found = await Promise.all(
    names.map(async (name) => {
      const entry = await stat(join(hostPath, name));
      if (entry.isDirectory()) return [];
      const found = device(entry, join(containerPath, name), access);
      return found.map((each) => ({ ...each, hostPath: join(hostPath, name) }));
    }),
  );
  return found.flat();
}

/** Below /dev, without what every container has of its own and without links. */
async function hostDevices(dir: string): Promise<HostDevice[]> {
  const own = new Set([
    '/dev/pts',
    '/dev/shm',
    '/dev/mqueue',
    '/dev/console',
    '/dev/fd',
    '/dev/.udev',
    '/dev/hugepages',
  ]);
  const entries = await readdir(dir, { withFileTypes: true });
  const found = await Promise.all(
    entries.map(async (entry) => {
      const path = join(dir, entry.name);
      if (own.has(path)) return [];
      if (entry.isDirectory()) return await hostDevices(path);
      return entry.isBlockDevice() || entry.isCharacterDevice() ? device(await lstat(path), path, 'rwm') : [];
    }),
  );
  return found.flat();
}

function device(facts: Awaited<ReturnType<typeof stat>>, path: string, access: string): HostDevice[] {
  if (!facts.isBlockDevice() && !facts.isCharacterDevice()) return [];
  const rdev = Number(facts.rdev);
  return [
    {
      path,
      type: facts.isBlockDevice() ? 'b' : 'c',
      major: (rdev >>> 8) & 0xfff,
      minor: (rdev & 0xff) | ((rdev >>> 12) & 0xfff00),
      fileMode: Number(facts.mode) & 0o7777,
      uid: Number(facts.uid),
      gid: Number(facts.gid),
      access,
    },
  ];
}
