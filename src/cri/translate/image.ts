/** Images, their names, registry credentials and the space they use. */
import type * as wire from '../../../api/cri/v1/generated/api.js';
import type { FilesystemUsage } from '../../runtime/facade.js';
import type { Image, ImageSpec, RegistryAuth } from '../../runtime/model.js';
import { copyMap, line, nonEmpty, required } from './fields.js';

export function imageSpec(path: string, spec: wire.ImageSpec | undefined): ImageSpec {
  const fields = required(path, spec);
  const image = fields.image === '' ? fields.imageRef : fields.image;
  return {
    image: line(`${path}.image`, nonEmpty(`${path}.image`, image)),
    userSpecifiedImage: line(`${path}.user_specified_image`, fields.userSpecifiedImage),
    annotations: copyMap(fields.annotations),
    runtimeHandler: line(`${path}.runtime_handler`, fields.runtimeHandler),
  };
}

export const imageReference = (path: string, spec: wire.ImageSpec | undefined): string => imageSpec(path, spec).image;

export function imageFilter(filter: wire.ImageFilter | undefined): { readonly image: string } | undefined {
  const image = filter?.image?.image ?? '';
  return image === '' ? undefined : { image: line('filter.image.image', image) };
}

/** Credentials that are all empty are none: the kubelet sends the message for anonymous pulls too. */
export function registryAuth(auth: wire.AuthConfig | undefined): RegistryAuth | undefined {
  if (auth === undefined) return undefined;
  const { username, password, auth: encoded, serverAddress, identityToken, registryToken } = auth;
  if (username + password + encoded + identityToken + registryToken === '') return undefined;
  return { username, password, auth: encoded, serverAddress, identityToken, registryToken };
}

export function wireImageSpec(spec: ImageSpec): wire.ImageSpec {
  return {
    image: spec.image,
    annotations: spec.annotations,
    userSpecifiedImage: spec.userSpecifiedImage,
    runtimeHandler: spec.runtimeHandler,
    imageRef: spec.imageRef ?? '',
  };
}

/** USER as the CRI wants it: a number, a name, or nothing; the group is not asked for. */
function imageUser(user: string): Pick<wire.Image, 'uid' | 'username'> {
  const [owner = ''] = user.split(':');
  if (/^\d{1,10}$/.test(owner)) return { uid: { value: BigInt(owner) }, username: '' };
  return { uid: undefined, username: owner };
}

export function wireImage(image: Image): wire.Image {
  return {
    id: image.id,
    repoTags: [...image.repoTags],
    repoDigests: [...image.repoDigests],
    size: BigInt(image.size),
    ...imageUser(image.run.user),
    spec: {
      image: image.id,
      annotations: image.annotations,
      userSpecifiedImage: '',
      runtimeHandler: '',
      imageRef: image.id,
    },
    pinned: image.pinned,
  };
}

export function wireFilesystem(usage: FilesystemUsage): wire.FilesystemUsage {
  return {
    timestamp: usage.timestamp,
    fsId: { mountpoint: usage.mountpoint },
    usedBytes: { value: BigInt(usage.usedBytes) },
    inodesUsed: { value: BigInt(usage.inodesUsed) },
  };
}
