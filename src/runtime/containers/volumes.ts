import { chown, mkdir } from 'node:fs/promises';
import { join, posix } from 'node:path';
import type { Call } from '../../kit/call.js';
import { invalid, RuntimeError } from '../../kit/errors.js';
import { rootOf, type IdMappings } from '../idmap/mapping.js';
import type { Image, ImageRunConfig, ImageSpec, Mount } from '../model.js';
import type { Parts } from '../parts.js';
import type { LaunchFacts, VolumeFacts } from '../plan/facts.js';
import { imageMountSource, type DeclaredVolume } from '../spec/container-mounts.js';
import { snapshotImage } from './image-snapshot.js';
import { overlayFacts } from './launch-facts.js';
import type { ContainerRecord } from '../state/records.js';

/**
 * Volumes that images are the source of, of both kinds.
 *
 * *Image volumes* are mounts of the request that show another image, read-only. Each has a snapshot of its own, which
 * keeps the layers and says how they are mapped for the pod; nothing is ever written to it.
 *
 * *Declared volumes* are paths the container's image wants kept out of its root. By default each gets a directory on
 * the host, into which the launch plan copies what the image has there: in the container's own mount namespace, beneath
 * its root, so that no path of an image is ever walked on the host (CVE-2022-23648).
 */
export interface Volumes {
  readonly images: readonly ImageVolume[];
  readonly declared: readonly DeclaredVolume[];
  /** Declared ones that are just to be there. */
  readonly directories: readonly string[];
}

export interface ImageVolume {
  /** Of `config.mounts`. */
  readonly index: number;
  /** With the image's id. */
  readonly mount: Mount;
  readonly image: Image;
  /** Of its snapshot, and who holds the image. */
  readonly key: string;
}

type VolumeDeps = Pick<Parts, 'images' | 'snapshots' | 'paths' | 'settings' | 'rootless'>;

/** Checks what can be said before anything is made. Errors: invalid-argument, not-found, by field. */
export async function findVolumes(
  containerId: string,
  mounts: readonly Mount[],
  run: ImageRunConfig,
  deps: VolumeDeps,
): Promise<Volumes> {
  const images = await Promise.all(
    mounts.flatMap((mount, index) => {
      const key = volumeKey(containerId, index);
      return mount.image === undefined ? [] : [imageVolume({ index, mount, key }, mount.image, deps)];
    }),
  );
  const paths = deps.settings.imageVolumes === 'ignore' ? [] : declaredPaths(run.volumes, mounts);
  const bound = deps.settings.imageVolumes === 'bind';
  const directory = deps.paths.volumeDir(containerId);
  return {
    images,
    declared: bound ? paths.map((path, index) => ({ path, directory: join(directory, `${index}`) })) : [],
    directories: bound ? [] : paths,
  };
}

async function imageVolume(
  { index, mount, key }: Omit<ImageVolume, 'image'>,
  spec: ImageSpec,
  deps: VolumeDeps,
): Promise<ImageVolume> {
  const field = `config.mounts[${index}]`;
  const reference = spec.image;
  if (mount.hostPath !== '') throw invalid(`${field}.host_path`, 'excludes image');
  if (mount.propagation !== 'private') throw invalid(`${field}.propagation`, 'an image can be mounted PRIVATE only');
  const image = deps.images.resolve(reference);
  if (image === undefined) {
    throw new RuntimeError('not-found', `${field}.image.image: image "${reference}" is not on this node`);
  }
  const { imageSubPath: part } = mount;
  if (part !== '' && (await deps.images.rootEntry(image, part)) === undefined) {
    throw invalid(`${field}.image_sub_path`, `image "${reference}" has neither a directory nor a file "${part}"`);
  }
  return { index, mount: { ...mount, image: { ...spec, imageRef: image.id } }, image, key };
}

/** Each takes one of a launch plan's 256 slots. */
const maxDeclared = 128;

/** As ContainerStatus shows them: with the id of each image that is mounted. */
export const reportedMounts = (mounts: readonly Mount[], { images }: Volumes): Mount[] =>
  mounts.map((mount, index) => images.find((each) => each.index === index)?.mount ?? mount);

