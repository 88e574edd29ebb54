import type { Runtime } from '../../runtime/facade.js';

type Section = 'sandboxes' | 'containers' | 'images' | 'maintenance';
export type Method =
  | { [S in Section]: `${S}.${keyof Runtime[S] & string}` }[Section]
  | 'status'
  | 'info'
  | 'runtimeConfig'
  | 'updateRuntimeConfig';

/** What the admin socket offers of the facade. `attach` and `exec` have connections of their own (`streams.ts`). */
export const methods: ReadonlySet<string> = new Set<Method>([
  'sandboxes.run',
  'sandboxes.stop',
  'sandboxes.remove',
  'sandboxes.status',
  'sandboxes.list',
  'sandboxes.inspect',
  'sandboxes.plan',
  'sandboxes.stats',
  'sandboxes.listStats',
  'containers.create',
  'containers.start',
  'containers.stop',
  'containers.remove',
  'containers.status',
  'containers.list',
  'containers.inspect',
  'containers.plan',
  'containers.updateResources',
  'containers.reopenLog',
  'containers.execSync',
  'containers.resize',
  'containers.stats',
  'containers.listStats',
  'images.pull',
  'images.import',
  'images.remove',
  'images.get',
  'images.list',
  'images.fsInfo',
  'images.inspect',
  'maintenance.orphans',
  'maintenance.clean',
  'maintenance.teardown',
  'status',
  'info',
  'runtimeConfig',
]);
