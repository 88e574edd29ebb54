import assert from 'node:assert/strict';
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../../src/kit/deadline.js';
import { isKind } from '../../src/kit/errors.js';
import { openNative } from '../../src/native/native.js';
import type { ContainerConfig, NamespaceOptions } from '../../src/runtime/model.js';
import type { Layer, Snapshot } from '../../src/runtime/snapshots/snapshotter.js';
import { accessList, CAP_NET_RAW, fileCapability } from '../support/file-attributes.js';
import { asIdmapped, hardFacts, hardLayers, lookAtHard } from '../support/hard-image.js';
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
import { buildTestImage } from '../support/test-image.js';
import { treeFacts } from '../support/tree-facts.js';
import { factsProgram, namespaces, userns } from '../support/userns.js';

const images = {
  hard: 'test.example/hard:1',
  deep: 'test.example/deep:1',
  large: 'test.example/large:1',
  hidden: 'test.example/hidden:1',
  user: 'test.example/user:1',
  group: 'test.example/group:1',
  listed: 'test.example/listed:1',
  capable: 'test.example/capable:1',
  root: 'test.example/root:1',
};
/** Of the images with ids outside the mapping: which ones, and where. */
const outside = {
  user: 'hard/strange: uid 70000',
  group: 'hard/strange: gid 65536',
  listed: 'hard/strange: uid 70001 of its access control list',
  capable: 'hard/strange: uid 70002 of its file capability',
  root: '/: uid 70000',
};
const deepLayers = 126; // on top of the one every test image has
const largeFiles = 10_000;
const keptRemaps = 2;

const { userns: _, ...none } = namespaces();
const plainly = { security: { namespaces: none } };
type Changes = Parameters<typeof containerConfig>[1];

