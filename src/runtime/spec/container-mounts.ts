import { sameLines, type IdMappings } from '../idmap/mapping.js';
import type { ContainerConfig, IdMapping, Mount, PodSandboxConfig } from '../model.js';
import { defaultMounts } from './defaults.js';
import { sandboxNamespaces, type SandboxNamespaces } from './namespaces.js';
import type { OciIdMapping, OciMount } from './oci.js';

/** Files the pod's run request made, bound into every container unless a mount of the request takes their place. */
export interface SandboxFiles {
  readonly hosts: string;
  readonly hostname: string;
  readonly resolvConf: string;
  /** The pod's /dev/shm: a mount the shim holds under this name, or the host's /dev/shm. */
  readonly shm: { readonly held: string } | { readonly host: true };
}

/** A place in the root that the image wants to be a volume of the container's own. */
export interface DeclaredVolume {
  /** Absolute, normal, inside the container. */
  readonly path: string;
  /** An empty directory of the host; the launch plan copies into it what the image has at `path`. */
  readonly directory: string;
}

/** Source of a mount the shim holds for the pod, in the one form that `plan/compile` knows. */
export const heldMountSource = (name: string): string => `held:${name}`;

/** Source of a mount whose content is an image's, told to the plan compiler beside the spec. */
export const imageMountSource = (mount: Mount, index: number): string =>
  `image:${mount.image?.imageRef ?? ''}#${index}`;

/** What of a container its mounts follow from. */
export interface ContainerMountsInput {
  readonly config: ContainerConfig;
  readonly sandbox: PodSandboxConfig;
  readonly files: SandboxFiles;
  /** Of the pod's user namespace; absent without one. */
  readonly mappings?: IdMappings;
  /** Volumes the image declares, each with its directory on the host. */
  readonly volumes?: readonly DeclaredVolume[];
}

export const podNamespaces = ({
  sandbox,
  mappings,
}: Pick<ContainerMountsInput, 'sandbox' | 'mappings'>): SandboxNamespaces =>
  sandboxNamespaces(sandbox.security.namespaces, mappings !== undefined);

export function containerMounts(input: ContainerMountsInput): OciMount[] {
  const { config, files } = input;
  const base = defaultMounts({
    privileged: config.security.privileged,
    sys: podNamespaces(input).sys,
    ...(input.mappings === undefined ? {} : { mappings: input.mappings }),
  });
  const shm: OciMount =
    'held' in files.shm
      ? {
          destination: '/dev/shm',
          type: 'bind',
          source: heldMountSource(files.shm.held),
          options: ['nosuid', 'nodev', 'noexec'],
        }
      : {
          destination: '/dev/shm',
          type: 'bind',
          source: '/dev/shm',
          options: ['rbind', 'rprivate', 'nosuid', 'nodev', 'noexec'],
        };
  const fileMounts = [
    fileMount('/etc/hosts', files.hosts, config),
    fileMount('/etc/hostname', files.hostname, config),
    fileMount('/etc/resolv.conf', files.resolvConf, config),
  ];
  // Shorter destinations first, so that a mount on /data never hides one on /data/cache.
  const wanted = config.mounts
    .map((mount, index) => (mount.image === undefined ? bindMount(mount, input) : imageMount(mount, index)))
    .sort((a, b) => depth(a.destination) - depth(b.destination));
  return lastWriterWins([...declaredVolumes(input), ...base, shm, ...fileMounts, ...wanted]);
}

/**
 * Before everything else: where an image says its volumes are, and what links lead there, it finds nothing but its own
 * files. What it declares at /proc or /dev is covered by the mounts that follow.
 */
const declaredVolumes = ({ volumes = [] }: ContainerMountsInput): OciMount[] =>
  [...volumes]
    .sort((a, b) => depth(a.path) - depth(b.path))
    .map(({ path, directory }) => ({
      destination: path,
      type: 'bind',
      source: directory,
      options: ['bind', 'private', 'rw'],
    }));

const fileMount = (destination: string, source: string, config: ContainerConfig): OciMount => ({
  destination,
  type: 'bind',
  source,
  options: ['bind', 'rprivate', config.security.readonlyRootfs ? 'ro' : 'rw'],
});

const depth = (path: string): number => path.split('/').filter((part) => part !== '').length;

/** One mount per destination: the last keeps its own place in the order. */
function lastWriterWins(mounts: readonly OciMount[]): OciMount[] {
  const last = new Map(mounts.map((mount, index) => [trimSlash(mount.destination), index]));
  return mounts.filter((mount, index) => last.get(trimSlash(mount.destination)) === index);
}

const trimSlash = (path: string): string => (path.length > 1 ? path.replace(/\/+$/, '') : path);

const propagationOption = {
  private: 'rprivate',
  'host-to-container': 'rslave',
  bidirectional: 'rshared',
} as const;

const imageMount = (mount: Mount, index: number): OciMount => ({
  destination: mount.containerPath,
  type: 'bind',
  source: imageMountSource(mount, index),
  options: ['bind', 'private', 'ro', ...mount.options],
});

/** Whether a mount is mapped as the pod is. */
export const isMapOf = ({ uidMappings, gidMappings }: Mount, pod: IdMappings): boolean =>
  sameLines(uidMappings, pod.uids) && sameLines(gidMappings, pod.gids);

/** What is mounted below a volume is idmapped with it: half a tree that shows other owners would be a trap. */
function bindMount(mount: Mount, { mappings }: ContainerMountsInput): OciMount {
  const access = mount.recursiveReadOnly ? 'rro' : mount.readonly ? 'ro' : 'rw';
  const bind: OciMount = {
    destination: mount.containerPath,
    type: 'bind',
    source: mount.hostPath,
    options: ['rbind', propagationOption[mount.propagation], access, ...mount.options],
  };
  if (mount.uidMappings.length === 0 && mount.gidMappings.length === 0) return bind;
  const idmapped = { ...bind, options: [...(bind.options ?? []), 'ridmap'] };
  // Without maps of its own a mount has those of the container (runtime-spec), which the shim holds already.
  if (mappings !== undefined && isMapOf(mount, mappings)) return idmapped;
  return {
    ...idmapped,
    uidMappings: mount.uidMappings.map(ociMapping),
    gidMappings: mount.gidMappings.map(ociMapping),
  };
}

/** A bidirectional or slave mount needs a root that lets events through. */
export function rootPropagation(mounts: readonly Mount[]): string {
  if (mounts.some((mount) => mount.propagation === 'bidirectional')) return 'rshared';
  if (mounts.some((mount) => mount.propagation === 'host-to-container')) return 'rslave';
  return 'rprivate';
}

export const ociMapping = ({ containerId, hostId, size }: IdMapping): OciIdMapping => ({
  containerID: containerId,
  hostID: hostId,
  size,
});
