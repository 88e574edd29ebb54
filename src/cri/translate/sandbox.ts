/** Pod sandboxes: what RunPodSandbox is given, and what the answers show. */
import { isIP } from 'node:net';
import type * as wire from '../../../api/cri/v1/generated/api.js';
import { invalid } from '../../kit/errors.js';
import type { SandboxFilter, SandboxView } from '../../runtime/facade.js';
import type {
  DnsConfig,
  IdMapping,
  LinuxResources,
  NamespaceOptions,
  PodMetadata,
  PodSandboxConfig,
  PortMapping,
  SandboxState,
  StringMap,
} from '../../runtime/model.js';
import { absolutePath, choice, climbs, copyMap, given, line, name, required, text, within, word } from './fields.js';
import { linuxResources } from './resources.js';
import { namespaceModes, sandboxSecurity } from './security.js';

// --------------------------------------------------------------------------------------------------- wire to domain

const protocols: readonly PortMapping['protocol'][] = ['tcp', 'udp', 'sctp'];
const longestHostname = 64;

function metadata(path: string, given: wire.PodSandboxMetadata | undefined): PodMetadata {
  const fields = required(path, given);
  return {
    name: name(`${path}.name`, fields.name),
    uid: name(`${path}.uid`, fields.uid),
    namespace: name(`${path}.namespace`, fields.namespace),
    attempt: fields.attempt,
  };
}

function hostname(path: string, value: string): string {
  if (value === '') return '';
  if (value.length > longestHostname) throw invalid(path, `is longer than ${longestHostname} characters`);
  if (!/^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$/i.test(value)) throw invalid(path, `"${value}" is not a hostname`);
  return value;
}

function logDirectory(path: string, value: string): string {
  if (value === '') return '';
  if (climbs(value)) throw invalid(path, `"${value}" must not contain ".."`);
  return line(path, absolutePath(path, value));
}

const words = (path: string, values: readonly string[]): readonly string[] =>
  values.map((value, index) => word(`${path}[${index}]`, value));

/** An empty configuration is what the kubelet sends for "the node's own", as a missing one. */
function dnsConfig(path: string, dns: wire.DNSConfig | undefined): DnsConfig | undefined {
  if (dns === undefined) return undefined;
  if (dns.servers.length + dns.searches.length + dns.options.length === 0) return undefined;
  return {
    servers: words(`${path}.servers`, dns.servers),
    searches: words(`${path}.searches`, dns.searches),
    options: words(`${path}.options`, dns.options),
  };
}

const highestPort = 65535;

function portMapping(path: string, mapping: wire.PortMapping): PortMapping {
  if (mapping.hostIp !== '' && isIP(mapping.hostIp) === 0) {
    throw invalid(`${path}.host_ip`, `"${mapping.hostIp}" is not an IP address`);
  }
  const hostPort = within(`${path}.host_port`, mapping.hostPort, 0, highestPort);
  return given<PortMapping>({
    protocol: choice(`${path}.protocol`, protocols, mapping.protocol),
    containerPort: within(`${path}.container_port`, mapping.containerPort, hostPort === 0 ? 0 : 1, highestPort),
    hostPort,
    hostIp: mapping.hostIp === '' ? undefined : mapping.hostIp,
  });
}

/** A bare systemd slice is kept as it is; everything else is taken from the root of the hierarchy. */
function cgroupParent(path: string, value: string): string {
  if (climbs(value)) throw invalid(path, `"${value}" must not contain ".."`);
  line(path, value);
  if (value === '' || value.startsWith('/') || value.endsWith('.slice')) return value;
  return `/${value}`;
}

function sysctls(path: string, values: StringMap): StringMap {
  for (const [key, value] of Object.entries(values)) {
    if (!/^[\w-]+([./][\w-]+)+$/.test(key)) throw invalid(`${path}["${key}"]`, 'is not the name of a sysctl');
    text(`${path}["${key}"]`, value);
  }
  return copyMap(values);
}

const optionalResources = (
  path: string,
  resources: wire.LinuxContainerResources | undefined,
): LinuxResources | undefined => (resources === undefined ? undefined : linuxResources(path, resources));

/** `path` is the field of the request that holds the configuration. */
export function sandboxConfig(path: string, config: wire.PodSandboxConfig | undefined): PodSandboxConfig {
  const fields = required(path, config);
  const linux = fields.linux;
  const linuxPath = `${path}.linux`;
  return given<PodSandboxConfig>({
    metadata: metadata(`${path}.metadata`, fields.metadata),
    hostname: hostname(`${path}.hostname`, fields.hostname),
    logDirectory: logDirectory(`${path}.log_directory`, fields.logDirectory),
    dns: dnsConfig(`${path}.dns_config`, fields.dnsConfig),
    portMappings: fields.portMappings.map((mapping, index) => portMapping(`${path}.port_mappings[${index}]`, mapping)),
    labels: copyMap(fields.labels),
    annotations: copyMap(fields.annotations),
    cgroupParent: cgroupParent(`${linuxPath}.cgroup_parent`, linux?.cgroupParent ?? ''),
    sysctls: sysctls(`${linuxPath}.sysctls`, linux?.sysctls ?? {}),
    security: sandboxSecurity(`${linuxPath}.security_context`, linux?.securityContext),
    overhead: optionalResources(`${linuxPath}.overhead`, linux?.overhead),
    resources: optionalResources(`${linuxPath}.resources`, linux?.resources),
  });
}

const states: readonly SandboxState[] = ['ready', 'not-ready'];

export function sandboxFilter(filter: wire.PodSandboxFilter | undefined): SandboxFilter {
  if (filter === undefined) return {};
  const labels = filter.labelSelector;
  return given<SandboxFilter>({
    id: filter.id === '' ? undefined : filter.id,
    state: filter.state === undefined ? undefined : choice('filter.state.state', states, filter.state.state),
    labels: Object.keys(labels).length === 0 ? undefined : labels,
  });
}

// --------------------------------------------------------------------------------------------------- domain to wire

export const wireMapping = (mapping: IdMapping): wire.IDMapping => ({
  hostId: mapping.hostId,
  containerId: mapping.containerId,
  length: mapping.size,
});

const wireMode = (mode: NamespaceOptions['pid']): wire.NamespaceMode =>
  namespaceModes.indexOf(mode) as wire.NamespaceMode;

export function wireNamespaces(options: NamespaceOptions): wire.NamespaceOption {
  const userns = options.userns;
  return {
    network: wireMode(options.network),
    pid: wireMode(options.pid),
    ipc: wireMode(options.ipc),
    targetId: options.targetId ?? '',
    usernsOptions: userns && {
      mode: wireMode(userns.mode),
      uids: userns.uids.map(wireMapping),
      gids: userns.gids.map(wireMapping),
    },
  };
}

const wireState = (view: SandboxView): wire.PodSandboxState => states.indexOf(view.state) as wire.PodSandboxState;

export function wireSandbox(view: SandboxView): wire.PodSandbox {
  return {
    id: view.id,
    metadata: { ...view.config.metadata },
    state: wireState(view),
    createdAt: view.createdAt,
    labels: view.config.labels,
    annotations: view.config.annotations,
    runtimeHandler: view.runtimeHandler,
  };
}

export function wireSandboxStatus(view: SandboxView): wire.PodSandboxStatus {
  const [ip = '', ...more] = view.ips;
  return {
    ...wireSandbox(view),
    network: { ip, additionalIps: more.map((address) => ({ ip: address })) },
    linux: { namespaces: { options: wireNamespaces(view.config.security.namespaces) } },
  };
}
