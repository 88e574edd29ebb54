import { openDurableImages } from './durable-images.js';
import { testCall } from './image-store.js';

/** A process of its own that pulls, to be killed: `pull-process ROOT REFERENCE…`. Says `ready`, then each image's id. */
const [root = '', ...references] = process.argv.slice(2);
const { images } = await openDurableImages(root);
console.log('ready');
await Promise.all(references.map(async (each) => console.log((await images.pull(each, undefined, {}, testCall())).id)));
process.exit(0);
