import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import type { LinuxResources } from '../model.js';
import { convertV1, convertV2, sharesToWeight, withoutHugetlb } from './convert.js';
import type { V1Current, V2Current, WriteGroup } from './convert.js';

/** `file=value`, a `?` for files that may be absent, groups separated by `|`. */
const show = (groups: readonly WriteGroup[]): string =>
  groups
    .map((group) => group.map((item) => `${item.file}=${item.value}${item.optional ? '?' : ''}`).join(' '))
    .join(' | ');

const mib = 1 << 20;

describe('cgroup v1 conversion', () => {
  const table: [name: string, resources: LinuxResources, expected: string, current?: V1Current][] = [
    ['nothing', {}, ''],
    ['zeros are unspecified', { cpuShares: 0, cpuQuota: 0, cpuPeriod: 0, memoryLimit: 0, memorySwapLimit: 0 }, ''],
    ['shares', { cpuShares: 512 }, 'cpu.shares=512'],
    ['shares are clamped', { cpuShares: 1 }, 'cpu.shares=2'],
    ['quota', { cpuQuota: 50_000, cpuPeriod: 100_000 }, 'cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000'],
    ['no quota', { cpuQuota: -1 }, 'cpu.cfs_quota_us=-1'],
    ['any negative quota', { cpuQuota: -5 }, 'cpu.cfs_quota_us=-1'],
    ['memory', { memoryLimit: mib }, 'memory.limit_in_bytes=1048576'],
    [
      'memory above the sum in force raises it',
      { memoryLimit: 2 * mib },
      'memory.limit_in_bytes=2097152 memory.memsw.limit_in_bytes=2097152?',
      { memswLimit: '1048576' },
    ],
    [
      'memory below the sum',
      { memoryLimit: 2 * mib },
      'memory.limit_in_bytes=2097152',
      { memswLimit: '9223372036854771712' },
    ],
    ['no memory limit', { memoryLimit: -1 }, 'memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1?'],
    [
      'no swap',
      { memoryLimit: mib, memorySwapLimit: mib },
      'memory.limit_in_bytes=1048576 memory.memsw.limit_in_bytes=1048576?',
    ],
    [
      'some swap',
      { memoryLimit: mib, memorySwapLimit: 3 * mib },
      'memory.limit_in_bytes=1048576 memory.memsw.limit_in_bytes=3145728',
    ],
    [
      'swap without limit',
      { memoryLimit: mib, memorySwapLimit: -1 },
      'memory.limit_in_bytes=1048576 memory.memsw.limit_in_bytes=-1?',
    ],
    ['pids', { pidsLimit: 5 }, 'pids.max=5'],
    ['no pids limit', { pidsLimit: -1 }, 'pids.max=max'],
    ['cpuset', { cpusetCpus: '0-1', cpusetMems: '0' }, 'cpuset.cpus=0-1 cpuset.mems=0'],
    [
      'huge pages, zero is a limit',
      { hugepageLimits: [{ pageSize: '2MB', limitBytes: 0 }] },
      'hugetlb.2MB.limit_in_bytes=0 hugetlb.2MB.rsvd.limit_in_bytes=0?',
    ],
    ['oom score is no cgroup file', { oomScoreAdj: 5 }, ''],
  ];
  for (const [name, resources, expected, current] of table) {
    it(name, () => assert.equal(show(convertV1(resources, current)), expected));
  }

  it('refuses unified keys by name', () => {
    assert.throws(() => convertV1({ unified: { 'memory.high': '1' } }), /^RuntimeError: unified\["memory\.high"\]/);
  });
});

