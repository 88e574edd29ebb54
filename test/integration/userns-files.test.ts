import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import type { ContainerConfig, NamespaceOptions } from '../../src/runtime/model.js';
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
import { factsProgram, namespaces, userns } from '../support/userns.js';

const hardImage = 'test.example/hard:1';
const deepImage = 'test.example/deep:1';
const deepLayers = 125; // on top of the two every test image has

const CAP_NET_RAW = 13;

/** struct vfs_cap_data of linux/capability.h, revision 2 with the effective bit: what setcap(8) writes. */
function fileCapability(capability: number): Buffer {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt32LE(0x0200_0001, 0);
  bytes.writeUInt32LE(1 << capability, 4);
  return bytes;
}

/** acl(5) `u::rw-,u:USER:r--,g::---,m::r--,o::---` as the attribute of linux/posix_acl_xattr.h. */
function accessList(user: number): Buffer {
  const entries = [
    [0x01, 6, -1],
    [0x02, 4, user],
    [0x04, 0, -1],
    [0x10, 4, -1],
    [0x20, 0, -1],
  ];
  const bytes = Buffer.alloc(4 + entries.length * 8);
  bytes.writeUInt32LE(2, 0);
  entries.forEach(([tag = 0, permissions = 0, id = 0], index) => {
    bytes.writeUInt16LE(tag, 4 + index * 8);
    bytes.writeUInt16LE(permissions, 6 + index * 8);
    bytes.writeInt32LE(id, 8 + index * 8);
  });
  return bytes;
}

function kernelRelease(): { readonly major: number; readonly minor: number } {
  const [major = 0, minor = 0] = release()
    .split('.')
    .map((part) => Number.parseInt(part, 10));
  return { major, minor };
}

function hardEntries(facts: Buffer): TarEntry[] {
  const xattr = (name: string, value: Buffer | string) => ({ [`SCHILY.xattr.${name}`]: value });
  return [
    { path: 'bin/facts', content: facts, mode: 0o755 },
    { path: 'bin/setuid', content: facts, mode: 0o4755, uid: 1234, gid: 0 },
    { path: 'bin/setgid', content: facts, mode: 0o2755, uid: 0, gid: 4321 },
    {
      path: 'bin/capable',
      content: facts,
      mode: 0o755,
      pax: xattr('security.capability', fileCapability(CAP_NET_RAW)),
    },
    { path: 'hard/' },
    { path: 'hard/owned', content: 'owned', mode: 0o640, uid: 1000, gid: 50000 },
    { path: 'hard/first', content: 'linked', uid: 7, gid: 8 },
    { path: 'hard/second', type: 'link', linkTo: 'hard/first' },
    { path: 'hard/symbolic', type: 'symlink', linkTo: '/hard/owned', uid: 9, gid: 10, mode: 0o777 },
    { path: 'hard/listed', content: 'for 1000', mode: 0o640, pax: xattr('system.posix_acl_access', accessList(1000)) },
    { path: 'hard/noted', content: 'x', pax: xattr('user.note', 'hi') },
    { path: 'hard/strange', content: 'x', uid: 70000, gid: 70000, mode: 0o600 },
    { path: 'hard/pipe', type: 'fifo', mode: 0o622, uid: 3, gid: 4 },
    { path: 'hard/disk', type: 'block', major: 254, minor: 0, mode: 0o666 },
    { path: 'hard/sticky/', mode: 0o1777 },
  ];
}

