import { lstat, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { invalid } from '../../kit/errors.js';
import type { ContainerSecurity, Device } from '../model.js';
import type { HostDevice } from '../spec/container-spec.js';
import type { HostLookups } from './host-path.js';

/** Who gets those of the request's nodes that are root's on the host. */
export interface DeviceOwner {
  readonly uid: number;
  readonly gid: number;
  /** Nodes are bound: they are the host's, whose owners stay. */
  readonly bound: boolean;
}

/** As `runtime.device_ownership_from_security_context` wants it; undefined leaves every owner as it is. */
export function deviceOwner(
  { runAsUser: uid = 0, runAsGroup: gid = 0 }: Pick<ContainerSecurity, 'runAsUser' | 'runAsGroup'>,
  { wanted, bound }: { readonly wanted: boolean; readonly bound: boolean },
): DeviceOwner | undefined {
  return wanted && (uid !== 0 || gid !== 0) ? { uid, gid, bound } : undefined;
}

/** Device nodes of the request (a directory stands for those in it), or all of the host's for a privileged container. */
export async function gatherDevices(
  devices: readonly Device[],
  lookups: HostLookups,
  privileged: boolean,
  keep: (device: HostDevice) => boolean = () => true,
  owner?: DeviceOwner,
): Promise<HostDevice[]> {
  const asked = await Promise.all(
    devices.map(async (device, index) => {
      const field = `config.devices[${index}].host_path`;
      const hostPath = await lookups.find(device.hostPath, field);
      const found = await devicesAt(hostPath, device.containerPath, device.permissions);
      if (found.length === 0) throw invalid(field, `${device.hostPath} is neither a device nor a directory of devices`);
      return owner === undefined ? found : found.map((each) => owned(each, owner, `config.devices[${index}]`));
    }),
  );
  const all = privileged ? (await hostDevices('/dev')).filter(keep) : [];
  const byPath = new Map([...all, ...asked.flat()].map((device) => [device.path, device]));
  return [...byPath.values()];
}

function owned(device: HostDevice, { uid, gid, bound }: DeviceOwner, field: string): HostDevice {
  const forAll = ((device.fileMode ?? 0) & 0o006) === 0o006;
  if (device.uid !== 0 || (bound && forAll)) return device;
  if (!bound) return { ...device, uid, gid };
  throw invalid(
    field,
    `${device.hostPath} is root’s and bound as it is: it cannot be given to user ${uid}, group ${gid}`,
  );
}

async function devicesAt(hostPath: string, containerPath: string, access: string): Promise<HostDevice[]> {
  const facts = await stat(hostPath);
  if (!facts.isDirectory()) return deviceOf(facts, containerPath, access).map((found) => ({ ...found, hostPath }));
  const names = await readdir(hostPath);
  const found = await Promise.all(
    names.map(async (name) => {
      const entry = await stat(join(hostPath, name));
      if (entry.isDirectory()) return [];
      const found = deviceOf(entry, join(containerPath, name), access);
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
      return entry.isBlockDevice() || entry.isCharacterDevice() ? deviceOf(await lstat(path), path, 'rwm') : [];
    }),
  );
  return found.flat();
}

/** A device from what stat(2) says; nothing for what is none. */
export function deviceOf(facts: Awaited<ReturnType<typeof stat>>, path: string, access: string): HostDevice[] {
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
