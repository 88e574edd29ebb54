import type { NamespaceKind } from './plan.js';

/** In the order of the wire format (`enum namespace_kind` of src/native/shim/launch.h). */
export const namespaceKinds = [
  'pid',
  'net',
  'ipc',
  'uts',
  'mnt',
  'user',
  'cgroup',
  'time',
] as const satisfies readonly NamespaceKind[];