for (const way of ['idmapped', 'metacopy', 'copy'] as const) {
  describe(`files in user namespaces, ${way}`, function () {
    this.timeout(180_000);
    let testHost: TestHost;
    let host: OpenHost;
    let clean: Record<string, unknown>;
    const pods: string[] = [];

    before(async () => {
      testHost = makeTestHost({ 'userns-snapshots': way, 'userns-unused-remaps': String(keptRemaps) });
      host = await testHost.open();
      await importImages(testHost, host);
      clean = traces(testHost);
    });
    after(() => testHost.destroy());
    afterEach(async () => {
      await removePods();
      await assertNothingLeft(testHost, host, clean, 'a test');
      assert.deepEqual(await workLeft(testHost), []);
    });

    const removePods = async (): Promise<void> => {
      for (const pod of pods.splice(0)) await host.runtime.sandboxes.remove(pod, call());
    };
    const run = async (options: NamespaceOptions = namespaces()): Promise<string> => {
      const config = podConfig(testHost.dir);
      const security = { ...config.security, namespaces: options };
      const id = await host.runtime.sandboxes.run({ config: { ...config, security }, runtimeHandler: '' }, call());
      pods.push(id);
      return id;
    };
    const container = (script: string, changes: Changes = {}, image = images.hard): ContainerConfig =>
      containerConfig(script, {
        image: { image, userSpecifiedImage: image, annotations: {}, runtimeHandler: '' },
        ...changes,
        security: { namespaces: namespaces(), ...changes?.security },
      });
    const ofIds = (first: number): Changes & { security: { namespaces: NamespaceOptions } } => ({
      security: { namespaces: namespaces({ userns: userns(first, first + 70_000) }) },
    });
    const create = async (pod: string, config: ContainerConfig): Promise<string> =>
      await host.runtime.containers.create({ sandboxId: pod, config }, call());
    const output = async (pod: string, config: ContainerConfig): Promise<string> =>
      (await runToEnd(host, pod, config)).output;
    const snapshotOf = (id: string): Snapshot => {
      const snapshot = host.parts.snapshots.snapshot(id);
      assert.ok(snapshot !== undefined);
      return snapshot;
    };
    const usage = async (): Promise<{ bytes: number; inodes: number }> => {
      const [info] = await host.runtime.images.fsInfo();
      return { bytes: info?.usedBytes ?? 0, inodes: info?.inodesUsed ?? 0 };
    };
    const wanted = way === 'idmapped' ? hardFacts.map(asIdmapped) : hardFacts;

    it('look inside as the image says, and the container says how', async () => {
      const plain = await runToEnd(host, await run(none), container(lookAtHard, plainly));
      assert.deepEqual(plain.output.trim().split('\n'), hardFacts);
      const mapped = await runToEnd(host, await run(), container(lookAtHard));
      assert.deepEqual(mapped.output.trim().split('\n'), wanted);
      assert.deepEqual(host.runtime.containers.inspect(plain.id)['snapshot'], { way: 'plain' });
      const { way: taken, remap } = snapshotOf(mapped.id);
      const said = { way: taken, ...(remap === undefined ? {} : { remap }) };
      assert.deepEqual(host.runtime.containers.inspect(mapped.id)['snapshot'], said);
      assert.equal(taken, way);
    });

    it('are all there and no more, with their content', async () => {
      const script = 'cd /; find mix hard bin | sort; cat mix/* hard/first hard/owned 2>/dev/null; md5sum hard/sparse';
      const [plain, mapped] = [
        await output(await run(none), container(script, plainly)),
        await output(await run(), container(script)),
      ];
      assert.match(plain, /mix\/opaque\/new\n[^]*anew/);
      assert.equal(mapped, plain);
    });

    it('have the pod’s ids outside, and leave the layers as they were', async () => {
      const layers = layersOf(host, images.hard);
      const before = layers.map(listing);
      const id = await create(await run(), container('sleep 1'));
      const { upperDir, lowerDirs } = snapshotOf(id);
      const upper = lstatSync(upperDir);
      assert.deepEqual([upper.uid, upper.gid, upper.mode & 0o7777], [1_000_005, 2_000_006, 0o751]);
      const owned = lowerDirs.map((dir) => join(dir, 'hard/owned')).find((path) => lstatOf(path) !== undefined) ?? '';
      const { uid, gid, size, blocks } = lstatSync(owned);
      const [uidBase, gidBase] = way === 'idmapped' ? [0, 0] : [1_000_000, 2_000_000];
      assert.deepEqual([uid - uidBase, gid - gidBase, size], [1000, 50000, 5]);
      if (way === 'metacopy') assert.equal(blocks, 0, 'its data is the layer’s');
      assert.deepEqual(layers.map(listing), before);
    });

    it('keep setuid, setgid and capabilities in force', async () => {
      const pod = await run();
      const script = 'facts self; setuid self; setgid self; capable self';
      const security = { runAsUser: 1000, runAsGroup: 1000 };
      assert.deepEqual((await output(pod, container(script, { security }))).split('\n'), [
        'euid=1000 egid=1000 effective=0000000000000000',
        'euid=1234 egid=1000 effective=0000000000000000',
        'euid=1000 egid=4321 effective=0000000000000000',
        'euid=1000 egid=1000 effective=0000000000002000',
        '',
      ]);
      assert.deepEqual(
        (await output(pod, container(script, { security: { ...security, noNewPrivs: true } }))).split('\n'),
        [...Array.from({ length: 4 }, () => 'euid=1000 egid=1000 effective=0000000000000000'), ''],
      );
    });

    it('obey access lists by the container’s ids', async () => {
      const pod = await run();
      for (const [user, text] of [
        [1000, 'for 1000'],
        [1001, "cat: can't open '/hard/listed': Permission denied\n"],
      ] as const) {
        const security = { runAsUser: user, runAsGroup: user };
        assert.equal(await output(pod, container('cat /hard/listed 2>&1', { security })), text);
      }
    });

    it('are copied up with everything they have, to ids of the pod', async () => {
      const script = [
        'chmod g+w /hard/first /hard/listed; echo more >> /hard/owned; chown 55 /hard/noted; mv /hard/symbolic /hard/moved',
        'chown 56 /hard/sparse; mv /mix /moved; echo more >> /moved/linked',
        'facts stat /hard/first /hard/listed /hard/owned /hard/noted /hard/moved /hard/sparse /moved/linked',
        'chmod 4750 /bin/facts && facts stat /bin/facts | cut -d " " -f 3',
        'cat /hard/owned /moved/linked /moved/kept; tail -c 4 /hard/sparse',
      ].join('; ');
      const result = await runToEnd(host, await run(), container(script));
      const lines = result.output.split('\n');
      assert.match(lines[0] ?? '', /^\/hard\/first 7:8 664 /);
      assert.match(lines[1] ?? '', /^\/hard\/listed 0:0 660 links=1 size=8 acl=0200/);
      assert.match(lines[5] ?? '', /^\/hard\/sparse 56:2 644 links=1 size=1048580/);
      assert.match(lines[6] ?? '', /^\/moved\/linked 21:22 644 links=[12] size=10/);
      assert.deepEqual(
        [...lines.slice(2, 5), ...lines.slice(7)],
        [
          '/hard/owned 1000:50000 640 links=1 size=10',
          '/hard/noted 55:0 644 links=1 size=1 note=6869',
          '/hard/moved 9:10 777 links=1 -> /hard/owned',
          '4750',
          'ownedmore',
          'belowmore',
          'anewtail',
        ],
      );
      const noted = lstatSync(join(snapshotOf(result.id).upperDir, 'hard/noted'));
      assert.deepEqual([noted.uid, noted.gid], [1_000_055, 2_000_000]);
    });

    it('that are device nodes open nothing, not even for a privileged container', async () => {
      const pod = await run();
      const denied = /^\/hard\/disk E(PERM|ACCES)\n$/;
      assert.match(await output(pod, container('facts open /hard/disk')), denied);
      assert.match(await output(pod, container('facts open /hard/disk', { security: { privileged: true } })), denied);
    });

    it(`of ${deepLayers + 1} layers are all there`, async () => {
      const script =
        'ls / | grep -c layer-; facts stat /layer-0 /layer-125 /latest; cat /latest; echo; echo x > /latest';
      assert.equal(
        await output(await run(), container(script, {}, images.deep)),
        [
          '126',
          '/layer-0 0:0 644 links=1 size=1',
          '/layer-125 125:125 644 links=1 size=3',
          '/latest 125:125 644 links=1 size=3',
          '125',
          '',
        ].join('\n'),
      );
    });

    for (const [key, fault] of Object.entries(outside)) {
      it(`outside the mapping are an error that names file and id: ${fault}`, async () => {
        const pod = await run();
        for (let i = 0; i < 2; i++) {
          await assert.rejects(create(pod, container('true', {}, images[key as keyof typeof outside])), (error) => {
            assert.ok(isKind(error, 'invalid-argument'));
            const said = `: ${fault} is not mapped; the pod has uids 0-65535 and gids 0-65535`;
            assert.ok(error.message.endsWith(said), error.message);
            return true;
          });
        }
        assert.deepEqual(host.runtime.containers.list({}), []);
        assert.equal(await output(await run(none), container('echo plain', plainly, images[key as never])), 'plain\n');
      });
    }

    it('outside the mapping do not matter where nobody can see them', async () => {
      const script = 'facts stat /hard /hard/gone /hard/replaced /hard/opaque; ls /hard/opaque';
      assert.equal(
        await output(await run(), container(script, {}, images.hidden)),
        '/hard 0:0 755\n/hard/gone ENOENT\n/hard/replaced 1:0 644 links=1 size=1\n/hard/opaque 2:0 755\n',
      );
    });

    it('are shared: nothing is made twice, and each further mapping adds what the way costs', async () => {
      const first = ofIds(10_000_000);
      const pod = await run(first.security.namespaces);
      const image = images.large;
      const before = await usage();
      const ids = await Promise.all([
        create(pod, container('true', first, image)),
        create(pod, container('true', first, image)),
      ]);
      const after = await usage();
      const added = { bytes: after.bytes - before.bytes, inodes: after.inodes - before.inodes };
      const content = layersOf(host, image).reduce((sum, { bytes }) => sum + bytes, 0);
      const origins = ids.map((id) => snapshotOf(id).remap?.origin);
      if (way === 'idmapped') assert.deepEqual([added, origins], [{ bytes: 0, inodes: 0 }, [undefined, undefined]]);
      else {
        assert.deepEqual(origins.sort(), ['joined', 'made']);
        assert.equal(snapshotOf(ids[0]).remap?.id, snapshotOf(ids[1]).remap?.id);
        assert.ok(added.inodes >= largeFiles && added.inodes < largeFiles * 1.1 + 1000, `${added.inodes} inodes`);
        if (way === 'copy') assert.ok(added.bytes > content * 0.9, `${added.bytes} bytes of ${content}`);
        else assert.ok(added.bytes < content / 2, `${added.bytes} bytes of ${content}`);
      }
      const third = await create(pod, container('true', first, image));
      assert.equal(snapshotOf(third).remap?.origin, way === 'idmapped' ? undefined : 'cached');
      assert.deepEqual(await usage(), after);
    });

    it('look the same to pods of other ids, of which only the last are remembered', async () => {
      for (let i = 1; i <= keptRemaps + 2; i++) {
        const changes = ofIds(i * 20_000_000);
        const pod = await run(changes.security.namespaces);
        assert.deepEqual((await output(pod, container(lookAtHard, changes))).trim().split('\n'), wanted);
        await removePods();
      }
      assert.equal(host.parts.snapshots.remaps().length, way === 'idmapped' ? 0 : keptRemaps);
      const last = ofIds((keptRemaps + 2) * 20_000_000);
      const id = await create(await run(last.security.namespaces), container('true', last));
      assert.equal(snapshotOf(id).remap?.origin, way === 'idmapped' ? undefined : 'cached');
    });

    it('are found again by the next agent', async () => {
      const id = await create(await run(), container(`${lookAtHard}; sleep 1000`));
      const before = snapshotOf(id);
      const remaps = host.parts.snapshots.remaps();
      await host.runtime.close();
      host = await testHost.open();
      assert.deepEqual(snapshotOf(id), before);
      assert.deepEqual(new Set(host.parts.snapshots.remaps()), new Set(remaps));
      await host.runtime.containers.start(id, call());
      const { stdout } = await host.runtime.containers.execSync(id, ['sh', '-c', lookAtHard], 10, call());
      assert.deepEqual(Buffer.from(stdout).toString().trim().split('\n'), wanted);
    });

    it('go with the last container of an image that was removed', async () => {
      const name = 'test.example/removed:1';
      const layout = buildTestImage(join(testHost.dir, 'removed'), { name, layers: [[{ path: 'own', uid: 3 }]] });
      const before = { usage: await usage(), layers: host.parts.snapshots.layers().length };
      await host.runtime.images.import(layout, name, call());
      const id = await create(await run(), container('true', {}, name));
      const [top = ''] = snapshotOf(id).lowerDirs;
      await host.runtime.images.remove(name, call());
      assert.ok(existsSync(join(top, 'own')));
      await removePods();
      assert.equal(host.parts.snapshots.layers().length, before.layers);
      assert.ok((await usage()).bytes <= before.usage.bytes);
      assert.deepEqual(await workLeft(testHost), []);
      assert.ok(!existsSync(top));
    });

    it('go with their image', async () => {
      const name = 'test.example/short-lived:1';
      const layers = [[{ path: 'own', content: 'only here', uid: 3 }]];
      const layout = buildTestImage(join(testHost.dir, 'short-lived'), { name, layers });
      const before = await usage();
      await host.runtime.images.import(layout, name, call());
      await output(await run(), container('true', {}, name));
      await removePods();
      const kept = host.parts.snapshots.remaps().length;
      await host.runtime.images.remove(name, call());
      assert.equal(host.parts.snapshots.remaps().length, way === 'idmapped' ? 0 : kept - 1);
      assert.ok((await usage()).bytes <= before.bytes);
      const remaps = host.parts.snapshots.remaps().map(({ id }) => id);
      await workLeft(testHost);
      assert.deepEqual(readdirSync(join(testHost.config.root, 'snapshots/remaps')).sort(), remaps.sort());
    });

    if (way !== 'idmapped') {
      it('stop being made when the agent is closed', async () => {
        const changes = ofIds(60_000_000);
        const pod = await run(changes.security.namespaces);
        const attempt = create(pod, container('true', changes, images.large));
        const cancelled = assert.rejects(attempt, (error) => isKind(error, 'cancelled'));
        assert.ok((await entriesUnderWay(host)) > 0);
        await host.runtime.close();
        await cancelled;
        assert.deepEqual(remapsAtWork(testHost.config.root), []);
        host = await testHost.open();
        const again = await create(pod, container('true', changes, images.large));
        assert.equal(snapshotOf(again).remap?.origin, 'made');
      });

      for (const how of ['stop', 'remove'] as const) {
        it(`stop being made when their pod is told to ${how}, having said how far they were`, async () => {
          const changes = ofIds(how === 'stop' ? 40_000_000 : 50_000_000);
          const pod = await run(changes.security.namespaces);
          const attempt = create(pod, container('true', changes, images.large));
          const outcome = attempt.then(
            () => undefined,
            (error: unknown) => error,
          );
          assert.ok((await entriesUnderWay(host)) > 0);
          await host.runtime.sandboxes[how](pod, call());
          const error = await outcome;
          assert.ok(isKind(error, 'cancelled'), String(error));
          assert.deepEqual(host.runtime.containers.list({}), []);
          assert.deepEqual(await workLeft(testHost), []);
        });
      }
    }
  });
}

