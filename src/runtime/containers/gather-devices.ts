import { lstat, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { invalid } from '../../kit/errors.js';
import type { Device } from '../model.js';
import type { HostDevice } from '../spec/container-spec.js';
import type { HostLookups } from './host-path.js';

/** Device nodes of the request (a directory stands for those in it), or all of the host's for a privileged container. */
export async function gatherDevices(
  devices: readonly Device[],
  lookups: HostLookups,
  privileged: boolean,
  keep: (device: HostDevice) => boolean = () => true,
): Promise<HostDevice[]> {
  const asked = await Promise.all(
    devices.map(async (device, index) => {
      const field = `config.devices[${index}].host_path`;
      const hostPath = await lookups.find(device.hostPath, field);
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
