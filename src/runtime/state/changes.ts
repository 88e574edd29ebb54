import type { ContainerView, SandboxView } from '../facade.js';
import type { ContainerRecord, SandboxRecord } from './records.js';

/** What may happen to a pod or container, in the CRI's words. */
export type ChangeType = 'created' | 'started' | 'stopped' | 'deleted';

/** One change of one object, with its pod as it was right after. */
export interface StateChange {
  readonly type: ChangeType;
  /** Of the container, or of the pod sandbox itself. */
  readonly objectId: string;
  readonly sandbox: SandboxView | undefined;
  readonly containers: readonly ContainerView[];
}

/** A pod that was never ready was never there: its undoing is no event. */
export function sandboxChanges(
  before: Pick<SandboxRecord, 'stage'>,
  after: Pick<SandboxRecord, 'stage'> | undefined,
): readonly ChangeType[] {
  if (after === undefined) return before.stage === 'creating' ? [] : ['deleted'];
  if (before.stage === after.stage) return [];
  return after.stage === 'ready' ? ['created', 'started'] : before.stage === 'ready' ? ['stopped'] : [];
}

export function containerChanges(
  before: Pick<ContainerRecord, 'stage' | 'exit'>,
  after: Pick<ContainerRecord, 'stage' | 'exit'> | undefined,
): readonly ChangeType[] {
  if (after === undefined) return before.stage === 'creating' ? [] : ['deleted'];
  const created = before.stage === 'creating' && after.stage !== 'creating';
  const started = before.stage !== 'started' && after.stage === 'started';
  const stopped = before.exit === undefined && after.exit !== undefined;
  return [
    ...(created ? (['created'] as const) : []),
    ...(started ? (['started'] as const) : []),
    ...(stopped ? (['stopped'] as const) : []),
  ];
}
