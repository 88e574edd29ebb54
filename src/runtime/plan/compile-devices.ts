import { invalid } from '../../kit/errors.js';
import type { OciDevice, OciSpec } from '../spec/oci.js';
import type { PlanBuilder } from './builder.js';
import type { LaunchFacts } from './facts.js';
import type { InnerStep } from './plan.js';

/** runtime-spec "Default Devices"; /dev/console and /dev/ptmx come with the terminal and devpts. */
const standardDevices: readonly OciDevice[] = [
  { path: '/dev/null', type: 'c', major: 1, minor: 3 },
  { path: '/dev/zero', type: 'c', major: 1, minor: 5 },
  { path: '/dev/full', type: 'c', major: 1, minor: 7 },
  { path: '/dev/random', type: 'c', major: 1, minor: 8 },
  { path: '/dev/urandom', type: 'c', major: 1, minor: 9 },
  { path: '/dev/tty', type: 'c', major: 5, minor: 0 },
];

const standardLinks: readonly (readonly [string, string])[] = [
  ['/dev/fd', '/proc/self/fd'],
  ['/dev/stdin', '/proc/self/fd/0'],
  ['/dev/stdout', '/proc/self/fd/1'],
  ['/dev/stderr', '/proc/self/fd/2'],
  ['/dev/ptmx', 'pts/ptmx'],
  ['/dev/core', '/proc/kcore'],
];

const reserved: ReadonlySet<string> = new Set([...standardLinks.map(([link]) => link), '/dev/console']);

/** A /dev that is bound from elsewhere is left as it is, but for the devices the spec asks for. */
export function compileDevices(spec: OciSpec, facts: LaunchFacts, plan: PlanBuilder): void {
  const own = !(spec.mounts ?? []).some(({ destination, type, options }) => {
    const bind = type === 'bind' || options?.includes('bind') === true || options?.includes('rbind') === true;
    return bind && /^\/dev\/*$/.test(destination);
  });
  const wanted = new Map<string, OciDevice>();
  if (own) standardDevices.forEach((device) => wanted.set(device.path, device));
  (spec.linux.devices ?? []).forEach((device, index) => {
    checkDevice(device, `linux.devices[${index}]`);
    if (!reserved.has(device.path)) wanted.set(device.path, device);
  });
  for (const device of wanted.values()) plan.inner.push(deviceStep(device, facts, plan));
  if (own) for (const [link, target] of standardLinks) plan.inner.push({ op: 'symlink', link, target });
}

function checkDevice(device: OciDevice, field: string): void {
  if (!device.path.startsWith('/') || device.path.endsWith('/')) {
    throw invalid(`${field}.path`, `"${device.path}" is not an absolute path of a file`);
  }
  if (device.type !== 'p' && (device.major < 0 || device.minor < 0))
    throw invalid(field, 'needs a major and a minor number');
}

function deviceStep(device: OciDevice, facts: LaunchFacts, plan: PlanBuilder): InnerStep {
  const bind = facts.devices === 'bind' && device.type !== 'p';
  const slot = bind ? plan.slot() : -1;
  if (bind) {
    plan.outer.push({
      op: 'bind-source',
      slot,
      path: facts.deviceSources?.get(device.path) ?? device.path,
      name: device.path,
      recursive: false,
      attributes: { set: 0, clear: 0, propagation: 0, recursive: false },
      idmap: 'none',
    });
  }
  return {
    op: 'device',
    target: device.path,
    // `u` is an unbuffered character device to mknod(1); the kernel knows no difference.
    type: device.type === 'u' ? 'c' : device.type,
    major: device.type === 'p' ? 0 : device.major,
    minor: device.type === 'p' ? 0 : device.minor,
    mode: (device.fileMode ?? 0o666) & 0o7777,
    uid: device.uid ?? 0,
    gid: device.gid ?? 0,
    slot,
  };
}
