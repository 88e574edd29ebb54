import { existsSync, readdirSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { release } from 'node:os';
import { dirname, join } from 'node:path';
import type { Config } from '../../config.js';
import { missing, note, ok, type Finding } from './finding.js';
import { checkRootless } from './rootless-checks.js';

/** Looks at the host; changes nothing. `rootless`: with the eyes of an ordinary user. */
export function checkHost(config: Config, rootless: boolean): readonly Finding[] {
  return [
    checkKernel(),
    ...(rootless ? checkRootless(config) : [checkRoot(), ...checkCapabilities()]),
    ...checkFilesystems(),
    ...(rootless ? [] : checkCgroups(config)),
    ...checkNamespaces(),
    checkSeccomp(),
    checkSecurityModule(),
    ...(rootless ? [] : checkNetwork(config)),
    ...checkDirectories(config),
    checkDisk(config),
  ];
}

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
};

/** 5.12 brought mount_setattr(2) with idmapped mounts, the newest thing everything leans on. */
function checkKernel(): Finding {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const name = `kernel ${release()}`;
  return major > 5 || (major === 5 && minor >= 12)
    ? ok(name, 'new mount API')
    : missing(name, '5.12 or newer is needed');
}

const checkRoot = (): Finding =>
  process.geteuid?.() === 0 ? ok('root', 'may manage pods') : missing('root', 'pods are managed by root');

/** Bits of capabilities(7) that making a pod needs, and what for. */
const wanted: readonly (readonly [bit: number, name: string, about: string, required: boolean])[] = [
  [21, 'CAP_SYS_ADMIN', 'mounts and namespaces', true],
  [12, 'CAP_NET_ADMIN', 'pod networks', true],
  [0, 'CAP_CHOWN', 'file owners in images', true],
  [1, 'CAP_DAC_OVERRIDE', 'reading and writing files of images', true],
  [5, 'CAP_KILL', 'stopping containers', true],
  [27, 'CAP_MKNOD', 'device files of containers', true],
  [24, 'CAP_SYS_RESOURCE', 'raising limits and lowering oom_score_adj; without it these are clamped', false],
  [31, 'CAP_SETFCAP', 'file capabilities in images', true],
];

function checkCapabilities(): Finding[] {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(read('/proc/self/status') ?? '')?.[1];
  if (effective === undefined) return [missing('capabilities', 'cannot be read from /proc/self/status')];
  const bits = BigInt(`0x${effective}`);
  return wanted.map(([bit, name, about, required]) => {
    if ((bits >> BigInt(bit)) & 1n) return ok(name, about);
    return required ? missing(name, about) : note(name, `not held: ${about}`);
  });
}

function checkFilesystems(): Finding[] {
  const known = new Set((read('/proc/filesystems') ?? '').split('\n').map((line) => line.split('\t')[1]));
  const overlay = known.has('overlay')
    ? ok('overlay', 'root file systems')
    : missing('overlay', 'root file systems; modprobe overlay');
  const mqueue = known.has('mqueue') ? ok('mqueue', '/dev/mqueue') : note('mqueue', 'no POSIX message queues in pods');
  return [overlay, mqueue];
}

function checkCgroups({ cgroup }: Config): Finding[] {
  const unified = existsSync('/sys/fs/cgroup/cgroup.controllers');
  const mode = unified ? 'cgroup v2' : 'cgroup v1';
  const found = unified ? v2Controllers() : v1Controllers();
  const wantedControllers = ['cpu', 'cpuset', 'memory', 'pids', ...(unified ? [] : ['devices', 'freezer'])];
  const lacking = wantedControllers.filter((name) => !found.has(name));
  const controllers =
    lacking.length === 0
      ? ok(mode, `controllers ${[...found].join(' ')}`)
      : missing(mode, `lacks ${lacking.join(', ')}`);
  const hugetlb = found.has('hugetlb')
    ? ok('hugetlb', 'huge page limits')
    : note('hugetlb', cgroup.tolerateMissingHugetlb ? 'huge page limits are ignored' : 'huge page limits are refused');
  return [controllers, hugetlb];
}

const v2Controllers = (): Set<string> => new Set((read('/sys/fs/cgroup/cgroup.controllers') ?? '').trim().split(' '));

function v1Controllers(): Set<string> {
  const lines = (read('/proc/self/mountinfo') ?? '').split('\n').filter((line) => / - cgroup /.test(line));
  return new Set(
    lines.flatMap(
      (line) =>
        line
          .split(' ')
          .at(-1)
          ?.split(',')
          .filter((name) => name !== 'rw') ?? [],
    ),
  );
}

