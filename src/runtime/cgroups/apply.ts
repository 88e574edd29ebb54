import { join } from 'node:path';
import { RuntimeError, isErrno, messageOf } from '../../kit/errors.js';
import { convertV1, convertV2 } from './convert.js';
import type { CgroupWrite, WriteGroup } from './convert.js';
import { compileDeviceProgram } from './device-program.js';
import { checkDeviceRules, devicePolicy, deviceWrites, parseDevicesList } from './devices.js';
import { cgroupError, rawWrite, rawWriteAsync, tryReadCgroupFile, writeCgroupFile } from './files.js';
import type { CgroupLayout, CgroupResources, DeviceBpf, DeviceRule } from './types.js';

export type DirOf = (controller: string) => string | undefined;

/** The directory of a cgroup in the hierarchy that has the controller. */
export const dirsOf =
  (layout: CgroupLayout, path: string): DirOf =>
  (controller) => {
    const root = layout.v1Roots.get(controller) ?? (layout.version === 'v2' ? layout.v2Root : undefined);
    return root === undefined ? undefined : join(root, path);
  };

/** Resources as writes for this host, completed with what is in force where a file holds two values. */
export function plannedWrites(layout: CgroupLayout, path: string, resources: CgroupResources): WriteGroup[] {
  const dirOf = dirsOf(layout, path);
  const read = (controller: string, file: string): string | undefined => {
    const dir = dirOf(controller);
    return dir === undefined ? undefined : tryReadCgroupFile(join(dir, file));
  };
  if (layout.version !== 'v2') {
    const asks = resources.memoryLimit && !resources.memorySwapLimit;
    const memswLimit = asks ? read('memory', 'memory.memsw.limit_in_bytes') : undefined;
    return convertV1(resources, memswLimit === undefined ? {} : { memswLimit });
  }
  const halfCpu = Boolean(resources.cpuQuota) !== Boolean(resources.cpuPeriod);
  const cpuMax = halfCpu ? read('cpu', 'cpu.max') : undefined;
  const memoryMax = resources.memorySwapLimit && !resources.memoryLimit ? read('memory', 'memory.max') : undefined;
  return convertV2(resources, {
    ...(cpuMax === undefined ? {} : { cpuMax }),
    ...(memoryMax === undefined ? {} : { memoryMax }),
  });
}

interface Done {
  readonly file: string;
  readonly old: string;
}

/**
 * Carries writes out, all or none: after a failure the old values are put back, newest first. A value that cannot be
 * put back is named in the error. Returns what takes the writes back. A `fresh` cgroup, empty and to be removed should
 * this fail, is spared the reading of old values.
 */
export async function applyWrites(dirOf: DirOf, groups: readonly WriteGroup[], fresh = false): Promise<() => void> {
  const done: Done[] = [];
  try {
    for (const group of groups) await applyGroup({ dirOf, done, fresh }, group);
  } catch (error) {
    throw withRollback(error, done);
  }
  return () => void putBack(done);
}

interface Target {
  readonly dirOf: DirOf;
  readonly done: Done[];
  readonly fresh: boolean;
}

async function applyGroup(target: Target, group: WriteGroup): Promise<void> {
  const before = target.done.length;
  try {
    for (const item of group) await applyOne(target, item);
  } catch (error) {
    if (group.length < 2 || !mayBeOrder(error)) throw error;
    putBack(target.done.splice(before));
    for (const item of [...group].reverse()) await applyOne(target, item);
  }
}

/** EINVAL: memory above memory + swap, or quota against the parent's. EBUSY: memory + swap below usage. */
const mayBeOrder = (error: unknown): boolean =>
  error instanceof RuntimeError && (error.facts['errno'] === 'EINVAL' || error.facts['errno'] === 'EBUSY');

async function applyOne({ dirOf, done, fresh }: Target, item: CgroupWrite): Promise<void> {
  const dir = dirOf(item.controller);
  if (dir === undefined) {
    if (item.optional) return;
    throw new RuntimeError('unavailable', `write ${item.file}: this host has no ${item.controller} cgroup controller`);
  }
  const file = join(dir, item.file);
  const old = fresh ? undefined : tryReadCgroupFile(file);
  if (old?.trim() === item.value) return;
  try {
    // Lowering a memory limit reclaims in the writer's context, which can take seconds.
    if (item.controller === 'memory' && !fresh) await rawWriteAsync(file, item.value);
    else rawWrite(file, item.value);
  } catch (error) {
    if (item.optional && isErrno(error, 'ENOENT')) return;
    throw cgroupError('write', file, item.value, error);
  }
  if (old !== undefined) done.push({ file, old });
}

function putBack(done: readonly Done[]): string[] {
  const failed: string[] = [];
  for (const { file, old } of [...done].reverse()) {
    try {
      // An empty list (cpuset) is written as an empty line: a write of no bytes never reaches the kernel's parser.
      rawWrite(file, old.trim() === '' ? '\n' : old);
    } catch (error) {
      failed.push(`${file}: ${messageOf(error)}`);
    }
  }
  return failed;
}

function withRollback(error: unknown, done: readonly Done[]): unknown {
  const failed = putBack(done);
  if (failed.length === 0 || !(error instanceof RuntimeError)) return error;
  return new RuntimeError(error.kind, `${error.message}; not put back: ${failed.join(', ')}`, {
    facts: error.facts,
    cause: error,
  });
}

/** Devices are applied last: nothing after them can fail, so they need no way back but their own. */
export function applyDevices(
  layout: CgroupLayout,
  path: string,
  rules: readonly DeviceRule[],
  bpf: DeviceBpf | undefined,
): void {
  checkDeviceRules(rules);
  const v1Root = layout.v1Roots.get('devices');
  if (v1Root !== undefined) return applyDevicesV1(join(v1Root, path), rules);
  if (layout.v2Root === undefined || layout.version !== 'v2') {
    throw new RuntimeError('unavailable', `device rules of ${path}: this host has no devices cgroup controller`);
  }
  if (bpf === undefined) throw new RuntimeError('internal', `device rules of ${path}: no BPF loader was given`);
  const dir = join(layout.v2Root, path);
  try {
    bpf.attach(dir, compileDeviceProgram(rules));
  } catch (error) {
    throw cgroupError('attach device program to', dir, undefined, error);
  }
}

function applyDevicesV1(dir: string, rules: readonly DeviceRule[]): void {
  const from = parseDevicesList(tryReadCgroupFile(join(dir, 'devices.list')) ?? '');
  const to = devicePolicy(rules);
  try {
    for (const { file, value } of deviceWrites(from, to)) writeCgroupFile(join(dir, file), value);
  } catch (error) {
    restoreDevicesV1(dir, from);
    throw error;
  }
}

function restoreDevicesV1(dir: string, policy: ReturnType<typeof parseDevicesList>): void {
  const now = parseDevicesList(tryReadCgroupFile(join(dir, 'devices.list')) ?? '');
  for (const { file, value } of deviceWrites(now, policy)) {
    try {
      rawWrite(join(dir, file), value);
    } catch {
      // The first error is the one to report; the container keeps a policy between the two.
      return;
    }
  }
}
