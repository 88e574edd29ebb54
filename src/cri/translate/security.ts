/** Namespaces, profiles, ids and capabilities: what sandboxes and containers have in common. */
import type * as wire from '../../../api/cri/v1/generated/api.js';
import { invalid } from '../../kit/errors.js';
import type {
  CapabilityChanges,
  ContainerSecurity,
  IdMapping,
  NamespaceMode,
  NamespaceOptions,
  SandboxSecurity,
  SecurityProfile,
  SelinuxOption,
  SupplementalGroupsPolicy,
  UserNamespaceOption,
} from '../../runtime/model.js';
import { absolutePath, choice, given, id, line, nonEmpty, optionalId, text, within } from './fields.js';

export const namespaceModes = ['pod', 'container', 'node', 'target'] as const;
const podOrNode = ['pod', undefined, 'node'] as const;
const sandboxPidModes = ['pod', 'container', 'node'] as const;
const groupPolicies: readonly SupplementalGroupsPolicy[] = ['merge', 'strict'];
const profileKinds = ['runtime-default', 'unconfined', 'localhost'] as const;

const u32 = 2 ** 32;

export function idMapping(path: string, mapping: wire.IDMapping): IdMapping {
  const { containerId, hostId, length } = mapping;
  if (length === 0) throw invalid(`${path}.length`, 'must not be 0');
  within(`${path}.container_id`, containerId + length, 1, u32);
  within(`${path}.host_id`, hostId + length, 1, u32);
  return { containerId, hostId, size: length };
}

export const idMappings = (path: string, mappings: readonly wire.IDMapping[]): readonly IdMapping[] =>
  mappings.map((mapping, index) => idMapping(`${path}[${index}]`, mapping));

/** The kubelet sends one line for uids and one for gids, from container id 0; none at all leaves the choice to us. */
function oneMapping(path: string, mappings: readonly wire.IDMapping[]): readonly IdMapping[] {
  if (mappings.length > 1) throw invalid(path, `only one mapping is supported, got ${mappings.length}`);
  const checked = idMappings(path, mappings);
  if (checked.some((mapping) => mapping.containerId !== 0)) throw invalid(path, 'container id 0 must be mapped');
  return checked;
}

function userNamespace(path: string, option: wire.UserNamespace | undefined): UserNamespaceOption | undefined {
  if (option === undefined) return undefined;
  const mode = choice<'pod' | 'node'>(`${path}.mode`, podOrNode, option.mode);
  const uids = oneMapping(`${path}.uids`, option.uids);
  const gids = oneMapping(`${path}.gids`, option.gids);
  if (mode === 'node' && uids.length + gids.length > 0) throw invalid(path, 'mode NODE must not have mappings');
  if (uids.length !== gids.length) throw invalid(path, 'uids and gids must be given together');
  return { mode, uids, gids };
}

/** A missing message means the zero value of every field: POD throughout, and no user namespace. */
export function namespaceOptions(
  path: string,
  option: wire.NamespaceOption | undefined,
  pidModes: readonly NamespaceMode[],
): NamespaceOptions {
  if (option === undefined) return { network: 'pod', pid: 'pod', ipc: 'pod' };
  const pid = choice<NamespaceMode>(`${path}.pid`, pidModes, option.pid);
  if (pid === 'target' && option.targetId === '') throw invalid(`${path}.target_id`, 'is required by pid mode TARGET');
  if (pid !== 'target' && option.targetId !== '') throw invalid(`${path}.target_id`, 'needs pid mode TARGET');
  return given<NamespaceOptions>({
    network: choice<'pod' | 'node'>(`${path}.network`, podOrNode, option.network),
    pid,
    ipc: choice<'pod' | 'node'>(`${path}.ipc`, podOrNode, option.ipc),
    targetId: pid === 'target' ? line(`${path}.target_id`, option.targetId) : undefined,
    userns: userNamespace(`${path}.userns_options`, option.usernsOptions),
  });
}

type ProfileType = 'seccomp' | 'apparmor';

const localhostPrefix = 'localhost/';
const withoutPrefix = (ref: string): string => (ref.startsWith(localhostPrefix) ? ref.slice(10) : ref);

function localhostProfile(path: string, type: ProfileType, ref: string): SecurityProfile {
  const localhostRef = line(path, nonEmpty(path, withoutPrefix(ref)));
  if (type === 'seccomp') absolutePath(path, localhostRef);
  return { kind: 'localhost', localhostRef };
}

/** The strings of CRI before 1.19, which old clients still send; '' is "not given". */
function deprecatedProfile(path: string, type: ProfileType, value: string): SecurityProfile | undefined {
  if (value === '') return undefined;
  if (value === 'unconfined') return { kind: 'unconfined' };
  if (value === 'runtime/default' || value === 'docker/default') return { kind: 'runtime-default' };
  if (value.startsWith(localhostPrefix)) return localhostProfile(path, type, value);
  throw invalid(path, `"${value}" is not a profile`);
}

interface ProfileFields {
  readonly type: ProfileType;
  readonly profile: wire.SecurityProfile | undefined;
  readonly deprecated: { readonly field: string; readonly value: string } | undefined;
}

function securityProfile(path: string, fields: ProfileFields): SecurityProfile | undefined {
  const { type, profile, deprecated } = fields;
  if (profile === undefined) {
    if (deprecated === undefined) return undefined;
    return deprecatedProfile(`${path}.${deprecated.field}`, type, deprecated.value);
  }
  const kind = choice(`${path}.${type}.profile_type`, profileKinds, profile.profileType);
  const refPath = `${path}.${type}.localhost_ref`;
  if (kind === 'localhost') return localhostProfile(refPath, type, profile.localhostRef);
  if (profile.localhostRef !== '') throw invalid(refPath, 'needs profile type Localhost');
  return { kind };
}

