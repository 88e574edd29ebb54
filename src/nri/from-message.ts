import {
  Field,
  IoPriorityClass,
  type CdiDevice,
  type ContainerAdjustment,
  type LinuxDevice,
  type LinuxNamespace,
  type LinuxResources,
  type LinuxSeccomp,
  type Mount,
} from '../../api/nri/v1alpha1/generated/api.js';
import { RuntimeError, invalid } from '../kit/errors.js';
import type * as model from '../runtime/model.js';
import {
  given,
  type AdjustableNamespace,
  type AskedDevice,
  type Changes,
  type SpecAdjustment,
} from '../runtime/spec/adjust.js';
import type { OciDevice, OciDeviceRule, OciMount, OciNamespace } from '../runtime/spec/oci.js';

/** Says which plugin wanted a field. */
export type OwnerOf = (field: Field, key?: string) => string;

/**
 * What plugins want, in the runtime's terms. What the runtime has no means for is refused by name and with the plugin's:
 * an adjustment that silently does nothing would be worse than none.
 */
export function adjustmentOf(adjust: ContainerAdjustment, owner: OwnerOf): SpecAdjustment {
  refuseUnsupported(adjust, owner);
  const { linux } = adjust;
  const resources = linux?.resources === undefined ? {} : resourcesOf(linux.resources, owner);
  const oomScoreAdj = numberOf(linux?.oomScoreAdj, 'linux.oom_score_adj');
  const namespaces = (linux?.namespaces ?? []).map((namespace) => namespaceOf(namespace, owner));
  return {
    annotations: changes(Object.entries(adjust.annotations), (value) => value),
    mounts: changes(
      adjust.mounts.map((mount) => [mount.destination, mount]),
      mountOf,
    ),
    env: changes(
      adjust.env.map(({ key, value }) => [key, value]),
      (value) => value,
    ),
    ...(adjust.args.length === 0 ? {} : { args: adjust.args }),
    devices: changes(
      (linux?.devices ?? []).map((device) => [device.path, device]),
      deviceOf,
    ),
    ...(adjust.cdiDevices.length === 0 ? {} : { cdiDevices: adjust.cdiDevices.map(askedOf(owner)) }),
    deviceRules: (linux?.resources?.devices ?? []).map(ruleOf),
    rlimits: adjust.rlimits,
    sysctls: changes(Object.entries(linux?.sysctl ?? {}), (value) => value),
    namespaces: new Map(namespaces),
    ...(linux?.seccompPolicy === undefined ? {} : { seccomp: seccompOf(linux.seccompPolicy) }),
    ...(linux === undefined || linux.cgroupsPath === '' ? {} : { cgroupsPath: linux.cgroupsPath }),
    resources: { ...resources, ...(oomScoreAdj === undefined ? {} : { oomScoreAdj }) },
  };
}

const askedOf =
  (owner: OwnerOf) =>
  ({ name }: CdiDevice): AskedDevice => ({ name, field: `CDI devices of plugin ${owner(Field.CDI_DEVICES, name)}` });

/** A '-' before the key takes away. */
const changes = <T, U>(entries: readonly (readonly [string, T])[], value: (given: T) => U): Changes<U> =>
  new Map(entries.map(([key, given]) => (key.startsWith('-') ? [key.slice(1), undefined] : [key, value(given)])));

function refuse(plugin: string, what: string): never {
  throw new RuntimeError('unimplemented', `plugin ${plugin} set ${what}, which this runtime does not offer`);
}

function refuseUnsupported(adjust: ContainerAdjustment, owner: OwnerOf): void {
  const { linux, hooks } = adjust;
  const stages = Object.entries(hooks ?? {}).filter(([, list]) => list.length > 0);
  const unsupported: readonly (readonly [boolean, Field, string])[] = [
    [stages.length > 0, Field.OCI_HOOKS, `OCI hooks (${stages.map(([stage]) => stage).join(', ')})`],
    [
      linux?.ioPriority !== undefined && linux.ioPriority.class !== IoPriorityClass.IOPRIO_CLASS_NONE,
      Field.IO_PRIORITY,
      'an I/O priority',
    ],
    [linux?.scheduler !== undefined, Field.LINUX_SCHEDULER, 'a scheduling policy'],
    [linux?.memoryPolicy !== undefined, Field.MEMORY_POLICY, 'a NUMA memory policy'],
    [linux?.rdt?.closId !== undefined, Field.RDT_CLOS_ID, 'an RDT class of service'],
    [linux?.rdt?.schemata !== undefined, Field.RDT_SCHEMATA, 'RDT schemata'],
    [linux?.rdt?.enableMonitoring?.value === true, Field.RDT_ENABLE_MONITORING, 'RDT monitoring'],
  ];
  for (const [found, field, what] of unsupported) if (found) refuse(owner(field), what);
  const netDevice = Object.keys(linux?.netDevices ?? {}).find((name) => !name.startsWith('-'));
  if (netDevice !== undefined) refuse(owner(Field.LINUX_NET_DEVICES, netDevice), `the network device ${netDevice}`);
}

function mountOf({ destination, type, source, options }: Mount): OciMount {
  if (!destination.startsWith('/')) throw invalid('mounts.destination', `"${destination}" is not an absolute path`);
  return { destination, ...(type === '' ? {} : { type }), ...(source === '' ? {} : { source }), options };
}

const deviceTypes: ReadonlySet<string> = new Set<OciDevice['type']>(['c', 'b', 'u', 'p']);

