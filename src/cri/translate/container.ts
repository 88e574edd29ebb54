/** Containers: what CreateContainer is given. What the answers show is in container-status.ts. */
import type * as wire from '../../../api/cri/v1/generated/api.js';
import { invalid } from '../../kit/errors.js';
import type { ContainerFilter } from '../../runtime/facade.js';
import type { ContainerConfig, ContainerState, Device, EnvVar, Mount, MountPropagation } from '../../runtime/model.js';
import {
  absolutePath,
  choice,
  copyMap,
  given,
  line,
  name,
  nonEmpty,
  pathBelow,
  required,
  text,
  texts,
} from './fields.js';
import { imageSpec } from './image.js';
import { linuxResources } from './resources.js';
import { containerSecurity, idMappings } from './security.js';
import { signalName } from './signals.js';

export const propagations: readonly MountPropagation[] = ['private', 'host-to-container', 'bidirectional'];
const mountOptions = new Set(['noexec', 'nodev', 'nosuid']);

function mountSource(path: string, mount: wire.Mount): Pick<Mount, 'hostPath' | 'image' | 'imageSubPath'> {
  if (mount.image === undefined) {
    if (mount.imageSubPath !== '') throw invalid(`${path}.image_sub_path`, 'needs image');
    return {
      hostPath: absolutePath(`${path}.host_path`, nonEmpty(`${path}.host_path`, mount.hostPath)),
      imageSubPath: '',
    };
  }
  if (mount.hostPath !== '') throw invalid(`${path}.host_path`, 'excludes image');
  const image = imageSpec(`${path}.image`, mount.image);
  return { hostPath: '', image, imageSubPath: pathBelow(`${path}.image_sub_path`, mount.imageSubPath) };
}

function checkRecursiveReadOnly(
  path: string,
  mount: Pick<Mount, 'readonly' | 'propagation' | 'recursiveReadOnly'>,
): void {
  if (!mount.recursiveReadOnly) return;
  if (!mount.readonly) throw invalid(`${path}.recursive_read_only`, 'needs readonly');
  if (mount.propagation !== 'private') throw invalid(`${path}.recursive_read_only`, 'needs propagation PRIVATE');
}

function options(path: string, values: readonly string[]): readonly string[] {
  values.forEach((value, index) => {
    if (!mountOptions.has(value)) throw invalid(`${path}[${index}]`, `"${value}" is not one of noexec, nodev, nosuid`);
  });
  return [...values];
}

function mount(path: string, fields: wire.Mount): Mount {
  const source = mountSource(path, fields);
  const uidMappings = idMappings(`${path}.uidMappings`, fields.uidMappings);
  const gidMappings = idMappings(`${path}.gidMappings`, fields.gidMappings);
  if ((uidMappings.length === 0) !== (gidMappings.length === 0)) {
    throw invalid(path, 'uidMappings and gidMappings must be given together');
  }
  const checked: Mount = {
    containerPath: absolutePath(`${path}.container_path`, fields.containerPath),
    ...source,
    readonly: fields.readonly || source.image !== undefined,
    selinuxRelabel: fields.selinuxRelabel,
    propagation: choice(`${path}.propagation`, propagations, fields.propagation),
    uidMappings,
    gidMappings,
    recursiveReadOnly: fields.recursiveReadOnly,
    options: options(`${path}.mount_options`, fields.mountOptions),
  };
  checkRecursiveReadOnly(path, checked);
  return checked;
}

function envVar(path: string, entry: wire.KeyValue): EnvVar {
  const key = nonEmpty(`${path}.key`, entry.key);
  if (key.includes('=')) throw invalid(`${path}.key`, `"${key}" must not contain "="`);
  if (entry.value.includes(0)) throw invalid(`${path}.value`, `the value of ${key} must not contain a NUL byte`);
  return { key, value: entry.value };
}

function device(path: string, fields: wire.Device): Device {
  const hostPath = absolutePath(`${path}.host_path`, fields.hostPath);
  const permissions = fields.permissions === '' ? 'rwm' : fields.permissions;
  if (!/^[rwm]+$/.test(permissions)) throw invalid(`${path}.permissions`, `"${permissions}" is not made of r, w, m`);
  const containerPath = fields.containerPath === '' ? hostPath : fields.containerPath;
  return { containerPath: absolutePath(`${path}.container_path`, containerPath), hostPath, permissions };
}

function workingDir(path: string, value: string): string {
  return value === '' ? '' : absolutePath(path, value);
}

function process(
  path: string,
  config: wire.ContainerConfig,
): Pick<ContainerConfig, 'command' | 'args' | 'workingDir' | 'env'> {
  return {
    command: texts(`${path}.command`, config.command),
    args: texts(`${path}.args`, config.args),
    workingDir: workingDir(`${path}.working_dir`, config.workingDir),
    env: config.envs.map((entry, index) => envVar(`${path}.envs[${index}]`, entry)),
  };
}

function metadata(path: string, fields: wire.ContainerMetadata | undefined): ContainerConfig['metadata'] {
  const { name: given, attempt } = required(path, fields);
  return { name: name(`${path}.name`, given), attempt };
}

export function containerConfig(path: string, fields: wire.ContainerConfig | undefined): ContainerConfig {
  const config = required(path, fields);
  return given<ContainerConfig>({
    metadata: metadata(`${path}.metadata`, config.metadata),
    image: imageSpec(`${path}.image`, config.image),
    ...process(path, config),
    mounts: config.mounts.map((entry, index) => mount(`${path}.mounts[${index}]`, entry)),
    devices: config.devices.map((entry, index) => device(`${path}.devices[${index}]`, entry)),
    cdiDevices: config.CDIDevices.map((entry, index) => cdiName(`${path}.CDI_devices[${index}].name`, entry)),
    labels: copyMap(config.labels),
    annotations: copyMap(config.annotations),
    logPath: pathBelow(`${path}.log_path`, config.logPath),
    stdin: config.stdin,
    stdinOnce: config.stdinOnce,
    tty: config.tty,
    stopSignal: signalName(`${path}.stop_signal`, config.stopSignal),
    resources: linuxResources(`${path}.linux.resources`, config.linux?.resources),
    security: containerSecurity(`${path}.linux.security_context`, config.linux?.securityContext),
  });
}

const cdiName = (path: string, device: wire.CDIDevice): string => line(path, nonEmpty(path, device.name));

export const containerStates: readonly ContainerState[] = ['created', 'running', 'exited', 'unknown'];

const notEmpty = (value: string): string | undefined => (value === '' ? undefined : value);

export function containerFilter(filter: wire.ContainerFilter | undefined): ContainerFilter {
  if (filter === undefined) return {};
  return given<ContainerFilter>({
    ...identityFilter(filter),
    state: filter.state === undefined ? undefined : choice('filter.state.state', containerStates, filter.state.state),
  });
}

export function statsFilter(filter: wire.ContainerStatsFilter | undefined): ContainerFilter {
  return filter === undefined ? {} : identityFilter(filter);
}

function identityFilter(filter: wire.ContainerStatsFilter): ContainerFilter {
  const labels = filter.labelSelector;
  return given<ContainerFilter>({
    id: notEmpty(filter.id),
    sandboxId: notEmpty(filter.podSandboxId),
    labels: Object.keys(labels).length === 0 ? undefined : labels,
    state: undefined,
  });
}

/** ids match by prefix: an empty one would match everything. */
export const objectId = (path: string, value: string): string => text(path, nonEmpty(path, value));
