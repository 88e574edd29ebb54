import { invalid } from '../../kit/errors.js';
import type { CapabilityChanges } from '../model.js';

/** Names of all capabilities, in the order of their numbers (linux/capability.h; 40 came with Linux 5.9). */
export const capabilityNames: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_DAC_READ_SEARCH',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETPCAP',
  'CAP_LINUX_IMMUTABLE',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_BROADCAST',
  'CAP_NET_ADMIN',
  'CAP_NET_RAW',
  'CAP_IPC_LOCK',
  'CAP_IPC_OWNER',
  'CAP_SYS_MODULE',
  'CAP_SYS_RAWIO',
  'CAP_SYS_CHROOT',
  'CAP_SYS_PTRACE',
  'CAP_SYS_PACCT',
  'CAP_SYS_ADMIN',
  'CAP_SYS_BOOT',
  'CAP_SYS_NICE',
  'CAP_SYS_RESOURCE',
  'CAP_SYS_TIME',
  'CAP_SYS_TTY_CONFIG',
  'CAP_MKNOD',
  'CAP_LEASE',
  'CAP_AUDIT_WRITE',
  'CAP_AUDIT_CONTROL',
  'CAP_SETFCAP',
  'CAP_MAC_OVERRIDE',
  'CAP_MAC_ADMIN',
  'CAP_SYSLOG',
  'CAP_WAKE_ALARM',
  'CAP_BLOCK_SUSPEND',
  'CAP_AUDIT_READ',
  'CAP_PERFMON',
  'CAP_BPF',
  'CAP_CHECKPOINT_RESTORE',
];

const numbers = new Map(capabilityNames.map((name, number) => [name, BigInt(number)]));

/** What a container gets when its pod says nothing else. */
export const defaultContainerCapabilities: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
];

/** The five sets of a process as capset(2) and prctl(2) take them; bit N is capability number N. */
export interface CapabilitySets {
  readonly bounding: bigint;
  readonly permitted: bigint;
  readonly effective: bigint;
  readonly inheritable: bigint;
  readonly ambient: bigint;
}

/** Every capability up to the kernel's /proc/sys/kernel/cap_last_cap. */
export const allCapabilities = (lastCapability: number): bigint => (1n << BigInt(lastCapability + 1)) - 1n;

/**
 * The mask of the names, less those the kernel does not have. `cap_net_admin` and `NET_ADMIN` are the same name. A name
 * no kernel has is `invalid-argument` at `${field}[index]`.
 */
export function capabilityMask(names: readonly string[], lastCapability: number, field: string): bigint {
  const mask = names.reduce((bits, name, index) => bits | (1n << numberOf(name, `${field}[${index}]`)), 0n);
  return mask & allCapabilities(lastCapability);
}

function numberOf(name: string, field: string): bigint {
  const upper = name.toUpperCase();
  const number = numbers.get(upper.startsWith('CAP_') ? upper : `CAP_${upper}`);
  if (number === undefined) throw invalid(field, `"${name}" is no capability`);
  return number;
}

export const capabilitiesOf = (mask: bigint): string[] =>
  capabilityNames.filter((_, number) => (mask & (1n << BigInt(number))) !== 0n);

/**
 * The sets of a container's process. `ALL` is handled first, so that "drop ALL, add X" leaves X and "add ALL, drop X"
 * everything but X (CRI, Capability). Inheritable holds the ambient ones only, which the kernel demands of them; more
 * would outlive a change of user (CVE-2022-24769).
 */
export function applyChanges(
  defaults: readonly string[],
  changes: CapabilityChanges,
  privileged: boolean,
  lastCapability: number,
  field = 'capabilities',
): CapabilitySets {
  const every = allCapabilities(lastCapability);
  const masks = (names: readonly string[], name: string): { all: boolean; mask: bigint } => ({
    all: names.includes('ALL'),
    mask: capabilityMask(
      names.filter((item) => item !== 'ALL'),
      lastCapability,
      `${field}.${name}`,
    ),
  });
  const add = masks(changes.add, 'add_capabilities');
  const drop = masks(changes.drop, 'drop_capabilities');
  const ambient = masks(changes.addAmbient, 'add_ambient_capabilities');
  if (privileged) return { bounding: every, permitted: every, effective: every, inheritable: 0n, ambient: 0n };
  const start = drop.all ? 0n : add.all ? every : capabilityMask(defaults, lastCapability, 'defaults');
  const raised = ambient.all ? every : ambient.mask;
  const bounding = ((start | add.mask) & ~drop.mask) | raised;
  return { bounding, permitted: bounding, effective: bounding, inheritable: raised, ambient: raised };
}
