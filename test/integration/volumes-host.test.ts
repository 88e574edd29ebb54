import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chownSync,
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../../src/kit/deadline.js';
import { openNative } from '../../src/native/native.js';
import type { Mount } from '../../src/runtime/model.js';
import { call, containerConfig, makeTestHost, podConfig, runToEnd } from '../support/runtime.js';
import { line, volume } from '../support/userns.js';
import { bothPods, maps, volumeSuite } from '../support/volumes.js';

volumeSuite('volumes of the host', bothPods, (suite) => {
  const { mapped, output, refused, directory, tree } = suite;

  it('are read-only all the way down where asked, at the top alone where not', async () => {
    const dir = tree('rro');
    const own = mapped ? maps : {};
    const mounts = [
      volume(dir, '/all', { ...own, readonly: true, recursiveReadOnly: true }),
      volume(dir, '/top', { ...own, readonly: true }),
    ];
    const script =
      'for d in /all /all/below /top /top/below; do (touch $d/x) 2>&1 | grep -o Read-only || echo $d; done';
    assert.equal(await output(script, { mounts }), 'Read-only\nRead-only\nRead-only\n/top/below\n');
    await refused([volume(dir, '/v', { recursiveReadOnly: true })], /recursive_read_only: needs readonly/);
    await refused(
      [volume(dir, '/v', { recursiveReadOnly: true, readonly: true, propagation: 'host-to-container' })],
      /recursive_read_only: needs propagation PRIVATE/,
    );
  });

  it('are passed on only from mounts that pass on', async () => {
    const dir = tree('shared');
    execFileSync('mount', ['--make-rprivate', dir]);
    const mounts = [volume(dir, '/v', { propagation: 'host-to-container' })];
    await refused(
      mounts,
      /config\.mounts\[0\]\.propagation: .* is on the mount .*\/shared, which is not shared or a slave/,
    );
    if (!mapped) {
      const both = [volume(join(dir, 'below'), '/v', { propagation: 'bidirectional' })];
      await refused(both, /propagation: .*below, which is not shared$/);
    }
    execFileSync('mount', ['--make-rshared', dir]);
    execFileSync('mount', ['--bind', dir, directory('master')]);
    execFileSync('mount', ['--make-slave', dir]);
    assert.equal(await output('ls /v', { mounts }), 'below\n');
  });

  it('show the ids they are mapped to, with what is mounted below', async () => {
    const dir = tree('ids');
    for (const path of [dir, join(dir, 'below')]) writeFileSync(join(path, 'file'), '');
    chownSync(join(dir, 'below', 'file'), 3, 4);
    const script =
      'stat -c "%u:%g" /v/file /v/below/file; touch /v/new /v/below/new && chown 7:8 /v/below/new; stat -c "%u:%g" /v/below/new';
    const seen = await output(script, { mounts: [volume(dir, '/v', maps)] });
    // Without a user namespace the ids are seen as the mapping gives them.
    assert.match(seen, mapped ? /^0:0\n3:4\n7:8\n$/ : /^1000000:2000000\n1000003:2000004\n/);
    if (mapped) assert.deepEqual(ids(join(dir, 'below', 'new')), [7, 8]);
  });

  it('can have maps that are not the pod’s', async () => {
    const dir = directory('other');
    writeFileSync(join(dir, 'file'), '');
    const shifted = { uidMappings: [line(1_000_100, 10)], gidMappings: [line(2_000_200, 10)] };
    const seen = await output('stat -c "%u:%g" /v/file', { mounts: [volume(dir, '/v', shifted)] });
    assert.equal(seen, mapped ? '100:200\n' : '1000100:2000200\n');
  });

  it('whose maps are none are refused by field', async () => {
    const dir = directory('none');
    await refused([volume(dir, '/v', { uidMappings: maps.uidMappings })], /mounts\[0\]\.gidMappings: .*together/);
    await refused([volume(dir, '/v', { gidMappings: maps.gidMappings })], /mounts\[0\]\.uidMappings: .*together/);
    await refused([volume(dir, '/v', { ...maps, uidMappings: [line(0, 0)] })], /uidMappings: 0:0:0 maps nothing/);
  });

  it('that cannot be mapped are refused with their file system, also what is below', async () => {
    await refused([volume('/sys/kernel', '/v', maps)], /volume \/sys\/kernel for \/v: file system sysfs .*Linux \d/);
    const dir = tree('unmappable');
    mkdirSync(join(dir, 'proc'));
    execFileSync('mount', ['-t', 'proc', 'proc', join(dir, 'proc')]);
    await refused(
      [volume(dir, '/v', maps)],
      /volume .*\/unmappable for \/v: file system proc \(mounted on .*\/unmappable\/proc\) cannot be idmapped/,
    );
    if (mapped) return;
    assert.equal(await output('ls -d /v/proc/1', { mounts: [volume(dir, '/v')] }), '/v/proc/1\n');
  });

  it('of overlays and tmpfs are mapped', async () => {
    const dir = directory('overlay');
    for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(join(dir, name), { recursive: true });
    const data = `lowerdir=${join(dir, 'lower')},upperdir=${join(dir, 'upper')},workdir=${join(dir, 'work')}`;
    execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', data, join(dir, 'merged')]);
    writeFileSync(join(dir, 'merged', 'file'), '');
    const mounts = [volume(join(dir, 'merged'), '/v', maps)];
    const reason = suite.host.parts.userNamespaces.refusal(join(dir, 'merged'), true);
    if (reason !== undefined) return await refused(mounts, /file system overlay .* cannot be idmapped/);
    assert.equal(await output('stat -c "%u:%g" /v/file', { mounts }), mapped ? '0:0\n' : '1000000:2000000\n');
  });

  it('through links are what the links say now', async () => {
    const dir = directory('real');
    writeFileSync(join(dir, 'file'), 'x');
    const link = join(suite.dir, 'link');
    symlinkSync(dir, link);
    assert.equal(await output('ls /v', { mounts: [volume(link, '/v', mapped ? maps : {})] }), 'file\n');
    rmSync(link);
    await refused([volume(link, '/v')], /host_path: .* does not exist/);
    assert.ok(lstatSync(dir).isDirectory());
  });
});

