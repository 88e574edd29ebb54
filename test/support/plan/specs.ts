import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LaunchFacts } from '../../../src/runtime/plan/facts.js';
import { defaultMaskedPaths, defaultMounts, defaultReadonlyPaths } from '../../../src/runtime/spec/defaults.js';
import type { OciLinux, OciProcess, OciSpec } from '../../../src/runtime/spec/oci.js';

/** Specs and facts for plans, in fixed form, so that tests say only what they are about. */

const busyboxPaths = ['/bin/busybox', '/usr/bin/busybox'];
const applets =
  'sh ls cat id ps sleep true false hostname ip echo env touch stat readlink tty head mkdir grep mount umount pwd ' +
  'wc sort cut tr kill ln rm chmod find test nc stty';

/** A directory with busybox and nothing else; remove it with `remove`. */
export interface TestRoot {
  readonly path: string;
  /** Host path of a path inside. */
  at(path: string): string;
  remove(): void;
}

export function testRoot(prefix = 'berth-root-'): TestRoot {
  const path = mkdtempSync(join(tmpdir(), prefix));
  chmodSync(path, 0o755);
  const busybox = busyboxPaths.find((each) => existsSync(each));
  if (busybox === undefined) throw new Error('busybox-static is not installed');
  for (const dir of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev', 'root']) mkdirSync(join(path, dir));
  copyFileSync(busybox, join(path, 'bin/busybox'));
  for (const applet of applets.split(' ')) symlinkSync('busybox', join(path, 'bin', applet));
  writeFileSync(join(path, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  return {
    path,
    at: (inside) => join(path, inside),
    remove: () => rmSync(path, { recursive: true, force: true }),
  };
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

export interface SpecChanges {
  readonly process?: Partial<OciProcess>;
  readonly linux?: Partial<OciLinux>;
  readonly spec?: Partial<OciSpec>;
}

const plainCapabilities = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_KILL',
  'CAP_NET_BIND_SERVICE',
  'CAP_SETUID',
  'CAP_SETGID',
];

/** A container with a shell command, all namespaces of its own and the usual mounts. */
export function testSpec(command: string | readonly string[], changes: SpecChanges = {}): OciSpec {
  const args = typeof command === 'string' ? ['/bin/sh', '-c', command] : command;
  return {
    ociVersion: '1.2.0',
    process: {
      user: { uid: 0, gid: 0 },
      args,
      env: [bytes('PATH=/bin'), bytes('HOME=/root')],
      cwd: '/',
      capabilities: { bounding: plainCapabilities, effective: plainCapabilities, permitted: plainCapabilities },
      noNewPrivileges: true,
      ...changes.process,
    },
    root: { path: '/rootfs' },
    hostname: 'box',
    mounts: [
      ...defaultMounts({ privileged: false, sys: 'fresh' }).filter(({ type }) => type !== 'cgroup'),
      { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: ['nosuid', 'nodev', 'noexec', 'mode=1777'] },
    ],
    ...changes.spec,
    linux: {
      namespaces: ['pid', 'network', 'ipc', 'uts', 'mount'].map((type) => ({ type: type as 'pid' })),
      maskedPaths: defaultMaskedPaths,
      readonlyPaths: defaultReadonlyPaths,
      ...changes.linux,
    },
  };
}

/** Facts of a v1 host without cgroups to join, and a directory as root. */
export function testFacts(root: TestRoot, changes: Partial<LaunchFacts> = {}): LaunchFacts {
  return {
    rootfs: { kind: 'directory', path: root.path },
    rootOn: root.path,
    namespaces: {},
    cgroup: { path: '/berth', join: { v1Procs: [] }, layout: { version: 'v1', v1Roots: new Map() } },
    kernel: { lastCapability: 40, capabilities: ~0n & 0x1ff_feff_ffffn, canRaiseLimits: false },
    ...changes,
  };
}
