import { existsSync, readFileSync } from 'node:fs';
import { isErrno } from '../kit/errors.js';
import { AT, O, RESOLVE, SYS } from './constants.js';
import type { Native } from './native.js';

/** A resource limit in force; `infinity` is 2^64 - 1 in the kernel. */
export interface ResourceLimit {
  readonly soft: bigint | 'infinity';
  readonly hard: bigint | 'infinity';
}

/** What this kernel and this process can do. Gathered once, at start. */
export interface KernelFacts {
  /** `6.1.0-44-amd64`. */
  readonly release: string;
  readonly major: number;
  readonly minor: number;
  /** Highest capability number the kernel knows. */
  readonly lastCapability: number;
  /** Bit sets of our own, bit N for capability number N. */
  readonly capabilities: { readonly effective: bigint; readonly permitted: bigint; readonly bounding: bigint };
  /** Raising hard limits and lowering oom_score_adj need it; containers get clamped values without it. */
  readonly canRaiseLimits: boolean;
  /** By the name of /proc/self/limits in lower case: `max open files`. */
  readonly limits: ReadonlyMap<string, ResourceLimit>;
  /** Of /proc/filesystems. A module not loaded yet is missing here. */
  readonly fileSystems: ReadonlySet<string>;
  /** Of /sys/kernel/security/lsm; empty when securityfs is not mounted. */
  readonly securityModules: readonly string[];
  readonly apparmor: boolean;
  readonly selinux: boolean;
  /** Overlay layers one by one (`lowerdir+`, 6.5), and by descriptor (6.13). */
  readonly overlayLowerAppend: boolean;
  readonly overlayLowerByDescriptor: boolean;
  /** Overlay over idmapped layers (5.19); by release, the file system below has its own say. */
  readonly overlayIdmapped: boolean;
  readonly openat2: boolean;
  readonly pidfd: boolean;
  /** A file `cgroup.kill` kills a whole v2 cgroup (5.14). */
  readonly cgroupKill: boolean;
  readonly userNamespaces: boolean;
  readonly timeNamespaces: boolean;
  readonly cgroupNamespaces: boolean;
  /** A `recursive read-only` mount attribute can be set (mount_setattr, 5.12). */
  readonly recursiveReadOnly: boolean;
}

const CAP_SYS_RESOURCE = 24n;

/** Field `name` of a /proc/PID/status text as a bit set; 0 when missing. */
export function capabilitySet(status: string, name: string): bigint {
  const match = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status);
  return BigInt(`0x${match?.[1] ?? '0'}`);
}

/** The table of /proc/PID/limits. */
export function parseLimits(text: string): Map<string, ResourceLimit> {
  const limits = new Map<string, ResourceLimit>();
  const value = (word: string): bigint | 'infinity' => (word === 'unlimited' ? 'infinity' : BigInt(word));
  for (const line of text.split('\n').slice(1)) {
    const match = /^(.+?)\s{2,}(unlimited|\d+)\s+(unlimited|\d+)/.exec(line);
    if (match === null) continue;
    limits.set((match[1] ?? '').toLowerCase(), { soft: value(match[2] ?? '0'), hard: value(match[3] ?? '0') });
  }
  return limits;
}

const parseFileSystems = (text: string): Set<string> =>
  new Set(text.split('\n').flatMap((line) => line.split('\t')[1] ?? []));

const readOr = (path: string, otherwise: string): string => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return otherwise;
  }
};

/** Whether the call is there; every errno but ENOSYS and the ones given means that it is. */
function supports(call: () => Disposable | void, ...refusals: readonly string[]): boolean {
  try {
    call()?.[Symbol.dispose]();
    return true;
  } catch (error) {
    return !['ENOSYS', 'EOPNOTSUPP', ...refusals].some((name) => isErrno(error, name));
  }
}

function overlayTakes(native: Native, how: 'string' | 'descriptor'): boolean {
  return supports(
    () => {
      using context = native.mounts.openFileSystem('overlay');
      if (how === 'string') return native.mounts.configure(context.fd, 'lowerdir+', '/');
      using layer = native.files.openAt(AT.FDCWD, '/', O.PATH | O.DIRECTORY);
      native.mounts.configureFd(context.fd, 'lowerdir+', layer.fd);
    },
    'EINVAL',
    'ENODEV',
    'EPERM',
  );
}

/** Asks the kernel, by trying where trying is harmless. Takes about a millisecond. */
export function gatherKernelFacts(native: Native): KernelFacts {
  const release = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
  const [major = 0, minor = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  const since = (wantedMajor: number, wantedMinor: number): boolean =>
    major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
  const status = readFileSync('/proc/self/status', 'latin1');
  const effective = capabilitySet(status, 'CapEff');
  const securityModules = readOr('/sys/kernel/security/lsm', '').trim().split(',').filter(Boolean);
  return {
    release,
    major,
    minor,
    lastCapability: Number(readOr('/proc/sys/kernel/cap_last_cap', '40')),
    capabilities: {
      effective,
      permitted: capabilitySet(status, 'CapPrm'),
      bounding: capabilitySet(status, 'CapBnd'),
    },
    canRaiseLimits: (effective & (1n << CAP_SYS_RESOURCE)) !== 0n,
    limits: parseLimits(readFileSync('/proc/self/limits', 'latin1')),
    fileSystems: parseFileSystems(readOr('/proc/filesystems', '')),
    securityModules,
    apparmor: readOr('/sys/module/apparmor/parameters/enabled', 'N').trim() === 'Y',
    selinux: existsSync('/sys/fs/selinux/enforce'),
    overlayLowerAppend: overlayTakes(native, 'string'),
    overlayLowerByDescriptor: overlayTakes(native, 'descriptor'),
    overlayIdmapped: since(5, 19),
    openat2: supports(() => native.files.openAt2(AT.FDCWD, '/', { flags: O.PATH, resolve: RESOLVE.NO_SYMLINKS })),
    pidfd: supports(() => native.processes.open(process.pid)),
    cgroupKill: since(5, 14),
    userNamespaces:
      existsSync('/proc/self/ns/user') && readOr('/proc/sys/user/max_user_namespaces', '1').trim() !== '0',
    timeNamespaces: existsSync('/proc/self/ns/time'),
    cgroupNamespaces: existsSync('/proc/self/ns/cgroup'),
    recursiveReadOnly: supports(
      () => void native.library.raw('mount_setattr', SYS.mount_setattr, '', -1, '', 0, null, 0),
    ),
  };
}
