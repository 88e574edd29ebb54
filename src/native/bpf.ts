import { isErrno } from '../kit/errors.js';
import { AT, O } from './constants.js';
import { Descriptor } from './descriptor.js';
import type { Library } from './library.js';

/** Device policy of cgroup v2, by bpf(2). Needs CAP_BPF and CAP_NET_ADMIN or CAP_SYS_ADMIN. Throws SyscallError. */
export interface DevicePrograms {
  /** Makes `program` the only device program of the cgroup. One that was there decides until the new one does. */
  attach(cgroupDir: string, program: Uint8Array): void;
  /** Kernel ids of the attached device programs. */
  attached(cgroupDir: string): number[];
}

/** Numbers of linux/bpf.h. */
const command = { progLoad: 5, progAttach: 8, progDetach: 9, progGetFdById: 13, progQuery: 16 } as const;
const BPF_PROG_TYPE_CGROUP_DEVICE = 15;
const BPF_CGROUP_DEVICE = 6;
const BPF_F_ALLOW_MULTI = 2;
const BPF_F_REPLACE = 4;

/** The kernel lets a cgroup have no more programs than this. */
const maxAttached = 64;

/** Of asm/unistd.h; arm64 and every later architecture share the generic table. */
const bpfNumber = (arch: string): number => (arch === 'x64' ? 321 : 280);

export function deviceProgramCalls(library: Library, arch: string): DevicePrograms {
  const number = bpfNumber(arch);
  const bpf = (cmd: number, attr: Buffer, object: string): number =>
    library.raw('bpf', number, object, cmd, attr, attr.length);
  const openDir = (dir: string): Descriptor =>
    new Descriptor(library, library.now('openat', dir, AT.FDCWD, dir, O.RDONLY | O.DIRECTORY | O.CLOEXEC, 0));

  /** union bpf_attr of BPF_PROG_LOAD: type, count, instructions, licence, log, version and flags, name, … */
  function load(program: Uint8Array): Descriptor {
    const licence = Buffer.from('Apache-2.0\0');
    const attr = Buffer.alloc(72);
    attr.writeUInt32LE(BPF_PROG_TYPE_CGROUP_DEVICE, 0);
    attr.writeUInt32LE(program.length / 8, 4);
    attr.writeBigUInt64LE(library.address(program), 8);
    attr.writeBigUInt64LE(library.address(licence), 16);
    attr.write('berth_devices', 48, 'latin1');
    attr.writeUInt32LE(BPF_CGROUP_DEVICE, 68);
    return new Descriptor(library, bpf(command.progLoad, attr, 'device program'));
  }

  function query(cgroup: number, object: string): number[] {
    const ids = Buffer.alloc(4 * maxAttached);
    const attr = Buffer.alloc(32);
    attr.writeUInt32LE(cgroup, 0);
    attr.writeUInt32LE(BPF_CGROUP_DEVICE, 4);
    attr.writeBigUInt64LE(library.address(ids), 16);
    attr.writeUInt32LE(maxAttached, 24);
    bpf(command.progQuery, attr, object);
    return Array.from({ length: attr.readUInt32LE(24) }, (_, index) => ids.readUInt32LE(index * 4));
  }

  function byId(id: number): Descriptor {
    const attr = Buffer.alloc(12);
    attr.writeUInt32LE(id, 0);
    return new Descriptor(library, bpf(command.progGetFdById, attr, `program ${id}`));
  }

  function attachment(cgroup: number, program: number, flags: number, replaced = 0): Buffer {
    const attr = Buffer.alloc(20);
    [cgroup, program, BPF_CGROUP_DEVICE, flags, replaced].forEach((value, index) =>
      attr.writeUInt32LE(value, index * 4),
    );
    return attr;
  }

  /** In place (kernel 5.6). False when it cannot be: an old kernel, or a program attached in another mode. */
  function replace(cgroup: number, program: number, old: number, object: string): boolean {
    try {
      bpf(command.progAttach, attachment(cgroup, program, BPF_F_ALLOW_MULTI | BPF_F_REPLACE, old), object);
      return true;
    } catch (error) {
      if (isErrno(error, 'EINVAL') || isErrno(error, 'EPERM')) return false;
      throw error;
    }
  }

  function attach(dir: string, bytes: Uint8Array): void {
    using cgroup = openDir(dir);
    const [first, ...others] = query(cgroup.fd, dir);
    using program = load(bytes);
    const detach = (id: number): void => {
      using old = byId(id);
      bpf(command.progDetach, attachment(cgroup.fd, old.fd, 0), dir);
    };
    let replaced = false;
    if (first !== undefined) {
      using old = byId(first);
      replaced = replace(cgroup.fd, program.fd, old.fd, dir);
    }
    // With several programs attached all of them have to allow, so that nothing is allowed in between.
    if (!replaced) bpf(command.progAttach, attachment(cgroup.fd, program.fd, BPF_F_ALLOW_MULTI), dir);
    for (const id of replaced || first === undefined ? others : [first, ...others]) detach(id);
  }

  return {
    attach,
    attached(dir) {
      using cgroup = openDir(dir);
      return query(cgroup.fd, dir);
    },
  };
}