function deviceOf({ path, type, major, minor, fileMode, uid, gid }: LinuxDevice): OciDevice {
  if (!deviceTypes.has(type)) throw invalid(`linux.devices["${path}"].type`, `"${type}" is no type of device`);
  return {
    path,
    type: type as OciDevice['type'],
    major: Number(major),
    minor: Number(minor),
    ...(fileMode === undefined ? {} : { fileMode: fileMode.value }),
    ...(uid === undefined ? {} : { uid: uid.value }),
    ...(gid === undefined ? {} : { gid: gid.value }),
  };
}

function ruleOf(rule: LinuxResources['devices'][number]): OciDeviceRule {
  const { allow, type, major, minor, access } = rule;
  if (!/^[abc]?$/.test(type)) throw invalid('linux.resources.devices.type', `"${type}" is no type of device`);
  return {
    allow,
    type: type === '' ? 'a' : (type as 'a' | 'b' | 'c'),
    ...(major === undefined ? {} : { major: Number(major.value) }),
    ...(minor === undefined ? {} : { minor: Number(minor.value) }),
    access: access === '' ? 'rwm' : access,
  };
}

const adjustable: ReadonlySet<string> = new Set<AdjustableNamespace>(['pid', 'network', 'ipc', 'uts', 'cgroup']);

function namespaceOf(
  { type, path }: LinuxNamespace,
  owner: OwnerOf,
): readonly [AdjustableNamespace, OciNamespace | undefined] {
  const bare = type.startsWith('-') ? type.slice(1) : type;
  if (!adjustable.has(bare)) refuse(owner(Field.NAMESPACE, bare), `the ${bare} namespace`);
  const name = bare as AdjustableNamespace;
  if (bare !== type) return [name, undefined];
  return [name, { type: name, ...(path === '' ? {} : { path }) }];
}

/** An OCI `linux.seccomp` object. */
function seccompOf(policy: LinuxSeccomp): unknown {
  return {
    defaultAction: policy.defaultAction,
    ...(policy.defaultErrno === undefined ? {} : { defaultErrnoRet: policy.defaultErrno.value }),
    architectures: policy.architectures,
    flags: policy.flags,
    ...(policy.listenerPath === '' ? {} : { listenerPath: policy.listenerPath }),
    ...(policy.listenerMetadata === '' ? {} : { listenerMetadata: policy.listenerMetadata }),
    syscalls: policy.syscalls.map(({ names, action, errnoRet, args }) => ({
      names,
      action,
      ...(errnoRet === undefined ? {} : { errnoRet: errnoRet.value }),
      args: args.map(({ index, value, valueTwo, op }) => ({ index, value, valueTwo, op })),
    })),
  };
}

// --------------------------------------------------------------------------------------------------------- resources

/** Resources in the runtime's terms; what it cannot limit is refused. */
export function resourcesOf(resources: LinuxResources, owner: OwnerOf): model.LinuxResources {
  refuseUnsupportedResources(resources, owner);
  const { memory, cpu, hugepageLimits, unified, pids } = resources;
  return given({
    memoryLimit: numberOf(memory?.limit, 'linux.resources.memory.limit'),
    memorySwapLimit: numberOf(memory?.swap, 'linux.resources.memory.swap'),
    cpuShares: numberOf(cpu?.shares, 'linux.resources.cpu.shares'),
    cpuQuota: numberOf(cpu?.quota, 'linux.resources.cpu.quota'),
    cpuPeriod: numberOf(cpu?.period, 'linux.resources.cpu.period'),
    cpusetCpus: cpu?.cpus === '' ? undefined : cpu?.cpus,
    cpusetMems: cpu?.mems === '' ? undefined : cpu?.mems,
    hugepageLimits:
      hugepageLimits.length === 0
        ? undefined
        : hugepageLimits.map(({ pageSize, limit }) => ({ pageSize, limitBytes: Number(limit) })),
    unified: Object.keys(unified).length === 0 ? undefined : unified,
    pidsLimit: pids === undefined ? undefined : Number(pids.limit),
  });
}

function refuseUnsupportedResources({ memory, cpu, blockioClass, rdtClass }: LinuxResources, owner: OwnerOf): void {
  const unsupported: readonly (readonly [unknown, Field, string])[] = [
    [memory?.reservation, Field.MEM_RESERVATION, 'a memory reservation'],
    [memory?.kernel, Field.MEM_KERNEL_LIMIT, 'a kernel memory limit'],
    [memory?.kernelTcp, Field.MEM_TCP_LIMIT, 'a TCP buffer limit'],
    [memory?.swappiness, Field.MEM_SWAPPINESS, 'swappiness'],
    [memory?.disableOomKiller?.value === true || undefined, Field.MEM_DISABLE_OOM_KILLER, 'no OOM killer'],
    [cpu?.realtimeRuntime, Field.CPU_REALTIME_RUNTIME, 'realtime CPU time'],
    [cpu?.realtimePeriod, Field.CPU_REALTIME_PERIOD, 'a realtime CPU period'],
    [blockioClass?.value || undefined, Field.BLOCKIO_CLASS, `the block I/O class ${blockioClass?.value}`],
    [rdtClass?.value || undefined, Field.RDT_CLASS, `the RDT class ${rdtClass?.value}`],
  ];
  for (const [value, field, what] of unsupported) if (value !== undefined) refuse(owner(field), what);
}

function numberOf(wrapped: { readonly value: bigint } | undefined, field: string): number | undefined {
  if (wrapped === undefined) return undefined;
  const value = Number(wrapped.value);
  if (Number.isSafeInteger(value)) return value;
  throw invalid(field, `${wrapped.value} is out of range`);
}