/**
 * What an image declares, normal and without what a mount of the request covers: at a path that the pod's author mounts
 * something on, or below it, nothing is made and nothing hidden.
 */
export function declaredPaths(declared: readonly string[], mounts: readonly Mount[]): string[] {
  if (declared.length > maxDeclared) {
    throw invalid('config.image', `the image declares ${declared.length} volumes, more than ${maxDeclared}`);
  }
  const covers = mounts.map(({ containerPath }) => normal(containerPath));
  const paths = declared.map((text) => {
    const path = normal(text);
    if (path === '/' || text.includes('\0')) {
      throw invalid('config.image', `the image declares the volume ${JSON.stringify(text)}, which cannot be one`);
    }
    return path;
  });
  return [...new Set(paths)].filter((path) => !covers.some((cover) => path === cover || path.startsWith(`${cover}/`)));
}

/** Absolute, without `.`, `..` and needless slashes. */
const normal = (path: string): string => posix.normalize(`/${path}`).replace(/(?<=.)\/+$/, '');

/** Makes what the volumes need; `cleanVolumes` takes it away, also half made. */
export async function prepareVolumes(
  containerId: string,
  volumes: Volumes,
  mappings: IdMappings | undefined,
  call: Call,
  deps: VolumeDeps & Pick<Parts, 'userNamespaces'>,
): Promise<void> {
  for (const { image, key, index } of volumes.images) {
    deps.images.hold(image.id, key);
    await snapshotImage(key, image, `config.mounts[${index}].image.image`, mappings, call, deps);
  }
  if (volumes.declared.length > 0) await mkdir(deps.paths.volumeDir(containerId), { recursive: true, mode: 0o700 });
  for (const { directory } of volumes.declared) {
    await mkdir(directory, { mode: 0o700 });
    if (mappings === undefined) continue;
    const root = rootOf(mappings);
    await chown(directory, root.uid, root.gid);
  }
}

/** Of a container that is gone or never came to be. What cannot be taken away becomes residue. */
export async function cleanVolumes(
  { id, mounts }: Pick<ContainerRecord, 'id' | 'mounts'>,
  residue: Parts['residue'],
): Promise<void> {
  for (const [index, { image }] of mounts.entries()) {
    if (image === undefined) continue;
    await residue.clean('snapshot', volumeKey(id, index));
    await residue.clean('image-hold', `${image.imageRef ?? ''} ${volumeKey(id, index)}`);
  }
  await residue.clean('volumes', id);
}

/** What the plan compiler must know of the volumes. */
export function volumeFacts(volumes: Volumes, deps: VolumeDeps): Pick<LaunchFacts, 'volumes' | 'directories'> {
  const facts = new Map<string, VolumeFacts>(volumes.declared.map(({ directory }) => [directory, { kind: 'copy-up' }]));
  for (const volume of volumes.images) {
    facts.set(imageMountSource(volume.mount, volume.index), imageFacts(volume, deps));
  }
  return {
    ...(facts.size === 0 ? {} : { volumes: facts }),
    ...(volumes.directories.length === 0 ? {} : { directories: volumes.directories }),
  };
}

function imageFacts({ key, mount }: ImageVolume, deps: VolumeDeps): VolumeFacts {
  const { lower, upper, idmap = 'none', metacopy = false, userXattr = false } = overlayFacts(key, deps);
  return {
    kind: 'image',
    // An overlay without an upper layer needs two below (overlayfs.rst); the empty directory changes nothing.
    lower: lower.length > 1 ? lower : [...lower, upper],
    subPath: mount.imageSubPath === '' ? '' : `/${mount.imageSubPath}`,
    idmap,
    metacopy,
    userXattr,
  };
}

const volumeKey = (containerId: string, index: number): string => `${containerId}/${index}`;

/** The container whose snapshot, or whose image volume's, has this key. */
export const holderOf = (key: string): string => key.split('/')[0] ?? key;
