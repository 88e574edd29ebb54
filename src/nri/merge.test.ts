import assert from 'node:assert/strict';
import {
  Container,
  ContainerAdjustment,
  ContainerUpdate,
  Field,
  type DeepPartial,
} from '../../api/nri/v1alpha1/generated/api.js';
import { isKind } from '../kit/errors.js';
import { adjustmentOf, resourcesOf } from './from-message.js';
import { emptyMerge, mergeAdjustment, mergeUpdates, type Merged } from './merge.js';
import { Owners } from './owners.js';

interface Sum extends Merged {
  readonly shown: Container;
  readonly owners: Owners;
}

/** What comes of adjustments by plugins a, b, c… of a container with id `c`. */
function merged(container: DeepPartial<Container>, ...adjustments: DeepPartial<ContainerAdjustment>[]): Sum {
  const sum = { ...emptyMerge(), shown: Container.fromPartial({ id: 'c', ...container }), owners: new Owners() };
  adjustments.forEach((adjustment, index) => {
    const plugin = `0${index}-${'abcdef'[index]}`;
    mergeAdjustment(ContainerAdjustment.fromPartial(adjustment), plugin, sum.adjust, sum.shown, sum.owners);
  });
  return sum;
}

const conflict = (message: RegExp) => (error: unknown) => isKind(error, 'wrong-state') && message.test(error.message);

