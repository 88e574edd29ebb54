import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { rootOf, type IdMappings } from '../idmap/mapping.js';
import type { PodSandboxConfig } from '../model.js';
import { hostnameFile, hostsFile, resolvConf } from '../network/pod-files.js';
import type { HostPaths } from '../settings.js';
import type { SandboxNamespaces } from '../spec/namespaces.js';

/**
 * A pod's directory lies on tmpfs and is ours alone: each call takes some microseconds, a tenth of what handing it to
 * another thread would cost. Paths of the host's own are never touched like this.
 */
export function makePodDirectory(id: string, mappings: IdMappings | undefined, paths: HostPaths): void {
  const dir = paths.podDir(id);
  mkdirSync(dir, { mode: 0o700 });
  openToMappedRoot(dir, mappings);
  mkdirSync(join(dir, 'c'), { mode: 0o700 });
  mkdirSync(paths.rootMountpoint(id), { mode: 0o700 });
}

/** The root of a user namespace may go through a directory of its own pod, and not list it. */
export function openToMappedRoot(dir: string, mappings: IdMappings | undefined): void {
  const gid = mappings === undefined ? 0 : rootOf(mappings).gid;
  if (gid === 0) return;
  chownSync(dir, 0, gid);
  chmodSync(dir, 0o710);
}

/** hosts, hostname and resolv.conf, which every container of the pod has bound into it. */
export async function writePodFiles(
  id: string,
  config: PodSandboxConfig,
  pod: {
    readonly names: SandboxNamespaces['names'];
    readonly ips: readonly string[];
    readonly mappings: IdMappings | undefined;
  },
  paths: HostPaths,
): Promise<void> {
  const { ips, mappings } = pod;
  const host = pod.names === 'node';
  const hostname = host ? '' : config.hostname;
  const contents = [
    ['hosts', hostsFile({ hostname, ips, host })],
    ['hostname', hostnameFile({ hostname, host })],
    ['resolv.conf', resolvConf(config.dns)],
  ] as const;
  for (const [name, content] of contents) {
    const path = paths.podFile(id, name);
    writeFileSync(path, await content, { mode: 0o644 });
    if (mappings !== undefined) chownSync(path, rootOf(mappings).uid, rootOf(mappings).gid);
  }
}