function checkNamespaces(): Finding[] {
  const kinds = ['pid', 'net', 'ipc', 'uts', 'mnt', 'cgroup'];
  const lacking = kinds.filter((kind) => !existsSync(`/proc/self/ns/${kind}`));
  const users = Number(read('/proc/sys/user/max_user_namespaces') ?? '0');
  return [
    lacking.length === 0 ? ok('namespaces', kinds.join(' ')) : missing('namespaces', `lacks ${lacking.join(', ')}`),
    users > 0
      ? ok('user namespaces', `${users} allowed`)
      : note('user namespaces', 'none allowed: pods with one are refused'),
  ];
}

function checkSeccomp(): Finding {
  const actions = read('/proc/sys/kernel/seccomp/actions_avail');
  return actions === undefined ? missing('seccomp', 'system call filters') : ok('seccomp', actions.trim());
}

function checkSecurityModule(): Finding {
  if (read('/sys/module/apparmor/parameters/enabled')?.startsWith('Y') === true) return ok('AppArmor', 'enabled');
  if (existsSync('/sys/fs/selinux/enforce')) return ok('SELinux', 'enabled');
  return note('AppArmor, SELinux', 'neither is enabled');
}

function checkNetwork({ network }: Config): Finding[] {
  const confs = readNames(network.cniConfDir).filter((name) => /\.(conf|conflist|json)$/.test(name));
  const found: Finding[] = [];
  if (network.mode === 'cni' || confs.length > 0) found.push(...checkCni(network, confs));
  else
    found.push(
      ok('network', `no CNI configuration in ${network.cniConfDir}: the built-in bridge ${network.bridge} is used`),
    );
  const forwarding = read('/proc/sys/net/ipv4/ip_forward')?.trim() === '1';
  found.push(
    forwarding
      ? ok('ip_forward', 'pods reach other hosts')
      : note('ip_forward', 'is off; turned on with the first pod network'),
  );
  const netfilter = existsSync('/proc/net/netfilter') || existsSync('/proc/net/ip_tables_names');
  found.push(
    netfilter
      ? ok('netfilter', 'masquerade and host ports')
      : note('netfilter', 'not seen: no masquerade, no host ports'),
  );
  return found;
}

function checkCni(network: Config['network'], confs: readonly string[]): Finding[] {
  if (confs.length === 0) return [missing('CNI', `no configuration in ${network.cniConfDir}`)];
  const types = new Set(confs.slice(0, 1).flatMap((name) => pluginTypes(join(network.cniConfDir, name))));
  const lacking = [...types].filter((type) => !network.cniBinDirs.some((dir) => existsSync(join(dir, type))));
  const conf = ok('CNI', `${confs[0]} in ${network.cniConfDir}`);
  return lacking.length === 0
    ? [conf]
    : [conf, missing('CNI plugins', `${lacking.join(', ')} not found in ${network.cniBinDirs.join(', ')}`)];
}

function pluginTypes(path: string): string[] {
  try {
    const conf = JSON.parse(read(path) ?? '{}') as { type?: string; plugins?: readonly { type?: string }[] };
    return [conf, ...(conf.plugins ?? [])].map(({ type }) => type).filter((type) => type !== undefined);
  } catch {
    return [];
  }
}

function readNames(dir: string): string[] {
  try {
    return readdirSync(dir).sort();
  } catch {
    return [];
  }
}

function checkDirectories({ root, state }: Config): Finding[] {
  return [root, state].map((dir) => {
    const found = statSync(dir, { throwIfNoEntry: false });
    if (found === undefined) return ok(dir, 'made at the first start');
    const loose = (found.mode & 0o077) !== 0 || found.uid !== process.geteuid?.();
    return loose ? missing(dir, 'must be the agent’s own, with mode 0700') : ok(dir, 'mode 0700');
  });
}

function checkDisk({ root }: Config): Finding {
  let dir = root;
  while (!existsSync(dir)) dir = dirname(dir);
  const { bavail, blocks, ffree, files } = statfsSync(dir);
  const space = blocks === 0 ? 100 : Math.floor((100 * bavail) / blocks);
  const inodes = files === 0 ? 100 : Math.floor((100 * ffree) / files);
  const text = `${space}% of the space and ${inodes}% of the inodes are free`;
  return space < 10 || inodes < 5 ? note(`disk of ${root}`, text) : ok(`disk of ${root}`, text);
}
