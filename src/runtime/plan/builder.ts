import { RuntimeError } from '../../kit/errors.js';
import type { InnerStep, OuterStep, Slot } from './plan.js';

const slots = 256;

/** A plan under construction. */
export interface PlanBuilder {
  readonly outer: OuterStep[];
  readonly inner: InnerStep[];
  /** The next free slot. */
  slot(): Slot;
}

export function planBuilder(): PlanBuilder {
  let used = 0;
  return {
    outer: [],
    inner: [],
    slot() {
      if (used === slots) {
        throw new RuntimeError(
          'invalid-argument',
          `mounts: a container cannot have more than ${slots - 1} bind mounts`,
        );
      }
      return used++;
    },
  };
}