describe('cgroup v2 conversion', () => {
  const table: [name: string, resources: LinuxResources, expected: string, current?: V2Current][] = [
    ['nothing', {}, ''],
    ['shares', { cpuShares: 1024 }, 'cpu.weight=100'],
    ['quota and period', { cpuQuota: 50_000, cpuPeriod: 20_000 }, 'cpu.max=50000 20000'],
    ['quota alone keeps the period', { cpuQuota: 50_000 }, 'cpu.max=50000 30000', { cpuMax: 'max 30000\n' }],
    ['period alone keeps the quota', { cpuPeriod: 50_000 }, 'cpu.max=7000 50000', { cpuMax: '7000 100000\n' }],
    ['no quota', { cpuQuota: -1 }, 'cpu.max=max 100000'],
    ['memory', { memoryLimit: mib }, 'memory.max=1048576'],
    ['no memory limit', { memoryLimit: -1 }, 'memory.max=max'],
    ['no swap', { memoryLimit: mib, memorySwapLimit: mib }, 'memory.swap.max=0? memory.max=1048576'],
    ['some swap', { memoryLimit: mib, memorySwapLimit: 3 * mib }, 'memory.swap.max=2097152 memory.max=1048576'],
    ['swap without limit', { memoryLimit: mib, memorySwapLimit: -1 }, 'memory.swap.max=max? memory.max=1048576'],
    [
      'sum with the limit in force',
      { memorySwapLimit: 3 * mib },
      'memory.swap.max=2097152',
      { memoryMax: '1048576\n' },
    ],
    ['pids', { pidsLimit: 5 }, 'pids.max=5'],
    [
      'huge pages',
      { hugepageLimits: [{ pageSize: '1GB', limitBytes: 1 << 30 }] },
      'hugetlb.1GB.max=1073741824 hugetlb.1GB.rsvd.max=1073741824?',
    ],
    [
      'unified comes last and verbatim',
      { unified: { 'memory.oom.group': '1', 'memory.high': '5000000' }, pidsLimit: 3 },
      'pids.max=3 | memory.oom.group=1 memory.high=5000000',
    ],
  ];
  for (const [name, resources, expected, current] of table) {
    it(name, () => assert.equal(show(convertV2(resources, current)), expected));
  }
});

describe('resources that cannot be', () => {
  const table: [name: string, resources: LinuxResources, message: RegExp][] = [
    [
      'a sum below the limit',
      { memoryLimit: 2 * mib, memorySwapLimit: mib },
      /^memorySwapLimit: 1048576 is memory plus swap/,
    ],
    ['a sum without a limit', { memoryLimit: -1, memorySwapLimit: mib }, /^memorySwapLimit: /],
    ['a negative limit', { memoryLimit: -2 }, /^memoryLimit: -2/],
    ['a fraction', { pidsLimit: 1.5 }, /^pidsLimit: 1\.5/],
    ['a page size', { hugepageLimits: [{ pageSize: '../2MB', limitBytes: 1 }] }, /^hugepageLimits\[0\]\.pageSize/],
  ];
  for (const [name, resources, message] of table) {
    for (const convert of [convertV1, convertV2]) {
      it(`${name} (${convert.name})`, () => {
        assert.throws(
          () => convert(resources),
          (error) => isKind(error, 'invalid-argument') && message.test(error.message),
        );
      });
    }
  }

  for (const file of ['../memory.max', 'memory/max', 'memory', '', 'memory..max', 'cgroup\0.x']) {
    it(`the unified key ${JSON.stringify(file)}`, () => {
      assert.throws(
        () => convertV2({ unified: { [file]: '1' } }),
        (error) => isKind(error, 'invalid-argument'),
      );
    });
  }
});

describe('sharesToWeight', () => {
  it('meets both ends and the default, and never falls', () => {
    assert.deepEqual([0, 2, 1024, 262_144, 1e9].map(sharesToWeight), [1, 1, 100, 10_000, 10_000]);
    let last = 0;
    for (let shares = 2; shares <= 262_144; shares += 97) {
      const weight = sharesToWeight(shares);
      assert.ok(weight >= last && weight >= 1 && weight <= 10_000);
      last = weight;
    }
  });
});

describe('hosts without a hugetlb controller', () => {
  const limits = (limitBytes: number): LinuxResources => ({ hugepageLimits: [{ pageSize: '2MB', limitBytes }] });

  it('drop the limits when told to tolerate, or when there is nothing to limit', () => {
    assert.deepEqual(withoutHugetlb({ ...limits(5), pidsLimit: 1 }, true), { pidsLimit: 1 });
    assert.deepEqual(withoutHugetlb(limits(0), false), {});
  });

  it('say so otherwise', () => {
    assert.throws(() => withoutHugetlb(limits(4 * mib), false), /2MB is limited to 4194304 bytes.*no hugetlb/);
  });
});
