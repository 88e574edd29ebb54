import { RuntimeError } from '../kit/errors.js';
import type { ImageRequests } from './facade.js';
import type { Images } from './images/images.js';
import type { HostParts } from './parts.js';
import { checkHandler } from './sandbox/run.js';

/** The image requests of the facade over the image store: references, handlers, the shapes of answers. */
export function imageRequests(images: Images, handlers: readonly string[], host: HostParts): ImageRequests {
  return {
    pull: (spec, auth, call, onProgress) => {
      checkHandler(spec.runtimeHandler, handlers, 'image.runtime_handler');
      return images.pull(spec.image, auth, spec.annotations, call, onProgress);
    },
    import: (path, name, call, onProgress) => images.import(path, name === undefined ? {} : { name }, call, onProgress),
    remove: (reference, call) => images.remove(reference, call),
    get: (reference) => images.resolve(reference),
    list: (filter) => {
      if (filter === undefined || filter.image === '') return images.list();
      const image = images.resolve(filter.image);
      return image === undefined ? [] : [image];
    },
    fsInfo: async () => [{ timestamp: host.now(), ...(await images.fsInfo()) }],
    inspect: (reference) => {
      const image = images.resolve(reference);
      if (image === undefined) throw new RuntimeError('not-found', `image "${reference}" not found`);
      return { ...image };
    },
  };
}
