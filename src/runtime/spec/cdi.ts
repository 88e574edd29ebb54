import { RuntimeError, invalid } from '../../kit/errors.js';
import { given, type AdjustedDevice, type AskedDevice, type SpecAdjustment } from './adjust.js';
import type { OciMount, OciUser } from './oci.js';

/** The Container Device Interface, 1.1.0, as far as Berth reads it. Field names are the specification's. */
export interface CdiSpec {
  readonly cdiVersion: string;
  readonly kind: string;
  readonly devices: readonly CdiDevice[];
  /** Made once for every container that has any of the devices. */
  readonly containerEdits: CdiEdits;
}

export interface CdiDevice {
  readonly name: string;
  readonly containerEdits: CdiEdits;
}

export interface CdiEdits {
  /** `NAME=value`. */
  readonly env: readonly string[];
  readonly deviceNodes: readonly CdiDeviceNode[];
  readonly netDevices: readonly { readonly hostInterfaceName: string; readonly name: string }[];
  readonly hooks: readonly { readonly hookName: string; readonly path: string }[];
  readonly mounts: readonly CdiMount[];
  readonly intelRdt?: { readonly closID: string };
  readonly additionalGids: readonly number[];
}

export interface CdiDeviceNode {
  readonly path: string;
  readonly hostPath?: string;
  readonly type?: AdjustedDevice['type'];
  readonly major?: number;
  readonly minor?: number;
  readonly fileMode?: number;
  /** Of the letters r, w, m; '' allows nothing, absent is `rwm`. */
  readonly permissions?: string;
  readonly uid?: number;
  readonly gid?: number;
}

export interface CdiMount {
  readonly hostPath: string;
  readonly containerPath: string;
  readonly type?: string;
  readonly options: readonly string[];
}

/** Edits that a container gets, and for which device. */
export interface DeviceEdits {
  /** Its qualified name. */
  readonly device: string;
  /** Where they are: `devices[0].containerEdits of /etc/cdi/vendor.json`. */
  readonly origin: string;
  readonly edits: CdiEdits;
}

/** What a field of a device's edits is called in errors. */
export const editField = ({ device, origin }: DeviceEdits, field: string): string =>
  `CDI device ${device}: ${field} in ${origin}`;

// ------------------------------------------------------------------------------------------------------------ names

/** Letters, digits and `_-.` between a letter and a letter or digit; lengths are the specification's. */
const kindPart = /^[a-z]([\w.-]*[a-z\d])?$/i;
const deviceName = /^[a-z\d]([\w.:-]*[a-z\d])?$/i;

/** What is wrong with `vendor.com/class`; undefined when nothing is. */
export function kindFault(kind: string): string | undefined {
  const [vendor = '', className = '', ...more] = kind.split('/');
  if (more.length > 0 || !kindPart.test(vendor) || !kindPart.test(className)) return `"${kind}" is not vendor/class`;
  if (vendor.length > 253) return 'the vendor is longer than 253 characters';
  return className.length > 63 ? 'the class is longer than 63 characters' : undefined;
}

/** What is wrong with a device's name within its kind; undefined when nothing is. */
export const deviceFault = (name: string): string | undefined =>
  deviceName.test(name) ? undefined : `"${name}" is no name of a device`;

/** The parts of `vendor.com/class=name`. Errors: invalid-argument with `field`. */
export function qualifiedName(name: string, field: string): { readonly kind: string; readonly device: string } {
  const [kind = '', device = '', ...more] = name.split('=');
  if (more.length > 0 || kindFault(kind) !== undefined || deviceFault(device) !== undefined) {
    throw invalid(field, `"${name}" is no qualified name of a CDI device, vendor.com/class=name`);
  }
  return { kind, device };
}

const annotationPrefix = 'cdi.k8s.io/';

/** What a container asks for: the field, then, once each, what older device plugins say in annotations. */
export function askedDevices(config: {
  readonly cdiDevices: readonly string[];
  readonly annotations: Readonly<Record<string, string>>;
}): readonly AskedDevice[] {
  const field = config.cdiDevices.map((name, index) => ({ name, field: `config.CDI_devices[${index}].name` }));
  const annotated = Object.entries(config.annotations)
    .filter(([key]) => key.startsWith(annotationPrefix))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([key, value]) => value.split(',').map((name) => ({ name, field: `config.annotations["${key}"]` })));
  return uniqueDevices([...field, ...annotated]);
}

/** The first that names a device stays. */
export const uniqueDevices = (asked: readonly AskedDevice[]): readonly AskedDevice[] =>
  asked.filter(({ name }, index) => asked.findIndex((other) => other.name === name) === index);

// ------------------------------------------------------------------------------------------------------------ edits

export interface CdiFacts {
  /** The devices' nodes, looked up on the host. */
  readonly nodes: readonly AdjustedDevice[];
  /** Mounts of all edits, their sources found. */
  readonly mounts: readonly CdiMount[];
  readonly user: OciUser;
  /** Whether the container is in a user namespace of the pod. */
  readonly mapped: boolean;
}

/** Refuses, by device and field, what a container cannot be given: without it the device would not do what it should. */
export function refuseUnsupported(from: DeviceEdits): void {
  const { hooks, intelRdt, netDevices } = from.edits;
  const refuse = (field: string, what: string): never => {
    throw new RuntimeError('unimplemented', `${editField(from, field)}: ${what} not offered by this release`);
  };
  const [hook] = hooks;
  if (hook !== undefined) refuse('hooks[0]', `OCI hooks (${hook.hookName} ${hook.path}) are`);
  if (intelRdt !== undefined) refuse('intelRdt', 'classes of service (resctrl) are');
  const [link] = netDevices;
  if (link !== undefined) refuse('netDevices[0]', `moving network devices (${link.hostInterfaceName}) is`);
}

/** What the edits come to, later ones over earlier ones. Pure: host facts are in `facts`. */
export function cdiAdjustment(all: readonly DeviceEdits[], facts: CdiFacts): SpecAdjustment {
  const env = all.flatMap(({ edits }) => edits.env);
  return {
    env: new Map(env.map((entry) => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)])),
    devices: new Map(facts.nodes.map((node) => [node.path, owned(node, facts.user)])),
    mounts: new Map(facts.mounts.map((mount) => [mount.containerPath, ociMount(mount, facts.mapped)])),
    // The specification: values of 0 are ignored.
    additionalGids: all.flatMap(({ edits }) => edits.additionalGids).filter((gid) => gid !== 0),
  };
}

/** A node without an owner is the container's user's. */
const owned = (node: AdjustedDevice, { uid, gid }: OciUser): AdjustedDevice => ({
  ...given({ uid: uid === 0 ? undefined : uid, gid: gid === 0 ? undefined : gid }),
  ...node,
});

export const isBind = ({ type, options }: Pick<CdiMount, 'type' | 'options'>): boolean =>
  type === undefined || type === 'bind' || type === 'rbind' || options.includes('bind') || options.includes('rbind');

/** What is bound into a user namespace shows its owners there, as volumes do. */
function ociMount(mount: CdiMount, mapped: boolean): OciMount {
  const { hostPath, containerPath, options } = mount;
  const idmap = options.includes('rbind') || mount.type === 'rbind' ? 'ridmap' : 'idmap';
  const missing = mapped && isBind(mount) && !options.includes('idmap') && !options.includes('ridmap');
  return {
    destination: containerPath,
    source: hostPath,
    type: isBind(mount) ? 'bind' : (mount.type ?? ''),
    options: missing ? [...options, idmap] : options,
  };
}