describe('files of images in user namespaces', function () {
  this.timeout(120_000);
  let testHost: TestHost;
  let host: OpenHost;
  let clean: Record<string, unknown>;
  const pods: string[] = [];

  before(async () => {
    testHost = makeTestHost();
    host = await testHost.open();
    const facts = readFileSync(factsProgram());
    const deep = Array.from({ length: deepLayers }, (_, i): TarEntry[] => [
      { path: `layer-${i}`, content: `${i}`, uid: i, gid: i },
      { path: 'latest', content: `${i}`, uid: i, gid: i },
    ]);
    for (const [name, layers] of [
      [hardImage, [hardEntries(facts)]],
      [deepImage, [[{ path: 'bin/facts', content: facts, mode: 0o755 }], ...deep]],
    ] as const) {
      const layout = buildTestImage(join(testHost.dir, name.replaceAll(/\W/g, '-')), { name, layers });
      await host.runtime.images.import(layout, name, call());
    }
    clean = traces(testHost);
  });
  after(() => testHost.destroy());
  afterEach(async () => {
    for (const pod of pods.splice(0)) await host.runtime.sandboxes.remove(pod, call());
    await assertNothingLeft(testHost, host, clean, 'a test');
  });

  const run = async (options: NamespaceOptions = namespaces()): Promise<string> => {
    const config = podConfig(testHost.dir);
    const security = { ...config.security, namespaces: options };
    const id = await host.runtime.sandboxes.run({ config: { ...config, security }, runtimeHandler: '' }, call());
    pods.push(id);
    return id;
  };
  const container = (
    script: string,
    changes: Parameters<typeof containerConfig>[1] = {},
    image = hardImage,
    options = namespaces(),
  ): ContainerConfig =>
    containerConfig(script, {
      image: { image, userSpecifiedImage: image, annotations: {}, runtimeHandler: '' },
      ...changes,
      security: { namespaces: options, ...changes.security },
    });
  const output = async (pod: string, config: ContainerConfig): Promise<string> =>
    (await runToEnd(host, pod, config)).output;

  const seen = [
    '/ 0:0 755 links=1',
    '/bin/setuid 1234:0 4755 links=1',
    '/bin/setgid 0:4321 2755 links=1',
    `/bin/capable 0:0 755 links=1 cap=${fileCapability(CAP_NET_RAW).toString('hex')}`,
    '/hard/owned 1000:50000 640 links=1',
    '/hard/first 7:8 644 links=2',
    '/hard/second 7:8 644 links=2',
    '/hard/symbolic 9:10 777 links=1 -> /hard/owned',
    `/hard/listed 0:0 640 links=1 acl=${accessList(1000).toString('hex')}`,
    '/hard/noted 0:0 644 links=1 note=6869',
    '/hard/pipe 3:4 622 links=1',
    '/hard/sticky 0:0 1777 links=1',
  ];
  const look = (lines: readonly string[]): string =>
    `facts stat ${lines.map((text) => text.split(' ')[0]).join(' ')} | sed -e "s/ size=[0-9]*//" -e "s/^\\(\\/\\|\\/hard\\/sticky\\) \\(.*\\)links=[0-9]*/\\1 \\2links=1/"`;

  /** Before Linux 6.2 an overlay over idmapped layers obeys access lists and does not show whom they name. */
  const { major, minor } = kernelRelease();
  const asShown = (text: string): string =>
    major > 6 || (major === 6 && minor >= 2) ? text : text.replace('e8030000', 'ffffffff');

  it('look inside as the image says, with and without a user namespace', async () => {
    const { userns: _, ...plain } = namespaces();
    assert.deepEqual((await output(await run(plain), container(look(seen), {}, hardImage, plain))).split('\n'), [
      ...seen,
      '',
    ]);
    assert.deepEqual((await output(await run(), container(look(seen)))).split('\n'), [...seen.map(asShown), '']);
  });

  it('look the same to two pods at once, from one set of layers', async () => {
    const other = namespaces({ userns: userns(5_000_000, 6_000_000) });
    const usage = host.parts.snapshots.layers().length;
    const [one, two] = await Promise.all([
      output(await run(), container(look(seen))),
      output(await run(other), container(look(seen), {}, hardImage, other)),
    ]);
    assert.equal(one, two);
    assert.equal(host.parts.snapshots.layers().length, usage);
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

  it('are nobody’s where the image uses ids outside the mapping', async () => {
    const script = 'facts stat /hard/strange | cut -d " " -f 2; cat /hard/strange 2>&1; chown 0 /hard/strange 2>&1';
    assert.equal(
      await output(await run(), container(script)),
      "65534:65534\ncat: can't open '/hard/strange': Permission denied\nchown: /hard/strange: Operation not permitted\n",
    );
  });

  it('are copied up with everything they have', async () => {
    const script = [
      'chmod g+w /hard/first /hard/listed; echo more >> /hard/owned; chown 55 /hard/noted; mv /hard/symbolic /hard/moved',
      'facts stat /hard/first /hard/listed /hard/owned /hard/noted /hard/moved | sed "s/ size=[0-9]*//"',
      'chmod 4750 /bin/facts && facts stat /bin/facts | cut -d " " -f 3',
    ].join('; ');
    const pod = await run();
    const result = await runToEnd(host, pod, container(script));
    const lines = result.output.split('\n');
    assert.match(lines[0] ?? '', /^\/hard\/first 7:8 664 /);
    assert.match(lines[1] ?? '', /^\/hard\/listed 0:0 660 links=1 acl=0200/);
    assert.deepEqual(lines.slice(2), [
      '/hard/owned 1000:50000 640 links=1',
      '/hard/noted 55:0 644 links=1 note=6869',
      '/hard/moved 9:10 777 links=1 -> /hard/owned',
      '4750',
      '',
    ]);
    const upper = host.parts.snapshots.snapshot(result.id)?.upperDir ?? '';
    const noted = statSync(join(upper, 'hard/noted'));
    assert.deepEqual([noted.uid, noted.gid], [1_000_055, 2_000_000]);
  });

  it('that are device nodes open nothing, not even for a privileged container', async () => {
    const pod = await run();
    const denied = /^\/hard\/disk E(PERM|ACCES)\n$/;
    assert.match(await output(pod, container('facts open /hard/disk')), denied);
    assert.match(await output(pod, container('facts open /hard/disk', { security: { privileged: true } })), denied);
  });

  it(`of ${deepLayers + 2} layers are all there`, async () => {
    const script = 'ls / | grep -c layer-; facts stat /layer-0 /layer-124 /latest; cat /latest; echo; echo x > /latest';
    const changes = { security: {} };
    assert.equal(
      await output(await run(), container(script, changes, deepImage)),
      [
        '125',
        '/layer-0 0:0 644 links=1 size=1',
        '/layer-124 124:124 644 links=1 size=3',
        '/latest 124:124 644 links=1 size=3',
        '124',
        '',
      ].join('\n'),
    );
  });

  it('are beside namespaces that all belong to the pod’s user namespace', async () => {
    for (const [network, pid, owners] of [
      ['pod', 'pod', 'own own own own own'],
      ['pod', 'container', 'own own own own own'],
      ['node', 'container', 'own own EPERM own EPERM'],
    ] as const) {
      const options = namespaces({ network, pid });
      const pod = await run(options);
      const words = await output(pod, container('facts owners | cut -d " " -f 2', {}, hardImage, options));
      await host.runtime.sandboxes.remove(pod, call());
      assert.equal(words.trim().replaceAll('\n', ' '), owners);
    }
  });
});
