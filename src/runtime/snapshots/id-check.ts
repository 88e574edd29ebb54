import type { Call } from '../../kit/call.js';
import { isKind, messageOf, RuntimeError } from '../../kit/errors.js';
import { SharedWork } from '../../kit/shared-work.js';
import { formatRanges, mappedRanges, mapsAll, type IdMappings } from '../idmap/mapping.js';
import type { RemapProgress } from './remap-store.js';
import type { Layer } from './snapshotter.js';

/**
 * Whether a pod has an id for every file of an image whose layers are mounted idmapped, where nobody else would look: the
 * kernel shows such a file as nobody's. What the unpacker noted of each layer says yes at once. Else the ids missing may
 * be those of files that upper layers hide, so the merged tree is walked. What comes of it depends on the ids inside the
 * pod alone, of which most pods have the same, and is remembered.
 */
export interface IdCheck {
  /** Errors: invalid-argument naming the file and its id; cancelled, internal. Layers of unknown ids pass. */
  ensure(order: IdCheckOrder, call: Call): Promise<void>;
  /** Ends what is under way and waits for its end. */
  close(): Promise<void>;
}

export interface IdCheckOrder {
  readonly chainId: string;
  readonly mappings: IdMappings;
  /** The whole stack, topmost first. */
  readonly layers: readonly Layer[];
}

/** Walks the merged tree. Errors: invalid-argument where an id is not mapped. */
export type CheckIds = (
  mappings: IdMappings,
  lowerDirs: readonly string[],
  signal: AbortSignal,
  report: (progress: RemapProgress) => void,
) => Promise<void>;

const maxRemembered = 1000;

/** What is wrong; undefined: nothing. */
type Fault = string | undefined;

export function createIdCheck(check: CheckIds): IdCheck {
  const known = new Map<string, Fault>();
  const flights = new SharedWork<RemapProgress, Fault>();
  const closing = new AbortController();

  const remember = (key: string, fault: Fault): Fault => {
    known.set(key, fault);
    const [oldest = key] = known.keys();
    if (known.size > maxRemembered) known.delete(oldest);
    return fault;
  };
  const walk = async (key: string, { mappings, layers }: IdCheckOrder, { signal, observer }: Call): Promise<Fault> => {
    const until = AbortSignal.any([signal, closing.signal]);
    const onProgress = ({ entries }: RemapProgress): void => observer.progress?.({ entries });
    const dirs = layers.map(({ dir }) => dir);
    return await flights.join(key, until, onProgress, async (own, report) =>
      remember(key, await faultOf(check(mappings, dirs, own, report))),
    );
  };
  return {
    async ensure(order, call) {
      if (order.layers.every(({ ids }) => ids === undefined || mapsAll(order.mappings, ids))) return;
      const key = keyOf(order);
      const fault = known.has(key)
        ? known.get(key)
        : await call.observer.step('check ids', () => walk(key, order, call));
      if (fault !== undefined) throw new RuntimeError('invalid-argument', fault);
    },
    async close() {
      closing.abort();
      await flights.settled();
    },
  };
}

async function faultOf(checked: Promise<void>): Promise<Fault> {
  try {
    return void (await checked);
  } catch (error) {
    if (isKind(error, 'invalid-argument')) return messageOf(error);
    throw error;
  }
}

const keyOf = ({ chainId, mappings }: IdCheckOrder): string =>
  [chainId, ...[mappings.uids, mappings.gids].map((lines) => formatRanges(mappedRanges(lines)))].join(' ');