async function importImages(testHost: TestHost, host: OpenHost): Promise<void> {
  const facts = readFileSync(factsProgram());
  const program: TarEntry = { path: 'bin/facts', content: facts, mode: 0o755 };
  const deep = Array.from({ length: deepLayers - 1 }, (_, i): TarEntry[] => [
    { path: `layer-${i + 1}`, content: `${i + 1}`, uid: i + 1, gid: i + 1 },
    { path: 'latest', content: `${i + 1}`, uid: i + 1, gid: i + 1 },
  ]);
  const large = Array.from({ length: largeFiles }, (_, i): TarEntry => ({
    path: `files/${i % 200}/${i}`,
    content: `${i}`,
    uid: i % 1000,
  }));
  const ids = { uid: 70_000, gid: 70_000 };
  const hidden: TarEntry[] = ['gone', 'replaced', 'opaque/', 'opaque/old'].map((name) => ({
    path: `hard/${name}`,
    ...ids,
  }));
  const hiding: TarEntry[] = [
    { path: 'hard/' },
    { path: 'hard/.wh.gone' },
    { path: 'hard/replaced', content: 'x', uid: 1 },
    { path: 'hard/opaque/', uid: 2 },
    { path: 'hard/opaque/.wh..wh..opq' },
  ];
  const strange = (entry: Partial<TarEntry>): TarEntry => ({ path: 'hard/strange', ...entry });
  const content: Record<keyof typeof images, readonly (readonly TarEntry[])[]> = {
    hard: hardLayers(facts),
    deep: [[program, { path: 'layer-0', content: '0' }], ...deep],
    large: [large],
    hidden: [[program, ...hidden], hiding],
    user: [[strange({ uid: 70_000, gid: 1 })]],
    group: [[strange({ uid: 65_535, gid: 65_536, type: 'symlink', linkTo: 'x' })]],
    listed: [[strange({ pax: { 'SCHILY.xattr.system.posix_acl_access': accessList([70_001], []) } })]],
    capable: [[strange({ pax: { 'SCHILY.xattr.security.capability': fileCapability(CAP_NET_RAW, 70_002) } })]],
    root: [[{ path: './', uid: 70_000 }]],
  };
  for (const [key, layers] of Object.entries(content)) {
    const name = images[key as keyof typeof images];
    const layout = buildTestImage(join(testHost.dir, key), { name, layers, compression: 'none' });
    await host.runtime.images.import(layout, name, call());
  }
}

