import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { ImageSpec, Mount } from '../../src/runtime/model.js';
import { call } from '../support/runtime.js';
import type { TarEntry } from '../support/tar-builder.js';
import { buildTestImage, type TestImageOptions } from '../support/test-image.js';
import { line, volume } from '../support/userns.js';
import { everyPod, maps, mountsIn, namesIn, volumeSuite } from '../support/volumes.js';

volumeSuite('images as volumes', everyPod, (suite) => {
  const { mapped, run, container, output, create, exec, refused, image } = suite;

  const files: NonNullable<TestImageOptions['files']> = {
    '/mark': 'of the image',
    '/dir/file': { content: 'file', uid: 5, gid: 6 },
    '/dir/sub/deep': 'deep',
    '/bin/tool': { content: '#!/bin/sh\necho ran\n', mode: 0o755 },
    '/here': { linkTo: 'dir/sub' },
    '/root': { linkTo: '/' },
    '/etc/passwd': 'of the image',
    '/absolute': { linkTo: '/etc' },
    '/escape': { linkTo: '../../../../../../../../etc' },
    '/outside': { linkTo: '/proc/self/root/etc' },
  };
  const above: readonly TarEntry[] = [{ path: 'dir/.wh.gone' }, { path: 'more', content: 'more' }];
  const one = () => image({ bare: true, files });
  const two = () => image({ bare: true, files: { ...files, '/dir/gone': 'gone' }, layers: [above] });
  const mount = (image: ImageSpec, changes: Partial<Mount> = {}): Mount =>
    volume('', '/volume', { image, readonly: true, ...changes });

  for (const [what, build] of [
    ['one layer', one],
    ['several layers', two],
  ] as const) {
    it(`of ${what} are shown with their owners, read-only, and nowhere else`, async () => {
      const mounts = [mount(await build(), mapped ? maps : {})];
      const pod = await run();
      const id = await create(pod, container('sleep 1000', { mounts }));
      await suite.host.runtime.containers.start(id, call());
      const script = [
        'cat /volume/mark /volume/here/deep; echo; stat -c "%u:%g" /volume/mark /volume/dir/file',
        'ls /volume/dir; /volume/bin/tool',
        '(echo x > /volume/x) 2>&1 | grep -o Read-only; (echo x > /volume/mark) 2>&1 | grep -o Read-only',
      ].join('; ');
      assert.equal(await exec(id, script), 'of the imagedeep\n0:0\n5:6\nfile\nsub\nran\nRead-only\nRead-only\n');
      assert.deepEqual(mountsIn(suite.dir), []);
    });
  }

  it('cannot be made writable by who may mount', async () => {
    const capabilities = { add: ['CAP_SYS_ADMIN'], drop: [], addAmbient: [] };
    const script = 'mount -o remount,rw,bind /volume; mount -o remount,rw /volume; echo x > /volume/x; ls /volume';
    const seen = await output(`(${script}) 2>&1`, { mounts: [mount(await one())], security: { capabilities } });
    assert.match(seen, /Read-only/);
    assert.doesNotMatch(seen, /^x$/m);
  });

  if (mapped) {
    it('keep the options they were given from the root of a user namespace', async () => {
      const capabilities = { add: ['CAP_SYS_ADMIN'], drop: [], addAmbient: [] };
      const mounts = [mount(await one(), { options: ['noexec', 'nodev', 'nosuid'] })];
      const script = 'mount -o remount,bind,ro,exec,dev,suid /volume; grep " /volume " /proc/self/mountinfo';
      assert.match(
        await output(script, { mounts, security: { capabilities } }),
        /(denied|permitted)[^]* ro,nosuid,nodev,noexec/,
      );
    });
  }

  it(`with owners the pod has no id for are ${mapped ? 'refused' : 'shown'}`, async () => {
    const spec = await image({ bare: true, files: { '/dir/strange': { content: 'x', uid: 70_000 } } });
    if (!mapped) assert.equal(await output('cat /volume/dir/strange', { mounts: [mount(spec)] }), 'x');
    else await refused([mount(spec)], /config\.mounts\[0\]\.image\.image: .*: dir\/strange: uid 70000 is not mapped/);
  });

  it('are named in the status by their id, and mounted with the options asked for', async () => {
    const spec = await two();
    const pod = await run();
    const id = await create(pod, container('sleep 1000', { mounts: [mount(spec, { options: ['noexec', 'nosuid'] })] }));
    const [shown] = suite.host.runtime.containers.status(id).mounts;
    assert.equal(shown?.image?.imageRef, suite.host.runtime.images.get(spec.image)?.id);
    assert.equal(shown?.image?.image, spec.image);
    await suite.host.runtime.containers.start(id, call());
    assert.match(await exec(id, 'grep " /volume " /proc/self/mountinfo'), / ro,nosuid,noexec/);
  });

  it('show a part: a directory, a file, what links inside lead to', async () => {
    const spec = await two();
    const mounts = ['dir', 'dir/file', 'here', 'root', 'absolute', 'escape'].map((imageSubPath, index) =>
      mount(spec, { imageSubPath, containerPath: `/v${index}` }),
    );
    const script =
      'ls /v0; cat /v1; echo; ls /v2; cat /v3/mark; echo; cat /v4/passwd; echo; cat /v5/passwd; touch /v0/x 2>&1';
    assert.match(
      await output(script, { mounts }),
      /^file\nsub\nfile\ndeep\nof the image\nof the image\nof the image.*Read-only file system\n$/,
    );
  });

  it('never show anything but themselves', async () => {
    const spec = await one();
    for (const imageSubPath of ['missing', 'dir/file/x', 'outside', 'dir/missing/../..x'])
      await refused([mount(spec, { imageSubPath })], /config\.mounts\[0\]\.image_sub_path: image ".*" has neither/);
    const mounts = [mount(spec, { imageSubPath: '../../../../../../..' })];
    assert.match(await output('cat /volume/mark', { mounts }), /of the image/);
  });

  it('are refused by field', async () => {
    const spec = await one();
    await refused(
      [mount({ ...spec, image: 'test.example/none:1' })],
      /config\.mounts\[0\]\.image\.image: .* is not on/,
    );
    await refused([mount(spec, { hostPath: '/etc' })], /config\.mounts\[0\]\.host_path: excludes image/);
    await refused([mount(spec, { propagation: 'host-to-container' })], /config\.mounts\[0\]\.propagation: /);
    await refused(
      [mount(spec, { uidMappings: [line(5)], gidMappings: [line(5)] })],
      /config\.mounts\[0\]\.uidMappings: .*the pod's own/,
    );
  });

  it('stay while a container uses them, over a restart of the agent, and go with the last', async () => {
    const spec = await two();
    const found = suite.host.runtime.images.get(spec.image);
    const pod = await run();
    const id = await create(pod, container('sleep 1000', { mounts: [mount(spec)] }));
    await suite.host.runtime.images.remove(spec.image, call());
    assert.equal(suite.host.runtime.images.get(spec.image), undefined);
    await suite.restart();
    await suite.host.runtime.containers.start(id, call());
    assert.equal(await exec(id, 'cat /volume/mark'), 'of the image');
    assert.ok(suite.host.parts.snapshots.layer(found?.chainId ?? ''));
    await suite.host.runtime.containers.remove(id, call());
    await suite.host.runtime.images.import(
      buildTestImage(join(suite.dir, 'last'), { name: 'test.example/last:1', bare: true, files: { '/a': 'a' } }),
      'test.example/last:1',
      call(),
    );
    assert.equal(suite.host.parts.snapshots.layer(found?.chainId ?? ''), undefined);
  });

  it('of a create that the agent did not live to finish are given back, declared ones too', async () => {
    const spec = await two();
    const pod = await run();
    const declaring = await image({ volumes: ['/data'] });
    const id = await create(pod, container('true', { image: declaring, mounts: [mount(spec)] }));
    assert.deepEqual(namesIn(suite.host.parts.paths.volumes), [id]);
    suite.host.parts.registry.updateContainer(id, { stage: 'creating' });
    await suite.restart();
    assert.deepEqual(suite.host.runtime.containers.list({}), []);
    assert.deepEqual(suite.host.parts.snapshots.list(), []);
    assert.deepEqual(namesIn(suite.host.parts.paths.volumes), []);
  });
});
