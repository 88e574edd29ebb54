import type { InnerStep, OuterStep } from './plan.js';
import * as at from './wire-codec.js';
import { stepFlags } from './wire-codec.js';

/** Every step's number in the wire format and where its fields lie; the counterpart of `rules` in plan.c. */
export type StepTable<Step extends { readonly op: string }> = {
  readonly [Op in Step['op']]: {
    readonly code: number;
    readonly fields: {
      readonly [Field in Exclude<keyof Extract<Step, { op: Op }>, 'op'>]-?: at.Codec<Extract<Step, { op: Op }>[Field]>;
    };
  };
};

const step = <Fields>(code: number, fields: Fields): { readonly code: number; readonly fields: Fields } => ({
  code,
  fields,
});

export const outerTable: StepTable<OuterStep> = {
  overlay: step(1, {
    slot: at.slot,
    lower: at.texts(0),
    upper: at.text(1),
    work: at.text(2),
    options: at.options(3),
    idmap: at.choice(0, ['none', 'pod'] as const),
  }),
  'bind-source': step(2, {
    slot: at.slot,
    path: at.text(0),
    name: at.text(1),
    recursive: at.flag(stepFlags.recursive),
    attributes: at.attributes(stepFlags.deepAttributes),
    idmap: at.bindIdmap,
    idmapRecursive: at.optionalFlag(stepFlags.deepIdmap),
    create: at.optionalFlag(stepFlags.create),
  }),
  'fs-source': step(3, {
    slot: at.slot,
    fstype: at.text(0),
    source: at.text(1),
    options: at.options(3),
    attributes: at.number(0),
  }),
  'hold-mount': step(4, { slot: at.slot, name: at.text(0) }),
  'held-source': step(5, { slot: at.slot, name: at.text(0), attributes: at.attributes(stepFlags.recursive) }),
  open: step(6, { slot: at.slot, path: at.text(0), flags: at.number(0) }),
  enter: step(7, { kind: at.kind(0), source: at.namespaceSource }),
  clone: step(8, {
    create: at.kindSet(0),
    uidMap: at.idMap(0),
    gidMap: at.idMap(1),
    cgroupDir: at.text(2),
    cgroupProcs: at.texts(3),
  }),
  'hold-namespaces': step(9, { kinds: at.kindSet(0) }),
  'pin-namespace': step(10, { kind: at.kind(0), path: at.text(0) }),
  'image-source': step(11, {
    slot: at.slot,
    lower: at.texts(0),
    subPath: at.text(1),
    name: at.text(2),
    options: at.options(3),
    attributes: at.attributes(stepFlags.recursive),
    idmap: at.choice(3, ['none', 'pod'] as const),
  }),
  'lock-source': step(12, { slot: at.slot, name: at.text(0), attributes: at.attributes(stepFlags.recursive) }),
};

export const innerTable: StepTable<InnerStep> = {
  propagation: step(32, { flags: at.number(0) }),
  'attach-root': step(33, { slot: at.slot, on: at.text(0), propagation: at.number(0) }),
  attach: step(34, {
    slot: at.slot,
    target: at.text(0),
    kind: at.choice(0, ['auto', 'dir', 'file'] as const),
    copyUp: at.optionalFlag(stepFlags.copyUp),
  }),
  mount: step(35, {
    fstype: at.text(0),
    source: at.text(1),
    target: at.text(2),
    options: at.options(3),
    attributes: at.number(0),
    propagation: at.number(1),
    copyUp: at.flag(stepFlags.copyUp),
  }),
  'bind-inside': step(36, {
    source: at.text(0),
    target: at.text(1),
    attributes: at.attributes(stepFlags.deepAttributes),
  }),
  'set-attributes': step(37, { target: at.text(0), attributes: at.attributes(stepFlags.recursive) }),
  mkdir: step(38, { target: at.text(0), mode: at.number(0) }),
  symlink: step(39, { link: at.text(0), target: at.text(1) }),
  device: step(40, {
    target: at.text(0),
    type: at.choice(0, ['p', 'c', 'b'] as const, 12n),
    mode: at.bits(0, 0o7777n),
    major: at.number(1),
    minor: at.number(2),
    uid: at.number(3),
    gid: at.number(4),
    slot: at.slot,
  }),
  mask: step(41, { target: at.text(0) }),
  'readonly-path': step(42, { target: at.text(0) }),
  pivot: step(43, {}),
  'root-readonly': step(44, {}),
  hostname: step(45, { name: at.text(0) }),
  domainname: step(46, { name: at.text(0) }),
  sysctl: step(47, { name: at.text(0), value: at.text(1) }),
  loopback: step(48, {}),
  rlimit: step(49, {
    resource: at.number(0),
    soft: at.word(1),
    hard: at.word(2),
    clamp: at.optionalFlag(stepFlags.clamp),
  }),
  'oom-score': step(50, { value: at.signed(0), clamp: at.flag(stepFlags.clamp) }),
  umask: step(51, { mask: at.number(0) }),
  'session-keyring': step(52, { name: at.text(0) }),
  session: step(53, { terminal: at.flag(stepFlags.terminal), console: at.flag(stepFlags.console) }),
  'chown-stdio': step(54, { uid: at.number(0), gid: at.number(1), outside: at.optionalNumber(2) }),
  user: step(55, { uid: at.number(0), gid: at.number(1), groups: at.numbers(0) }),
  capabilities: step(56, {
    bounding: at.word(0),
    permitted: at.word(1),
    effective: at.word(2),
    inheritable: at.word(3),
    ambient: at.word(4),
  }),
  'no-new-privileges': step(57, {}),
  cwd: step(58, { path: at.text(0), create: at.flag(stepFlags.create) }),
  apparmor: step(59, { profile: at.text(0) }),
  selinux: step(60, { label: at.text(0) }),
  seccomp: step(61, { program: at.bytes(0), flags: at.number(0) }),
  'unshare-cgroup': step(62, {}),
  'enter-mount': step(63, { source: enterMountSource() }),
  exec: step(64, { args: at.texts(0), env: at.byteStrings(1) }),
  pause: step(65, {}),
  hold: step(66, {}),
};

/** Word 0 says the kind, as it does for `enter`. */
function enterMountSource(): typeof at.namespaceSource {
  return {
    put(r, source) {
      at.kind(0).put(r, 'mnt');
      at.namespaceSource.put(r, source);
    },
    get: (r) => at.namespaceSource.get(r),
  };
}