function layersOf({ parts }: OpenHost, name: string): readonly Layer[] {
  const dirs = parts.snapshots.lowerDirs(parts.images.resolve(name)?.chainId ?? '');
  return parts.snapshots.layers().filter(({ dir }) => dirs.includes(dir));
}

/** Everything stat(2) says of a layer's files. */
const listing = ({ dir }: Layer): ReturnType<typeof treeFacts> => treeFacts(openNative().files, dir);

const lstatOf = (path: string) => lstatSync(path, { throwIfNoEntry: false });

/** Waits until a remap has reported progress, and says how much. */
async function entriesUnderWay({ runtime }: OpenHost): Promise<number> {
  for (let i = 0; i < 2000; i++) {
    const requests = runtime.info()['requestsUnderWay'] as { steps: { name: string; entries?: number }[] }[];
    const step = requests.flatMap(({ steps }) => steps).find(({ name }) => name === 'remap snapshot');
    if (step?.entries !== undefined) return step.entries;
    await sleep(2);
  }
  return 0;
}

/** What is being made or deleted, after a while in which deletions end: directories, and programs at work on them. */
async function workLeft({ config }: TestHost): Promise<readonly string[]> {
  const root = join(config.root, 'snapshots');
  const left = (): string[] => [...readdirSync(join(root, 'tmp')), ...remapsAtWork(root)];
  for (let i = 0; i < 1200 && left().length > 0; i++) await sleep(50);
  return left();
}

const remapsAtWork = (root: string): string[] =>
  readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readlinkSync(`/proc/${pid}/exe`).endsWith('berth-remap') && worksBelow(pid, root);
    } catch {
      return false;
    }
  });

const worksBelow = (pid: string, root: string): boolean => readlinkSync(`/proc/${pid}/fd/3`).startsWith(root);