function selinux(path: string, option: wire.SELinuxOption | undefined): SelinuxOption | undefined {
  if (option === undefined) return undefined;
  const { user, role, type, level } = option;
  if (user + role + type + level === '') return undefined;
  return {
    user: line(`${path}.user`, user),
    role: line(`${path}.role`, role),
    type: line(`${path}.type`, type),
    level: line(`${path}.level`, level),
  };
}

function capability(path: string, name: string): string {
  const upper = name.toUpperCase();
  const full = upper === 'ALL' || upper === 'CAP_ALL' ? 'ALL' : upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (!/^(ALL|CAP_[A-Z][A-Z0-9_]*)$/.test(full)) throw invalid(path, `"${name}" is not a capability`);
  return full;
}

const capabilities = (path: string, names: readonly string[]): readonly string[] =>
  names.map((name, index) => capability(`${path}[${index}]`, name));

function capabilityChanges(path: string, changes: wire.Capability | undefined): CapabilityChanges {
  return {
    add: capabilities(`${path}.add_capabilities`, changes?.addCapabilities ?? []),
    drop: capabilities(`${path}.drop_capabilities`, changes?.dropCapabilities ?? []),
    addAmbient: capabilities(`${path}.add_ambient_capabilities`, changes?.addAmbientCapabilities ?? []),
  };
}

const groups = (path: string, ids: readonly bigint[]): readonly number[] =>
  ids.map((gid, index) => id(`${path}[${index}]`, gid));

export function sandboxSecurity(path: string, security: wire.LinuxSandboxSecurityContext | undefined): SandboxSecurity {
  const runAsUser = optionalId(`${path}.run_as_user`, security?.runAsUser);
  const runAsGroup = optionalId(`${path}.run_as_group`, security?.runAsGroup);
  if (runAsGroup !== undefined && runAsUser === undefined) throw invalid(`${path}.run_as_group`, 'needs run_as_user');
  const policy = security?.supplementalGroupsPolicy ?? 0;
  return given<SandboxSecurity>({
    namespaces: namespaceOptions(`${path}.namespace_options`, security?.namespaceOptions, sandboxPidModes),
    runAsUser,
    runAsGroup,
    readonlyRootfs: security?.readonlyRootfs ?? false,
    supplementalGroups: groups(`${path}.supplemental_groups`, security?.supplementalGroups ?? []),
    supplementalGroupsPolicy: choice(`${path}.supplemental_groups_policy`, groupPolicies, policy),
    privileged: security?.privileged ?? false,
    seccomp: securityProfile(path, {
      type: 'seccomp',
      profile: security?.seccomp,
      deprecated: { field: 'seccomp_profile_path', value: security?.seccompProfilePath ?? '' },
    }),
    apparmor: securityProfile(path, { type: 'apparmor', profile: security?.apparmor, deprecated: undefined }),
    selinux: selinux(`${path}.selinux_options`, security?.selinuxOptions),
  });
}

function containerUser(
  path: string,
  security: wire.LinuxContainerSecurityContext | undefined,
): Pick<ContainerSecurity, 'runAsUser' | 'runAsGroup' | 'runAsUsername'> {
  const runAsUser = optionalId(`${path}.run_as_user`, security?.runAsUser);
  const runAsGroup = optionalId(`${path}.run_as_group`, security?.runAsGroup);
  const username = text(`${path}.run_as_username`, security?.runAsUsername ?? '');
  if (username !== '' && runAsUser !== undefined) throw invalid(`${path}.run_as_username`, 'excludes run_as_user');
  if (runAsGroup !== undefined && runAsUser === undefined && username === '') {
    throw invalid(`${path}.run_as_group`, 'needs run_as_user or run_as_username');
  }
  return given({ runAsUser, runAsGroup, runAsUsername: username === '' ? undefined : username });
}

const absolutePaths = (path: string, values: readonly string[]): readonly string[] =>
  values.map((value, index) => absolutePath(`${path}[${index}]`, value));

export function containerSecurity(
  path: string,
  security: wire.LinuxContainerSecurityContext | undefined,
): ContainerSecurity {
  const policy = security?.supplementalGroupsPolicy ?? 0;
  return given<ContainerSecurity>({
    ...containerUser(path, security),
    namespaces: namespaceOptions(`${path}.namespace_options`, security?.namespaceOptions, namespaceModes),
    readonlyRootfs: security?.readonlyRootfs ?? false,
    supplementalGroups: groups(`${path}.supplemental_groups`, security?.supplementalGroups ?? []),
    supplementalGroupsPolicy: choice(`${path}.supplemental_groups_policy`, groupPolicies, policy),
    privileged: security?.privileged ?? false,
    seccomp: securityProfile(path, {
      type: 'seccomp',
      profile: security?.seccomp,
      deprecated: { field: 'seccomp_profile_path', value: security?.seccompProfilePath ?? '' },
    }),
    apparmor: securityProfile(path, {
      type: 'apparmor',
      profile: security?.apparmor,
      deprecated: { field: 'apparmor_profile', value: security?.apparmorProfile ?? '' },
    }),
    selinux: selinux(`${path}.selinux_options`, security?.selinuxOptions),
    capabilities: capabilityChanges(`${path}.capabilities`, security?.capabilities),
    noNewPrivs: security?.noNewPrivs ?? false,
    maskedPaths: absolutePaths(`${path}.masked_paths`, security?.maskedPaths ?? []),
    readonlyPaths: absolutePaths(`${path}.readonly_paths`, security?.readonlyPaths ?? []),
  });
}
