import { writeFile } from 'node:fs/promises';
import { existsSync, readFileSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { RuntimeError } from '../../kit/errors.js';
import { applyDevices, applyWrites, dirsOf, plannedWrites } from './apply.js';
import { controllersOf, withoutHugetlb } from './convert.js';
import { readCgroupFile, tryReadCgroupFile } from './files.js';
import { KeptFiles } from './kept-files.js';
import { freezeCgroup, killCgroup, thawCgroup, trackedPids } from './kill.js';
import { detectLayout, normalizePath, v1Hierarchies } from './layout.js';
import { parseFlat, parseLimit } from './parse.js';
import { statsReader } from './stats.js';
import { childNames, hierarchyRoots, makeTree, removeDir, trackingRoots } from './tree.js';
import type { CgroupHandle, CgroupLayout, CgroupResources, Cgroups, CgroupsOptions } from './types.js';

/** Finds the host's hierarchies; throws `unavailable` when none is mounted. Holds nothing but descriptors of statistics files. */
export function openCgroups(options: CgroupsOptions = {}): Cgroups {
  const { root = '/sys/fs/cgroup', procRoot = '/proc', bpf, tolerateMissingHugetlb = true } = options;
  const layout =
    options.layout ??
    detectLayout(
      readFileSync(join(procRoot, 'self/mountinfo'), 'utf8'),
      readFileSync(join(procRoot, 'cgroups'), 'utf8'),
      root,
    );
  const hugetlb = hasHugetlb(layout);
  const prepared = (resources: CgroupResources): CgroupResources =>
    hugetlb ? resources : withoutHugetlb(resources, tolerateMissingHugetlb);
  const trackedDirs = (path: string): string[] => trackingRoots(layout).map((dir) => join(dir, normalizePath(path)));
  const exists = (path: string): boolean => trackedDirs(path).some((dir) => existsSync(dir));
  const files = new KeptFiles();
  const reader = statsReader({ layout, hugepageSizes: hugetlb ? hugepageSizes() : [], now: nowNs, exists }, files);

  return {
    layout,
    handle: (path) => handleOf(layout, normalizePath(path)),
    expectEntry(path, pid) {
      const [procs] = handleOf(layout, normalizePath(path)).join.v1Procs;
      // The process may be gone by now; then nothing is lost but the head start.
      if (procs !== undefined) void writeFile(procs, String(pid)).catch(() => undefined);
    },
    create: async (path, resources) => {
      const at = normalizePath(path);
      await create(layout, at, prepared(resources), options);
      return handleOf(layout, at);
    },
    update: async (path, resources) => {
      const at = normalizePath(path);
      if (!exists(at)) throw new RuntimeError('not-found', `cgroup "${at}" not found`);
      refuseBelowUsage(layout, at, resources);
      await apply(layout, at, prepared(resources), bpf, false);
    },
    remove: async (path) => {
      files.drop(normalizePath(path));
      for (const dir of hierarchyRoots(layout)) await removeDir(join(dir, normalizePath(path)));
    },
    kill: (path) => killCgroup(layout, normalizePath(path)),
    freeze: (path) => freezeCgroup(layout, normalizePath(path)),
    thaw: async (path) => thawCgroup(layout, normalizePath(path)),
    pids: (path, { recursive = true } = {}) => trackedPids(layout, normalizePath(path), recursive),
    isEmpty: (path) => trackedPids(layout, normalizePath(path)).length === 0,
    exists,
    children: (path) => [...new Set(trackedDirs(path).flatMap(childNames))],
    stats: (path, options = {}) => reader.stats(normalizePath(path), options),
    oomKills: (path) => reader.oomKills(normalizePath(path)),
  };
}

function handleOf(layout: CgroupLayout, path: string): CgroupHandle {
  const v1Procs = v1Hierarchies(layout).map((root) => join(root, path, 'cgroup.procs'));
  const v2 = layout.v2Root === undefined ? {} : { v2Dir: join(layout.v2Root, path) };
  return { path, join: { v1Procs, ...v2 } };
}

async function create(
  layout: CgroupLayout,
  path: string,
  resources: CgroupResources,
  { bpf }: CgroupsOptions,
): Promise<void> {
  const made: string[] = [];
  try {
    const needed = controllersOf(plannedWrites(layout, path, resources));
    makeTree(layout, path, needed, made);
    await apply(layout, path, resources, bpf, isFresh(layout, path, made));
  } catch (error) {
    removeMade(made);
    throw error;
  }
}

async function apply(
  layout: CgroupLayout,
  path: string,
  resources: CgroupResources,
  bpf: CgroupsOptions['bpf'],
  fresh: boolean,
): Promise<void> {
  const undo = await applyWrites(dirsOf(layout, path), plannedWrites(layout, path, resources), fresh);
  if (resources.deviceRules === undefined) return;
  try {
    applyDevices(layout, path, resources.deviceRules, bpf);
  } catch (error) {
    undo();
    throw error;
  }
}

/** Made by this call in every hierarchy, so that no process is in it and no value was set by anybody. */
const isFresh = (layout: CgroupLayout, path: string, made: readonly string[]): boolean =>
  hierarchyRoots(layout).every((root) => made.includes(join(root, path)));

/** Only what this call made, and of that only what nobody has begun to use meanwhile. */
function removeMade(made: readonly string[]): void {
  for (const dir of [...made].reverse()) {
    try {
      rmdirSync(dir);
    } catch {
      continue;
    }
  }
}

/**
 * On v2, lowering memory.max below what cannot be reclaimed kills processes; v1 answers EBUSY instead. Such an update
 * is refused on both, so that resizing a container never kills it.
 */
function refuseBelowUsage(layout: CgroupLayout, path: string, { memoryLimit }: CgroupResources): void {
  if (layout.version !== 'v2' || layout.v2Root === undefined || !memoryLimit || memoryLimit < 0) return;
  const dir = join(layout.v2Root, path);
  const current = parseLimit(tryReadCgroupFile(join(dir, 'memory.current')));
  if (current === undefined || current <= memoryLimit) return;
  const stat = parseFlat(tryReadCgroupFile(join(dir, 'memory.stat')) ?? '');
  const keys = ['active_file', 'inactive_file', 'slab_reclaimable'];
  const reclaimable = keys.reduce((sum, key) => sum + (stat.get(key) ?? 0), 0);
  if (current - reclaimable <= memoryLimit) return;
  throw new RuntimeError(
    'wrong-state',
    `write "${memoryLimit}" to ${join(dir, 'memory.max')}: ${current - reclaimable} bytes are in use and cannot be reclaimed`,
  );
}

/** On hybrid hosts the controller may sit unused in the v2 hierarchy; that counts as absent. */
function hasHugetlb(layout: CgroupLayout): boolean {
  if (layout.v1Roots.has('hugetlb')) return true;
  if (layout.version !== 'v2' || layout.v2Root === undefined) return false;
  return readCgroupFile(join(layout.v2Root, 'cgroup.controllers')).split(/\s+/).includes('hugetlb');
}

/** `hugepages-2048kB` of sysfs is `2MB` in cgroup file names. */
function hugepageSizes(): string[] {
  const dir = '/sys/kernel/mm/hugepages';
  if (!existsSync(dir)) return [];
  return readdirSync(dir).map((name) => pageSizeName(Number(/^hugepages-(\d+)kB$/.exec(name)?.[1] ?? 0)));
}

const pageSizeName = (kib: number): string => {
  if (kib >= 1024 * 1024) return `${kib / 1024 / 1024}GB`;
  return kib >= 1024 ? `${kib / 1024}MB` : `${kib}KB`;
};

const nowNs = (): bigint => BigInt(Date.now()) * 1_000_000n;
