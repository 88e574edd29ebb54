import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chownSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../../src/kit/deadline.js';
import { isKind } from '../../src/kit/errors.js';
import { openNative } from '../../src/native/native.js';
import type { ContainerConfig, Mount, NamespaceOptions } from '../../src/runtime/model.js';
import {
  assertNothingLeft,
  call,
  containerConfig,
  makeTestHost,
  podConfig,
  runToEnd,
  traces,
  type OpenHost,
  type TestHost,
} from '../support/runtime.js';
import type { TarEntry } from '../support/tar-builder.js';
import { buildTestImage, type TestImageOptions } from '../support/test-image.js';
import { line, namespaces, volume } from '../support/userns.js';

/** cap_net_bind_service in the permitted and the effective set; see vfs_ns_cap_data of linux/capability.h. */
const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
const ofMappedRoot = '010000030004000000000000000000000000000040420f00';
const maps = { uidMappings: [line(1_000_000)], gidMappings: [line(2_000_000)] };
const { userns: _, ...unmapped } = namespaces();

volumesOf('a pod', unmapped, 'auto');
volumesOf('a pod in a user namespace', namespaces(), 'idmapped');
volumesOf('a pod over a layer of owners', namespaces(), 'metacopy');
volumesOf('a pod over a copy of its image', namespaces(), 'copy');

