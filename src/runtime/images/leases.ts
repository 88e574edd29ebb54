/**
 * What must not be collected although no image record names it yet: the content and layers of pulls and imports under
 * way, and the images that containers are being made of.
 */
export interface Lease {
  blobs(digests: readonly string[]): void;
  chains(chainIds: readonly string[]): void;
}

export interface Leases {
  /** Keeps what `work` tells its lease until `work` has ended. */
  during<T>(work: (lease: Lease) => Promise<T>): Promise<T>;
  blobs(): Iterable<string>;
  chains(): Iterable<string>;
}

export function createLeases(): Leases {
  const active = new Set<{ blobs: string[]; chains: string[] }>();
  return {
    async during(work) {
      const held = { blobs: [] as string[], chains: [] as string[] };
      active.add(held);
      try {
        return await work({
          blobs: (digests) => void held.blobs.push(...digests),
          chains: (chainIds) => void held.chains.push(...chainIds),
        });
      } finally {
        active.delete(held);
      }
    },
    *blobs() {
      for (const held of active) yield* held.blobs;
    },
    *chains() {
      for (const held of active) yield* held.chains;
    },
  };
}