describe('merging of what plugins want', () => {
  it('adds up entries, and shows the container with them', () => {
    const { adjust, shown } = merged(
      { env: ['A=1', 'B=2'], mounts: [{ destination: '/m', source: '/old' }] },
      { env: [{ key: 'A', value: '3' }], mounts: [{ destination: '/m', source: '/new' }] },
      { env: [{ key: '-B' }, { key: 'C', value: '4' }], annotations: { x: 'y' } },
    );
    assert.deepEqual(shown.env.sort(), ['A=3', 'C=4']);
    assert.deepEqual(
      shown.mounts.map(({ source }) => source),
      ['/new'],
    );
    assert.deepEqual(shown.annotations, { x: 'y' });
    assert.deepEqual(
      adjust.env.map(({ key }) => key),
      ['A', '-B', 'C'],
    );
  });

  it('forgets what was set when it is taken away, and says who did', () => {
    const { adjust, owners } = merged({}, { annotations: { x: '1' } }, { annotations: { '-x': '' } });
    assert.deepEqual(adjust.annotations, { '-x': '' });
    assert.deepEqual(owners.message().owners['c']?.compound[Field.ANNOTATIONS]?.owners, { x: '-01-b' });
    assert.throws(
      () => merged({}, { annotations: { x: '1' } }, { annotations: { '-x': '' } }, { annotations: { x: '3' } }),
      conflict(/plugins 01-b and 02-c both set annotations x of c/),
    );
  });

  const both: readonly (readonly [string, DeepPartial<ContainerAdjustment>, RegExp])[] = [
    ['a device', { linux: { devices: [{ path: '/dev/x' }] } }, /devices \/dev\/x/],
    ['a namespace', { linux: { namespaces: [{ type: 'pid' }] } }, /namespace pid/],
    ['a sysctl', { linux: { sysctl: { 'net.x': '1' } } }, /sysctl net\.x/],
    ['a limit', { rlimits: [{ type: 'RLIMIT_NOFILE' }] }, /rlimits RLIMIT_NOFILE/],
    ['a CDI device', { cdiDevices: [{ name: 'v/c=d' }] }, /cdi devices v\/c=d/],
    ['arguments', { args: ['x'] }, /both set args of/],
    ['the OOM score', { linux: { oomScoreAdj: { value: 1n } } }, /oom score adj/],
    ['the cgroup', { linux: { cgroupsPath: '/x' } }, /cgroups path/],
    ['the filter', { linux: { seccompPolicy: { defaultAction: 'x' } } }, /seccomp policy/],
    ['the memory limit', { linux: { resources: { memory: { limit: { value: 1n } } } } }, /memory limit/],
    ['CPU shares', { linux: { resources: { cpu: { shares: { value: 1n } } } } }, /cpu shares/],
    ['CPUs', { linux: { resources: { cpu: { cpus: '0' } } } }, /cpuset cpus/],
    ['a huge page limit', { linux: { resources: { hugepageLimits: [{ pageSize: '2MB' }] } } }, /hugepage limits 2MB/],
    ['a unified file', { linux: { resources: { unified: { 'a.b': '1' } } } }, /cgroups unified a\.b/],
    ['an RDT class', { linux: { rdt: { closId: { value: 'x' } } } }, /rdt clos id/],
  ];
  for (const [what, adjustment, message] of both)
    it(`lets one plugin alone set ${what}`, () => {
      merged({}, adjustment);
      assert.throws(() => merged({}, adjustment, adjustment), conflict(message));
    });

  it('lets arguments be replaced by who says so, and hooks add up', () => {
    const hooks = { poststop: [{ path: '/h' }] };
    const { adjust, shown, owners } = merged(
      { args: ['old'] },
      { args: ['x'], hooks },
      { args: ['', 'y', 'z'], hooks },
    );
    assert.deepEqual(
      [adjust.args, shown.args],
      [
        ['y', 'z'],
        ['y', 'z'],
      ],
    );
    assert.equal(adjust.hooks?.poststop.length, 2);
    assert.equal(owners.of('c', Field.OCI_HOOKS), '00-a,01-b');
  });

  it('adds up resources field by field', () => {
    const { adjust, shown } = merged(
      { linux: { resources: { cpu: { period: { value: 9n } } } } },
      { linux: { resources: { cpu: { shares: { value: 1n } }, unified: { a: '1' } } } },
      { linux: { resources: { cpu: { quota: { value: 0n } }, unified: { b: '2' } } } },
    );
    const cpu = { shares: { value: 1n }, quota: { value: 0n } };
    assert.deepEqual(
      resourcesOf(adjust.linux?.resources ?? assert.fail(), () => ''),
      {
        cpuShares: 1,
        cpuQuota: 0,
        unified: { a: '1', b: '2' },
      },
    );
    assert.deepEqual(
      [shown.linux?.resources?.cpu?.shares, shown.linux?.resources?.cpu?.quota, shown.linux?.resources?.cpu?.period],
      [cpu.shares, cpu.quota, { value: 9n }],
    );
  });

  it('keeps an update that may fail from failing the others', () => {
    const owners = new Owners();
    const sum = emptyMerge();
    const update = (shares: bigint, ignoreFailure = false): ContainerUpdate =>
      ContainerUpdate.fromPartial({
        containerId: 'o',
        linux: { resources: { cpu: { shares: { value: shares } } } },
        ignoreFailure,
      });
    mergeUpdates([update(1n)], '00-a', sum, owners, 'c');
    mergeUpdates([update(2n, true)], '01-b', sum, owners, 'c');
    assert.deepEqual(sum.updates.get('o')?.linux?.resources?.cpu?.shares, { value: 1n });
    assert.throws(() => mergeUpdates([update(3n)], '01-b', sum, owners, 'c'), conflict(/both set cpu shares of o/));
    assert.throws(() => mergeUpdates([update(3n)], '01-b', sum, owners, 'o'), conflict(/wants o updated/));
  });
});

describe('what plugins want, in our terms', () => {
  it('is nothing when they want nothing', () => {
    const { deviceRules, resources, rlimits, ...rest } = adjustmentOf(emptyMerge().adjust, () => '');
    assert.deepEqual([deviceRules, resources, rlimits], [[], {}, []]);
    for (const value of Object.values(rest)) assert.equal((value as ReadonlyMap<string, unknown>).size, 0);
  });

  it('refuses numbers, types and places there are not', () => {
    const adjusting = (adjust: DeepPartial<ContainerAdjustment>) => () =>
      adjustmentOf(ContainerAdjustment.fromPartial(adjust), () => '00-a');
    for (const wrong of [
      { linux: { devices: [{ path: '/dev/x', type: 'x' }] } },
      { mounts: [{ destination: 'relative' }] },
      { linux: { resources: { memory: { limit: { value: 2n ** 60n } } } } },
      { linux: { resources: { devices: [{ allow: true, type: 'z' }] } } },
    ])
      assert.throws(adjusting(wrong), (error) => isKind(error, 'invalid-argument'), JSON.stringify(Object.keys(wrong)));
  });
});
