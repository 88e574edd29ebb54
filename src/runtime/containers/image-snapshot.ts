import type { Call } from '../../kit/call.js';
import { invalid, isKind } from '../../kit/errors.js';
import type { IdMappings } from '../idmap/mapping.js';
import type { Image } from '../model.js';
import type { Parts } from '../parts.js';
import type { Snapshot } from '../snapshots/snapshotter.js';

/** Prepares a snapshot of an image for a pod with these mappings. What is wrong with the image is said of `field`. */
export async function snapshotImage(
  key: string,
  { chainId }: Image,
  field: string,
  mappings: IdMappings | undefined,
  call: Call,
  { snapshots, userNamespaces }: Pick<Parts, 'snapshots' | 'userNamespaces'>,
): Promise<Snapshot> {
  const wanted = mappings === undefined ? {} : { mappings, way: userNamespaces.way };
  try {
    return await snapshots.prepare(key, { chainId, ...wanted }, call);
  } catch (error) {
    throw isKind(error, 'invalid-argument') ? invalid(field, error.message) : error;
  }
}
