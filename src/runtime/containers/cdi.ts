import { stat } from 'node:fs/promises';
import { invalid, isKind } from '../../kit/errors.js';
import type { Parts } from '../parts.js';
import { adjustSpec, type AskedDevice } from '../spec/adjust.js';
import {
  cdiAdjustment,
  editField,
  isBind,
  refuseUnsupported,
  type CdiDeviceNode,
  type CdiMount,
  type DeviceEdits,
} from '../spec/cdi.js';
import type { HostDevice } from '../spec/container-spec.js';
import type { OciSpec } from '../spec/oci.js';
import { deviceOf } from './gather-devices.js';
import { checkIdmap, mountTable } from './gather-mounts.js';

export type CdiDeps = Pick<Parts, 'cdi' | 'lookups' | 'registry' | 'rootless' | 'userNamespaces'>;

export interface WithCdi {
  readonly spec: OciSpec;
  /** Nodes the devices have brought, for who binds them. */
  readonly devices: readonly HostDevice[];
}

/** A container's spec with CDI devices: what their specs say of the host is looked up now, what cannot be is refused. */
export async function addCdiDevices(
  id: string,
  spec: OciSpec,
  asked: readonly AskedDevice[],
  deps: CdiDeps,
): Promise<WithCdi> {
  const { process } = spec;
  if (asked.length === 0 || process === undefined) return { spec, devices: [] };
  const all = await deps.cdi.edits(asked);
  all.forEach(refuseUnsupported);
  const mapped = spec.linux.uidMappings !== undefined;
  const [nodes, mounts] = await Promise.all([
    gatherNodes(all, mapped || deps.rootless !== undefined, deps),
    gatherCdiMounts(all, mapped, deps),
  ]);
  const adjusted = adjustSpec(spec, cdiAdjustment(all, { nodes, mounts, user: process.user, mapped }));
  const { uid, gid, additionalGids: groups = [] } = adjusted.process?.user ?? process.user;
  deps.registry.updateContainer(id, { user: { uid, gid, groups } });
  return { spec: adjusted, devices: nodes };
}

const gatherNodes = async (all: readonly DeviceEdits[], bound: boolean, deps: CdiDeps): Promise<HostDevice[]> =>
  await Promise.all(
    all.flatMap((from) =>
      from.edits.deviceNodes.map((node, index) =>
        hostNode(node, editField(from, `deviceNodes[${index}]`), bound, deps),
      ),
    ),
  );

/** What a spec leaves out of a node is as on the host. One whose type and numbers it gives is there only to be bound. */
async function hostNode(node: CdiDeviceNode, field: string, bound: boolean, { lookups }: CdiDeps): Promise<HostDevice> {
  const { path, permissions: access = 'rwm', fileMode, uid, gid } = node;
  const wanted = node.hostPath ?? path;
  const complete = node.type !== undefined && (node.type === 'p' || (node.major ?? 0) !== 0);
  const hostPath = await lookups.find(wanted, field).catch((error: unknown) => {
    if (complete && !bound && isKind(error, 'invalid-argument')) return undefined;
    throw error;
  });
  const [found] = hostPath === undefined ? [] : deviceOf(await stat(hostPath), path, access);
  if (found === undefined && !complete) throw invalid(field, `${wanted} is no device`);
  const { type = found?.type ?? 'c', major = 0, minor = 0 } = node;
  if (!complete && type !== found?.type && !(type === 'u' && found?.type === 'c'))
    throw invalid(field, `${wanted} is no device of type ${type}`);
  const mode = fileMode ?? found?.fileMode;
  return {
    path,
    type,
    ...(complete ? { major, minor } : { major: found?.major ?? major, minor: found?.minor ?? minor }),
    ...(mode === undefined ? {} : { fileMode: mode }),
    ...(uid === undefined ? {} : { uid }),
    ...(gid === undefined ? {} : { gid }),
    access,
    hostPath: hostPath ?? wanted,
  };
}

async function gatherCdiMounts(all: readonly DeviceEdits[], mapped: boolean, deps: CdiDeps): Promise<CdiMount[]> {
  const facts = { support: deps.userNamespaces, lookups: deps.lookups };
  const table = mountTable();
  return await Promise.all(
    all.flatMap((from) =>
      from.edits.mounts.map(async (mount, index) => {
        if (!isBind(mount)) return mount;
        const field = editField(from, `mounts[${index}].hostPath`);
        const found = { ...mount, hostPath: await deps.lookups.find(mount.hostPath, field) };
        if (mapped) await checkIdmap(found, table, facts, field);
        return found;
      }),
    ),
  );
}
