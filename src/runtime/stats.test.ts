import assert from 'node:assert/strict';
import type { Cgroups } from './cgroups/types.js';
import type { CgroupStats } from './usage.js';
import { UsageSampler } from './stats.js';

const sample = (timestamp: bigint, usage: bigint): CgroupStats =>
  ({
    timestamp,
    cpu: { usage },
    memory: { workingSet: 5, usage: 7, rss: 3, swap: { usage: 2, limit: 10 } },
    io: { devices: [] },
    pids: { current: 3 },
  }) as unknown as CgroupStats;

describe('usage', () => {
  it('makes a rate of two samples, and keeps it over a span too short to tell', () => {
    const samples = [
      sample(0n, 0n),
      sample(1_000_000_000n, 500_000_000n),
      sample(1_000_000_100n, 500_000_001n),
      sample(2_000_000_000n, 100n),
    ];
    const sampler = new UsageSampler({ stats: () => samples.shift() } as unknown as Cgroups);
    const rate = (): bigint | undefined => sampler.read('c', '/c', 0n)?.cpu?.usageNanoCores;
    assert.deepEqual([rate(), rate(), rate(), rate()], [undefined, 500_000_000n, 500_000_000n, undefined]);
    assert.equal(sampler.read('c', '/c', 0n), undefined);
  });

  it('tells swap that is left', () => {
    const sampler = new UsageSampler({ stats: () => sample(0n, 0n) } as unknown as Cgroups);
    assert.deepEqual(sampler.read('c', '/c', 0n)?.swap, { usageBytes: 2, availableBytes: 8 });
  });
});
