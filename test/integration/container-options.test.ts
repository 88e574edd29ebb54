import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LinuxResources } from '../../src/runtime/model.js';
import { usePods, type Pods } from '../support/pods.js';
import { call, containerConfig } from '../support/runtime.js';
import { skip } from '../support/skip.js';
import { factsProgram, volume } from '../support/userns.js';

/** A file of a container's cgroup, as the host has it. */
function cgroupFile(
  pods: Pods,
  id: string,
  controller: string,
  file: { readonly v1: string; readonly v2: string },
): string {
  const { registry, cgroups } = pods.host.parts;
  const { v1Roots, v2Root } = cgroups.layout;
  const v1 = v1Roots.get(controller);
  const root = v1 ?? v2Root ?? assert.fail(`${controller} is nowhere`);
  return readFileSync(
    join(root, registry.container(id).record.cgroupPath, v1 === undefined ? file.v2 : file.v1),
    'utf8',
  ).trim();
}

describe('supplemental groups', function () {
  this.timeout(60_000);
  const pods = usePods();
  const asked = { runAsUser: 1000, runAsGroup: 1000, supplementalGroups: [7, 9] };

  for (const [policy, groups] of [
    ['merge', [1000, 7, 9, 50_000]],
    ['strict', [1000, 7, 9]],
  ] as const)
    it(`of policy ${policy} are ${groups.join(', ')}, in the container and its status`, async () => {
      const config = containerConfig('id -G', { security: { ...asked, supplementalGroupsPolicy: policy } });
      const { id, output } = await pods.toEnd(await pods.run(), config);
      const sorted = (list: readonly number[]) => [...list].sort((a, b) => a - b);
      assert.deepEqual(sorted(output.trim().split(' ').map(Number)), sorted(groups));
      assert.deepEqual(sorted(pods.host.runtime.containers.status(id).user.groups), sorted(groups));
    });
});

describe('limits of swap and huge pages', function () {
  this.timeout(60_000);
  const pods = usePods();
  const start = async (resources: LinuxResources) =>
    await pods.start(await pods.run(), containerConfig('sleep 1000', { resources }));

  it('count swap on top of memory, and change together', async () => {
    const id = await start({ memoryLimit: 32 << 20, memorySwapLimit: 48 << 20 });
    const swap = () => cgroupFile(pods, id, 'memory', { v1: 'memory.memsw.limit_in_bytes', v2: 'memory.swap.max' });
    const onV1 = pods.host.parts.cgroups.layout.v1Roots.has('memory');
    assert.equal(swap(), String((onV1 ? 48 : 16) << 20));
    const change = { memoryLimit: 64 << 20, memorySwapLimit: 64 << 20 };
    await pods.host.runtime.containers.updateResources(id, change, {}, call());
    assert.equal(swap(), String((onV1 ? 64 : 0) << 20));
    assert.equal(pods.host.runtime.containers.status(id).resources.memorySwapLimit, 64 << 20);
  });

  it('bound huge pages by size', async function () {
    const { v1Roots, version } = pods.host.parts.cgroups.layout;
    if (version !== 'v2' && !v1Roots.has('hugetlb')) skip(this, 'there is no hugetlb controller here');
    const id = await start({ hugepageLimits: [{ pageSize: '2MB', limitBytes: 4 << 20 }] });
    const file = { v1: 'hugetlb.2MB.limit_in_bytes', v2: 'hugetlb.2MB.max' };
    assert.equal(cgroupFile(pods, id, 'hugetlb', file), String(4 << 20));
  });
});

describe('limits of huge pages without their controller', function () {
  this.timeout(60_000);
  const hugepageLimits = [{ pageSize: '2MB', limitBytes: 4 << 20 }];
  for (const tolerate of [true, false]) {
    describe(tolerate ? 'tolerated' : 'not tolerated', () => {
      const pods = usePods({ flags: { 'cgroup-tolerate-missing-hugetlb': String(tolerate) } });
      it(tolerate ? 'let containers run' : 'are refused, and nothing is left', async function () {
        const { v1Roots, version } = pods.host.parts.cgroups.layout;
        if (version === 'v2' || v1Roots.has('hugetlb')) skip(this, 'the hugetlb controller is here');
        const output = pods.output(await pods.run(), containerConfig('echo ran', { resources: { hugepageLimits } }));
        await (tolerate ? output.then((text) => assert.equal(text, 'ran\n')) : assert.rejects(output, /hugetlb/));
      });
    });
  }
});

/** What an ordinary user of a pod may do: listen on a port below 1024, and ping. */
const attempts = `
  nc -l -p 80 </dev/null >/dev/null 2>&1 & listener=$!
  for i in 1 2 3 4 5 6 7 8 9 10; do
    grep -q ':0050 [0-9A-F:]* 0A' /proc/net/tcp /proc/net/tcp6 && echo port && break
    kill -0 $listener 2>/dev/null || break
    sleep 0.1
  done
  kill $listener 2>/dev/null
  /facts ping`;

describe('ports and pings of ordinary users', function () {
  this.timeout(60_000);
  const security = { runAsUser: 1000, runAsGroup: 1000 };
  const attempt = () => containerConfig(attempts, { security, mounts: [volume(factsProgram(), '/facts')] });

  describe('by default', () => {
    const pods = usePods();
    it('are allowed', async () => {
      assert.equal(await pods.output(await pods.run(), attempt()), 'port\nping\n');
    });

    it('are the pod’s to forbid', async () => {
      const sysctls = { 'net.ipv4.ip_unprivileged_port_start': '1024', 'net.ipv4.ping_group_range': '1 0' };
      assert.equal(await pods.output(await pods.run({ sysctls }), attempt()), 'EACCES\n');
    });
  });

  describe('where the configuration says no', () => {
    const pods = usePods({ flags: { 'runtime-unprivileged-ports': 'false', 'runtime-unprivileged-ping': 'false' } });
    it('are refused', async () => {
      assert.equal(await pods.output(await pods.run(), attempt()), 'EACCES\n');
    });
  });
});

describe('AppArmor profiles', function () {
  this.timeout(60_000);
  const pods = usePods();
  it('that the kernel does not have are refused by field, and nothing is left', async () => {
    const apparmor = { kind: 'localhost', localhostRef: 'missing' } as const;
    await assert.rejects(
      pods.output(await pods.run(), containerConfig('true', { security: { apparmor } })),
      /config\.linux\.security_context\.apparmor\.localhost_ref: profile "missing" (is not loaded|needs AppArmor)/,
    );
    assert.deepEqual(pods.host.runtime.containers.list({}), []);
  });
});
