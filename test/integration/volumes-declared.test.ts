import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openNative } from '../../src/native/native.js';
import { call, containerConfig, makeTestHost, podConfig, runToEnd } from '../support/runtime.js';
import type { TarEntry } from '../support/tar-builder.js';
import { buildTestImage } from '../support/test-image.js';
import { volume } from '../support/userns.js';
import { everyPod, maps, namesIn, volumeSuite } from '../support/volumes.js';

/** cap_net_bind_service in the permitted and the effective set; see vfs_ns_cap_data of linux/capability.h. */
const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
const ofMappedRoot = '010000030004000000000000000000000000000040420f00';

volumeSuite('volumes an image declares', everyPod, (suite) => {
  const { mapped, run, container, output, create, exec, image, directory } = suite;

  const layer: readonly TarEntry[] = [
    { path: 'data/', mode: 0o2775, uid: 7, gid: 8 },
    { path: 'data/file', content: 'from the image', uid: 9, gid: 10, mode: 0o4755 },
    { path: 'data/link', type: 'symlink', linkTo: '/etc/shadow' },
    { path: 'data/hard', type: 'link', linkTo: 'data/file' },
    { path: 'data/pipe', type: 'fifo' },
    { path: 'data/capable', pax: { 'SCHILY.xattr.security.capability': capability }, content: 'x' },
    { path: 'data/sub/', mode: 0o700, uid: 7 },
    { path: 'data/sub/deep', content: 'deep' },
    { path: 'data/device', type: 'char', major: 1, minor: 11, mode: 0o666 },
    { path: 'etc/secret', content: 'of the image' },
  ];
  const withVolumes = (volumes: readonly string[], more: readonly TarEntry[] = []) =>
    image({ volumes, layers: [[...layer, ...more]] });
  const volumesOnHost = (id: string): string => suite.host.parts.paths.volumeDir(id);

  it('are directories of the container’s own, with what the image has there', async () => {
    const spec = await withVolumes(['/data', '/not/there']);
    const pod = await run();
    const id = await create(pod, container('sleep 1000', { image: spec, security: { readonlyRootfs: true } }));
    await suite.host.runtime.containers.start(id, call());
    const script = [
      'stat -c "%n %u:%g %a" /data /data/file /data/sub /data/sub/deep /not/there; cat /data/file; echo',
      'readlink /data/link; test -p /data/pipe && echo pipe; cat /data/hard; echo; touch /data/new /not/there/new',
      'grep -c " /data " /proc/self/mountinfo',
    ].join('; ');
    assert.equal(
      await exec(id, script),
      [
        '/data 7:8 2775',
        '/data/file 9:10 4755',
        '/data/sub 7:0 700',
        '/data/sub/deep 0:0 644',
        '/not/there 0:0 755',
        'from the image',
        '/etc/shadow',
        'pipe',
        'from the image',
        '1\n',
      ].join('\n'),
    );
    const dir = join(volumesOnHost(id), '0');
    const { uid, gid } = statSync(join(dir, 'file'));
    assert.deepEqual([uid, gid], mapped ? [1_000_009, 2_000_010] : [9, 10]);
    assert.equal(statSync(volumesOnHost(id)).mode & 0o777, 0o700);
    assert.deepEqual(
      namesIn(suite.host.parts.snapshots.snapshot(id)?.upperDir ?? '').filter((name) => name === 'data'),
      [],
    );
    assert.ok(existsSync(join(dir, 'new')));
    const kept = openNative().files.getXattr(join(dir, 'capable'), 'security.capability');
    // With a user namespace it is version 3, which names the root it is valid for.
    assert.equal(kept?.toString('hex'), mapped ? ofMappedRoot : capability.toString('hex'));
    assert.equal(existsSync(join(dir, 'device')), !mapped);
    await suite.host.runtime.containers.remove(id, call());
    assert.deepEqual(namesIn(suite.host.parts.paths.volumes), []);
  });

  it('hide nothing that the pod mounts there or above, and make nothing in it', async () => {
    const spec = await withVolumes(['/data', '/data/sub', '/other']);
    const dir = directory('theirs');
    writeFileSync(join(dir, 'mine'), '');
    const mounts = [volume(dir, '/data/', { readonly: true, ...(mapped ? maps : {}) })];
    const script = 'ls /data /other; touch /other/x && echo writable';
    assert.equal(await output(script, { image: spec, mounts }), '/data:\nmine\n\n/other:\nwritable\n');
    assert.deepEqual(readdirSync(dir), ['mine']);
  });

  it('hold mounts of the pod, and each other', async () => {
    const spec = await withVolumes(['/data', '/data/sub', '/etc']);
    const dir = directory('inner');
    const mounts = [volume(dir, '/data/sub/mine', mapped ? maps : {})];
    const script = 'cat /data/sub/deep; echo; touch /data/sub/mine/x; cat /etc/secret; echo; grep -c . /etc/hosts';
    assert.match(await output(script, { image: spec, mounts }), /^deep\nof the image\n[1-9]\n$/);
    assert.ok(existsSync(join(dir, 'x')));
  });

  it('stay inside the root: links, dots, /proc, /dev and names without a slash', async () => {
    const outside = directory('outside');
    writeFileSync(join(outside, 'theirs'), 'of the host');
    const spec = await withVolumes(
      ['/evil', '/evil2/made', '/a/../../data', 'named', '/proc', '/dev', '/sys/x', '/fd'],
      [
        { path: 'evil', type: 'symlink', linkTo: outside },
        { path: 'evil2', type: 'symlink', linkTo: `../../../../../../..${outside}` },
        { path: 'fd', type: 'symlink', linkTo: '/proc/self/fd' },
      ],
    );
    const script =
      'ls /evil/ | wc -l; touch /evil/x; cat /data/file; echo; ls -d /named /evil2/made; cat /proc/1/comm; echo > /dev/null; ls /fd/0';
    assert.equal(await output(script, { image: spec }), '1\nfrom the image\n/evil2/made\n/named\nsh\n/fd/0\n');
    assert.deepEqual(readdirSync(outside), ['theirs']);
    assert.equal(readFileSync(join(outside, 'theirs'), 'utf8'), 'of the host');
  });

  it('that cannot be are refused by name', async () => {
    for (const path of ['/', '/..', '//./']) {
      const config = container('true', { image: await withVolumes([path]) });
      await assert.rejects(
        create(await run(), config),
        /config\.image: the image declares the volume ".*", which cannot/,
      );
    }
    const pod = await run();
    const id = await create(pod, container('true', { image: await withVolumes(['/data/file']) }));
    await assert.rejects(suite.host.runtime.containers.start(id, call()), /mount \/data\/file: ENOTDIR \(source\)/);
  });

  it('are not filled by files that claim to be larger than the disk', async () => {
    const spec = await image({
      volumes: ['/data'],
      layers: [[{ path: 'data/huge', content: 'x', pax: { 'GNU.sparse.major': '0' } }]],
    });
    const layerDir =
      suite.host.parts.snapshots.lowerDirs(suite.host.runtime.images.get(spec.image)?.chainId ?? '')[0] ?? '';
    execFileSync('truncate', ['-s', '8T', join(layerDir, 'data/huge')]);
    assert.equal(
      await output('stat -c %s /data/huge; du -m /data/huge | cut -f1', { image: spec }),
      '8796093022208\n1\n',
    );
  });

  it('keep what was written over a restart of the agent, and go with their container', async () => {
    const spec = await withVolumes(['/data']);
    const pod = await run();
    const id = await create(pod, container('sleep 1000', { image: spec }));
    await suite.restart();
    await suite.host.runtime.containers.start(id, call());
    await exec(id, 'echo kept > /data/new');
    await suite.restart();
    assert.equal(await exec(id, 'cat /data/new'), 'kept\n');
    mkdirSync(join(suite.host.parts.paths.volumes, 'f'.repeat(64)));
    assert.deepEqual(
      (await suite.host.runtime.maintenance.orphans()).map(({ kind, target }) => [kind, target]),
      [['volumes', 'f'.repeat(64)]],
    );
    await suite.restart();
    assert.deepEqual(namesIn(suite.host.parts.paths.volumes), [id]);
  });
});

describe('volumes that images declare', function () {
  this.timeout(60_000);
  for (const [setting, seen] of [
    ['mkdir', 'made\n0\n'],
    ['ignore', '0\n'],
  ] as const) {
    it(`are ${setting === 'mkdir' ? 'just directories' : 'nothing'} where image_volumes says ${setting}`, async () => {
      const testHost = makeTestHost({ 'runtime-image-volumes': setting });
      try {
        const host = await testHost.open();
        const name = 'test.example/volumes:1';
        const layout = buildTestImage(join(testHost.dir, 'layout'), { name, volumes: ['/made/here'] });
        await host.runtime.images.import(layout, name, call());
        const pod = await host.runtime.sandboxes.run({ config: podConfig(testHost.dir), runtimeHandler: '' }, call());
        const image = { image: name, userSpecifiedImage: name, annotations: {}, runtimeHandler: '' };
        const script = 'test -d /made/here && echo made; grep -c /made /proc/self/mountinfo';
        const { id, output } = await runToEnd(host, pod, containerConfig(script, { image }));
        assert.equal(output, seen);
        assert.equal(existsSync(host.parts.paths.volumeDir(id)), false);
      } finally {
        await testHost.destroy();
      }
    });
  }
});