function volumesOf(where: string, options: NamespaceOptions, way: string): void {
  describe(`volumes of ${where}`, function () {
    this.timeout(60_000);
    const mapped = options.userns !== undefined;
    let testHost: TestHost;
    let host: OpenHost;
    let clean: Record<string, unknown>;
    const pods: string[] = [];

    before(async () => {
      testHost = makeTestHost({ 'userns-snapshots': way });
      host = await testHost.open();
      clean = traces(testHost);
      if (mapped) assert.equal(host.parts.userNamespaces.way, way);
    });
    after(() => testHost.destroy());
    afterEach(async function () {
      for (const pod of pods.splice(0)) await host.runtime.sandboxes.remove(pod, call());
      for (const path of mounted(testHost.dir)) execFileSync('umount', ['-l', path]);
      await assertNothingLeft(testHost, host, clean, this.currentTest?.title ?? '');
      assert.deepEqual(below(host.parts.paths.volumes), []);
    });

    /** The one pod of a test. */
    const run = async (): Promise<string> => {
      if (pods[0] !== undefined) return pods[0];
      const config = podConfig(testHost.dir);
      const security = { ...config.security, namespaces: options };
      const id = await host.runtime.sandboxes.run({ config: { ...config, security }, runtimeHandler: '' }, call());
      pods.push(id);
      return id;
    };
    type Changes = Parameters<typeof containerConfig>[1];
    const container = (script: string, changes: Changes = {}): ContainerConfig =>
      containerConfig(script, { ...changes, security: { namespaces: options, ...changes?.security } });
    const output = async (script: string, changes: Changes = {}): Promise<string> =>
      (await runToEnd(host, await run(), container(script, changes))).output;
    const create = async (pod: string, config: ContainerConfig): Promise<string> =>
      await host.runtime.containers.create({ sandboxId: pod, config }, call());
    const exec = async (id: string, script: string): Promise<string> => {
      const { stdout } = await host.runtime.containers.execSync(id, ['/bin/sh', '-c', script], 10, call());
      return Buffer.from(stdout).toString();
    };
    const refused = async (mounts: readonly Mount[], message: RegExp): Promise<void> => {
      const before = host.runtime.containers.list({}).length;
      await assert.rejects(create(await run(), container('true', { mounts })), (error) => {
        assert.ok(isKind(error, 'invalid-argument') || isKind(error, 'not-found'), String(error));
        assert.match(String(error), message);
        return true;
      });
      assert.equal(host.runtime.containers.list({}).length, before);
    };
    const image = async (
      options: Omit<TestImageOptions, 'name'>,
      name = 'image',
    ): Promise<ContainerConfig['image']> => {
      const reference = `test.example/${name}:${++images}`;
      const layout = buildTestImage(join(testHost.dir, `layout-${images}`), { ...options, name: reference });
      await host.runtime.images.import(layout, reference, call());
      return { image: reference, userSpecifiedImage: reference, annotations: {}, runtimeHandler: '' };
    };
    let images = 0;
    const directory = (name: string): string => {
      const path = join(testHost.dir, name);
      mkdirSync(path, { recursive: true });
      return path;
    };
    /** A directory that is a shared mount, with another mount below. A tmpfs could not be idmapped before Linux 6.3. */
    const tree = (name: string): string => {
      const dir = directory(name);
      mkdirSync(join(dir, 'below'), { recursive: true });
      execFileSync('mount', ['--bind', dir, dir]);
      execFileSync('mount', ['--make-rshared', dir]);
      execFileSync('mount', ['--bind', directory(`${name}-below`), join(dir, 'below')]);
      return dir;
    };

    describe('images', () => {
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
      const mount = (image: ContainerConfig['image'], changes: Partial<Mount> = {}): Mount =>
        volume('', '/volume', { image, readonly: true, ...changes });

      for (const [what, build] of [
        ['one layer', one],
        ['several layers', two],
      ] as const) {
        it(`of ${what} are shown with their owners, read-only, and nowhere else`, async () => {
          const mounts = [mount(await build(), mapped ? maps : {})];
          const pod = await run();
          const id = await create(pod, container('sleep 1000', { mounts }));
          await host.runtime.containers.start(id, call());
          const script = [
            'cat /volume/mark /volume/here/deep; echo; stat -c "%u:%g" /volume/mark /volume/dir/file',
            'ls /volume/dir; /volume/bin/tool',
            '(echo x > /volume/x) 2>&1 | grep -o Read-only; (echo x > /volume/mark) 2>&1 | grep -o Read-only',
          ].join('; ');
          assert.equal(await exec(id, script), 'of the imagedeep\n0:0\n5:6\nfile\nsub\nran\nRead-only\nRead-only\n');
          assert.deepEqual(mounted(testHost.dir), []);
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

      it('are named in the status by their id, and mounted with the options asked for', async () => {
        const spec = await two();
        const pod = await run();
        const id = await create(
          pod,
          container('sleep 1000', { mounts: [mount(spec, { options: ['noexec', 'nosuid'] })] }),
        );
        const [shown] = host.runtime.containers.status(id).mounts;
        assert.equal(shown?.image?.imageRef, host.runtime.images.get(spec.image)?.id);
        assert.equal(shown?.image?.image, spec.image);
        await host.runtime.containers.start(id, call());
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
        const found = host.runtime.images.get(spec.image);
        const pod = await run();
        const id = await create(pod, container('sleep 1000', { mounts: [mount(spec)] }));
        await host.runtime.images.remove(spec.image, call());
        assert.equal(host.runtime.images.get(spec.image), undefined);
        await host.runtime.close();
        host = await testHost.open();
        await host.runtime.containers.start(id, call());
        assert.equal(await exec(id, 'cat /volume/mark'), 'of the image');
        assert.ok(host.parts.snapshots.layer(found?.chainId ?? ''));
        await host.runtime.containers.remove(id, call());
        await host.runtime.images.import(
          buildTestImage(join(testHost.dir, 'last'), { name: 'test.example/last:1', bare: true, files: { '/a': 'a' } }),
          'test.example/last:1',
          call(),
        );
        assert.equal(host.parts.snapshots.layer(found?.chainId ?? ''), undefined);
      });

      it('of a create that the agent did not live to finish are given back, declared ones too', async () => {
        const spec = await two();
        const pod = await run();
        const declaring = await image({ volumes: ['/data'] });
        const id = await create(pod, container('true', { image: declaring, mounts: [mount(spec)] }));
        assert.deepEqual(below(host.parts.paths.volumes), [id]);
        host.parts.registry.updateContainer(id, { stage: 'creating' });
        await host.runtime.close();
        host = await testHost.open();
        assert.deepEqual(host.runtime.containers.list({}), []);
        assert.deepEqual(host.parts.snapshots.list(), []);
        assert.deepEqual(below(host.parts.paths.volumes), []);
      });
    });

    describe('declared by the image', () => {
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
      const volumesOnHost = (id: string): string => host.parts.paths.volumeDir(id);

      it('are directories of the container’s own, with what the image has there', async () => {
        const spec = await withVolumes(['/data', '/not/there']);
        const pod = await run();
        const id = await create(pod, container('sleep 1000', { image: spec, security: { readonlyRootfs: true } }));
        await host.runtime.containers.start(id, call());
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
          below(host.parts.snapshots.snapshot(id)?.upperDir ?? '').filter((name) => name === 'data'),
          [],
        );
        assert.ok(existsSync(join(dir, 'new')));
        const kept = openNative().files.getXattr(join(dir, 'capable'), 'security.capability');
        // With a user namespace it is version 3, which names the root it is valid for.
        assert.equal(kept?.toString('hex'), mapped ? ofMappedRoot : capability.toString('hex'));
        assert.equal(existsSync(join(dir, 'device')), !mapped);
        await host.runtime.containers.remove(id, call());
        assert.deepEqual(below(host.parts.paths.volumes), []);
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
        await assert.rejects(host.runtime.containers.start(id, call()), /mount \/data\/file: ENOTDIR \(source\)/);
      });

      it('are not filled by files that claim to be larger than the disk', async () => {
        const spec = await image({
          volumes: ['/data'],
          layers: [[{ path: 'data/huge', content: 'x', pax: { 'GNU.sparse.major': '0' } }]],
        });
        const layerDir = host.parts.snapshots.lowerDirs(host.runtime.images.get(spec.image)?.chainId ?? '')[0] ?? '';
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
        await host.runtime.close();
        host = await testHost.open();
        await host.runtime.containers.start(id, call());
        await exec(id, 'echo kept > /data/new');
        await host.runtime.close();
        host = await testHost.open();
        assert.equal(await exec(id, 'cat /data/new'), 'kept\n');
        mkdirSync(join(host.parts.paths.volumes, 'f'.repeat(64)));
        assert.deepEqual(
          (await host.runtime.maintenance.orphans()).map(({ kind, target }) => [kind, target]),
          [['volumes', 'f'.repeat(64)]],
        );
        await host.runtime.close();
        host = await testHost.open();
        assert.deepEqual(below(host.parts.paths.volumes), [id]);
      });
    });

    describe('of the host', () => {
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
        await refused(
          [volume('/sys/kernel', '/v', maps)],
          /volume \/sys\/kernel for \/v: file system sysfs .*Linux \d/,
        );
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
        const reason = host.parts.userNamespaces.refusal(join(dir, 'merged'), true);
        if (reason !== undefined) return await refused(mounts, /file system overlay .* cannot be idmapped/);
        assert.equal(await output('stat -c "%u:%g" /v/file', { mounts }), mapped ? '0:0\n' : '1000000:2000000\n');
      });

      it('through links are what the links say now', async () => {
        const dir = directory('real');
        writeFileSync(join(dir, 'file'), 'x');
        const link = join(testHost.dir, 'link');
        symlinkSync(dir, link);
        assert.equal(await output('ls /v', { mounts: [volume(link, '/v', mapped ? maps : {})] }), 'file\n');
        rmSync(link);
        await refused([volume(link, '/v')], /host_path: .* does not exist/);
        assert.ok(lstatSync(dir).isDirectory());
      });
    });
  });
}

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

const ids = (path: string): number[] => [statSync(path).uid, statSync(path).gid];

const below = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);

/** Innermost first. */
function mounted(dir: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((text) => text.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(`${dir}/`) && !path.includes('/netns/'))
    .reverse();
}