describe('volumes whose file system does not answer', function () {
  this.timeout(60_000);

  it('are named, also below others, while the agent goes on', async () => {
    const testHost = makeTestHost();
    const { mounts } = openNative();
    // Nobody ever reads what the kernel asks here, as with a server that is gone.
    let silent: number | undefined = openSync('/dev/fuse', 'r+');
    const hangUp = (): void => {
      if (silent !== undefined) closeSync(silent);
      silent = undefined;
    };
    const dir = join(testHost.dir, 'volume');
    const below = join(dir, 'below');
    mkdirSync(below, { recursive: true });
    try {
      const host = await testHost.open();
      const pod = await host.runtime.sandboxes.run({ config: podConfig(testHost.dir), runtimeHandler: '' }, call());
      mounts.mount('silent', below, 'fuse', 0, `fd=${silent},rootmode=40000,user_id=0,group_id=0`);
      const create = (mount: Mount): Promise<string> =>
        host.runtime.containers.create(
          { sandboxId: pod, config: containerConfig('true', { mounts: [mount] }) },
          call(),
        );
      const hanging = Promise.all([
        assert.rejects(create(volume(below, '/v')), /config\.mounts\[0\]\.host_path: look up .*\/below: no answer/),
        assert.rejects(create(volume(dir, '/v', maps)), /config\.mounts\[0\]\.host_path: look up .*\/below: no answer/),
      ]);
      assert.equal((await runToEnd(host, pod, containerConfig('echo fine'))).output, 'fine\n');
      await hanging;
      await assert.rejects(create(volume(below, '/v')), /no answer to an earlier request yet/);
      const { lookups } = host.parts;
      hangUp();
      for (let i = 0; i < 100 && (await lookups.find(below, 'path').catch(() => '')) === ''; i++) await sleep(10);
      assert.equal(await lookups.find(below, 'path'), below);
    } finally {
      hangUp();
      mounts.unmountNow(below, 2 /* MNT_DETACH */);
      await testHost.destroy();
    }
  });
});

const ids = (path: string): number[] => [statSync(path).uid, statSync(path).gid];
