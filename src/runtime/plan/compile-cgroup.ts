import type { OciMount } from '../spec/oci.js';
import type { PlanBuilder } from './builder.js';
import type { LaunchFacts } from './facts.js';
import { MOUNT_ATTR, MS } from './kernel.js';
import type { ParsedMountOptions } from './mount-options.js';

/**
 * What a mount of type `cgroup` becomes. On v2 it is the hierarchy itself, which a cgroup namespace cuts down to the
 * container's part. On v1 and hybrid hosts it is a small tmpfs with the container's own cgroup of each controller, so
 * that nothing above it can be seen or written. Returns the targets that become read-only later.
 */
export function compileCgroupMount(
  mount: OciMount,
  options: ParsedMountOptions,
  facts: LaunchFacts,
  plan: PlanBuilder,
): string[] {
  const set = options.set | options.recursiveSet;
  if (facts.cgroup.layout.version === 'v2') {
    plan.inner.push({
      op: 'mount',
      fstype: 'cgroup2',
      source: 'cgroup',
      target: mount.destination,
      options: [],
      attributes: set,
      propagation: 0,
      copyUp: false,
    });
    return [];
  }
  plan.inner.push({
    op: 'mount',
    fstype: 'tmpfs',
    source: 'tmpfs',
    target: mount.destination,
    options: [
      { key: 'mode', value: '755' },
      { key: 'size', value: '64k' },
    ],
    attributes: set & ~MOUNT_ATTR.RDONLY,
    propagation: 0,
    copyUp: false,
  });
  bindHierarchies(mount.destination, set, facts, plan);
  return (set & MOUNT_ATTR.RDONLY) === 0 ? [] : [mount.destination];
}

function bindHierarchies(destination: string, set: number, facts: LaunchFacts, plan: PlanBuilder): void {
  const { layout, path } = facts.cgroup;
  const hierarchies = new Map<string, string[]>();
  for (const [controller, root] of layout.v1Roots) {
    hierarchies.set(root, [...(hierarchies.get(root) ?? []), controller.replace(/^name=/, '')]);
  }
  if (layout.version === 'hybrid' && layout.v2Root !== undefined) hierarchies.set(layout.v2Root, []);
  for (const [root, controllers] of hierarchies) {
    const name = root.slice(root.lastIndexOf('/') + 1);
    const target = `${destination}/${name}`;
    const slot = plan.slot();
    plan.outer.push({
      op: 'bind-source',
      slot,
      path: path === '/' ? root : `${root}${path}`,
      name: target,
      recursive: false,
      attributes: { set, clear: 0, propagation: MS.PRIVATE, recursive: false },
      idmap: 'none',
    });
    plan.inner.push({ op: 'attach', slot, target, kind: 'dir' });
    // Controllers mounted together are looked for under each name.
    for (const controller of controllers.filter((each) => each !== name)) {
      plan.inner.push({ op: 'symlink', link: `${destination}/${controller}`, target: name });
    }
  }
}
