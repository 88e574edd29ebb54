/** ImageService: each RPC is a translation, one call of the runtime, and a translation back. */
import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import * as wire from '../../api/cri/v1/generated/api.js';
import type { Runtime } from '../runtime/facade.js';
import type { Image } from '../runtime/model.js';
import { ListEncoder, alreadyEncoded } from './encoded-list.js';
import { changes, reads } from './handler.js';
import type { MakeHandler, MakeStreamHandler } from './handler.js';
import { chunks } from './streamed-lists.js';
import { imageFilter, imageReference, imageSpec, registryAuth, wireFilesystem, wireImage } from './translate/image.js';
import { wireObjectInfo } from './translate/status.js';

/** The generated definition, with the list that encodes itself. */
export const imageServiceDefinition = {
  ...wire.ImageServiceService,
  listImages: { ...wire.ImageServiceService.listImages, responseSerialize: alreadyEncoded },
};

type Methods = Record<keyof typeof imageServiceDefinition, UntypedServiceImplementation[string]>;

const ofImage = (request: { readonly image: wire.ImageSpec | undefined }) => ({ image: request.image?.image });

export function imageService({ images }: Runtime, handle: MakeHandler, stream: MakeStreamHandler): Methods {
  const list = new ListEncoder<Image, wire.Image>(1, wire.Image, wireImage);
  return {
    listImages: handle(reads('ListImages'), (request: wire.ListImagesRequest) =>
      list.encode(images.list(imageFilter(request.filter))),
    ),
    imageStatus: handle(reads('ImageStatus', ofImage), (request: wire.ImageStatusRequest): wire.ImageStatusResponse => {
      const reference = imageReference('image', request.image);
      const image = images.get(reference);
      if (image === undefined) return { image: undefined, info: {} };
      return { image: wireImage(image), info: request.verbose ? wireObjectInfo(images.inspect(reference)) : {} };
    }),
    pullImage: handle(changes('PullImage', ofImage), async (request: wire.PullImageRequest, call) => {
      const image = await images.pull(imageSpec('image', request.image), registryAuth(request.auth), call);
      return { imageRef: image.id };
    }),
    removeImage: handle(changes('RemoveImage', ofImage), async (request: wire.RemoveImageRequest, call) => {
      await images.remove(imageReference('image', request.image), call);
      return {};
    }),
    imageFsInfo: handle(reads('ImageFsInfo'), async (): Promise<wire.ImageFsInfoResponse> => {
      const filesystems = (await images.fsInfo()).map(wireFilesystem);
      return { imageFilesystems: filesystems, containerFilesystems: filesystems };
    }),
    streamImages: stream(reads('StreamImages'), (request: wire.StreamImagesRequest) =>
      chunks(images.list(imageFilter(request.filter)), (chunk) => ({ images: chunk.map(wireImage) })),
    ),
  };
}
