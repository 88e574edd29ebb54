/** Containers as the answers show them. */
import type * as wire from '../../../api/cri/v1/generated/api.js';
import type { ContainerView } from '../../runtime/facade.js';
import type { ImageSpec, Mount } from '../../runtime/model.js';
import { containerStates, propagations } from './container.js';
import { wireImageSpec } from './image.js';
import { wireResources } from './resources.js';
import { wireMapping } from './sandbox.js';
import { signalValue } from './signals.js';

const wireState = (view: ContainerView): wire.ContainerState =>
  containerStates.indexOf(view.state) as wire.ContainerState;

const looksLikeId = (image: string): boolean => /^(sha256:)?[0-9a-f]{64}$/.test(image);

/** The kubelet creates containers by image id; people want to read the name they wrote. */
function shownImage(spec: ImageSpec, view: ContainerView): string {
  if (spec.userSpecifiedImage !== '') return spec.userSpecifiedImage;
  return looksLikeId(spec.image) ? view.imageName : spec.image;
}

const imageOf = (view: ContainerView): wire.ImageSpec => ({
  ...wireImageSpec(view.config.image),
  image: shownImage(view.config.image, view),
  imageRef: view.imageId,
});

export function wireContainer(view: ContainerView): wire.Container {
  return {
    id: view.id,
    podSandboxId: view.sandboxId,
    metadata: { ...view.config.metadata },
    image: imageOf(view),
    imageRef: view.imageId,
    state: wireState(view),
    createdAt: view.createdAt,
    labels: view.config.labels,
    annotations: view.config.annotations,
    imageId: view.imageId,
  };
}

export function wireMount(mount: Mount): wire.Mount {
  return {
    containerPath: mount.containerPath,
    hostPath: mount.hostPath,
    readonly: mount.readonly,
    selinuxRelabel: mount.selinuxRelabel,
    propagation: propagations.indexOf(mount.propagation) as wire.MountPropagation,
    uidMappings: mount.uidMappings.map(wireMapping),
    gidMappings: mount.gidMappings.map(wireMapping),
    recursiveReadOnly: mount.recursiveReadOnly,
    image: mount.image && wireImageSpec(mount.image),
    imageSubPath: mount.imageSubPath,
    mountOptions: [...mount.options],
  };
}

function wireUser(user: ContainerView['user']): wire.ContainerUser {
  const supplementalGroups = user.groups.map((gid) => BigInt(gid));
  return { linux: { uid: BigInt(user.uid), gid: BigInt(user.gid), supplementalGroups } };
}

export function wireContainerStatus(view: ContainerView): wire.ContainerStatus {
  const { exit } = view;
  return {
    id: view.id,
    metadata: { ...view.config.metadata },
    state: wireState(view),
    createdAt: view.createdAt,
    startedAt: view.startedAt,
    finishedAt: exit?.finishedAt ?? 0n,
    exitCode: exit?.code ?? 0,
    image: imageOf(view),
    imageRef: view.imageId,
    reason: exit?.reason ?? '',
    message: exit?.message ?? '',
    labels: view.config.labels,
    annotations: view.config.annotations,
    mounts: view.mounts.map(wireMount),
    logPath: view.logPath,
    resources: { linux: wireResources(view.resources), windows: undefined },
    imageId: view.imageId,
    user: wireUser(view.user),
    stopSignal: signalValue(view.stopSignal),
  };
}
