import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openTestImageStore, testCall, type TestImageStore } from '../support/image-store.js';
import type { TarEntry } from '../support/tar-builder.js';
import { buildTestImage } from '../support/test-image.js';
import { listTree } from '../support/unpack-run.js';
import { skip } from '../support/skip.js';

/** Layers that were unpacked alone and at the same time must look, stacked, as if applied one after the other. */
const layers: readonly (readonly TarEntry[])[] = [
  [
    { path: 'usr/', mode: 0o755, mtime: 1_000_000_000 },
    { path: 'usr/lib/', mode: 0o755, uid: 3 },
    { path: 'usr/lib/one', content: 'one' },
    { path: 'usr/lib/two', content: 'two', mode: 0o4755 },
    { path: 'lib', type: 'symlink', linkTo: 'usr/lib' },
    { path: 'etc/', mode: 0o751 },
    { path: 'etc/passwd', content: 'root:x:0:0::/:/bin/sh\n' },
    { path: 'etc/conf.d/', mode: 0o700 },
    { path: 'etc/conf.d/a', content: 'a' },
    { path: 'etc/conf.d/b', content: 'b' },
    { path: 'opt/tree/deep/er/', mode: 0o711 },
    { path: 'opt/tree/deep/er/file', content: 'deep' },
    { path: 'var/cache/x', content: 'x' },
    { path: 'etc/link', type: 'symlink', linkTo: '/usr/lib/one' },
    { path: 'etc/away', type: 'symlink', linkTo: '../../../../etc/passwd' },
  ],
  [
    { path: 'lib/three', content: 'three, through the link' },
    { path: 'etc/.wh.passwd', content: '' },
    { path: 'etc/conf.d/', mode: 0o755 },
    { path: 'etc/conf.d/.wh..wh..opq', content: '' },
    { path: 'etc/conf.d/c', content: 'c' },
    { path: 'opt/tree/deep/er/more', content: 'more' },
    { path: 'usr/lib/two-again', type: 'link', linkTo: 'usr/lib/two' },
    { path: 'var/.wh.cache', content: '' },
  ],
  [
    { path: 'etc/passwd', content: 'app:x:7:7::/:/bin/sh\n' },
    { path: 'lib/.wh.one', content: '' },
    { path: 'var/cache/', mode: 0o750 },
    { path: 'var/cache/fresh', content: 'fresh' },
    { path: 'opt/.wh.tree', content: '' },
    { path: 'opt/tree', content: 'a file now' },
    { path: 'etc/conf.d/.wh.c', content: '' },
  ],
];

describe('a stack of layers', function () {
  this.timeout(20_000);
  let store: TestImageStore;
  let dir: string;
  before(async function () {
    if (!existsSync('/usr/bin/umoci')) skip(this, 'umoci is not installed');
    store = await openTestImageStore();
    dir = mkdtempSync(join(tmpdir(), 'berth-overlay-'));
    const layout = buildTestImage(join(dir, 'layout'), { name: 'docker.io/library/test:1', bare: true, layers });
    await store.images.import(layout, {}, testCall());
    execFileSync('umoci', ['unpack', '--image', `${layout}:1`, join(dir, 'bundle')], { stdio: 'ignore' });
    mkdirSync(join(dir, 'merged'));
  });
  after(async () => {
    if (!existsSync('/usr/bin/umoci')) return;
    await store.close();
    rmSync(dir, { recursive: true, force: true });
  });

  /** The mount lives in a mount namespace of its own: whatever happens, nothing stays. */
  const merged = (): string[] => {
    const lower = store.snapshotter.lowerDirs(store.images.list()[0]?.chainId ?? '').join(':');
    const script = [
      `mount -t overlay overlay -o lowerdir=${lower} ${join(dir, 'merged')}`,
      `cd ${join(dir, 'merged')}`,
      `find . -mindepth 1 -printf '%P %y %m %U %G %n %l\\n' | sort`,
      `find . -type f | sort | xargs md5sum`,
    ].join(' && ');
    return execFileSync('unshare', ['-m', 'sh', '-c', script], { encoding: 'utf8' }).split('\n');
  };

  it('looks in the overlay like what umoci makes of it', () => {
    const script = `find . -mindepth 1 -printf '%P %y %m %U %G %n %l\\n' | sort; find . -type f | sort | xargs md5sum`;
    const expected = execFileSync('sh', ['-c', script], { cwd: join(dir, 'bundle/rootfs'), encoding: 'utf8' });
    /* Link counts of directories differ between file systems. */
    const comparable = (lines: string[]): string[] =>
      lines.map((line) => line.replace(/^(\S+ d \d+ \d+ \d+) \d+/, '$1'));
    assert.deepEqual(comparable(merged()), comparable(expected.split('\n')));
    assert.ok(listTree(join(dir, 'bundle/rootfs')).length > 10);
  });

  it('gives the same files without a mount', async () => {
    const [image] = store.images.list();
    assert.ok(image !== undefined);
    const read = async (path: string): Promise<string | undefined> =>
      (await store.images.rootFile(image, path, 1000))?.toString();
    const rootfs = join(dir, 'bundle/rootfs');
    for (const line of listTree(rootfs)) {
      const path = line.slice(2);
      const st = lstatSync(join(rootfs, path));
      if (st.isFile()) assert.equal(await read(`/${path}`), readFileSync(join(rootfs, path), 'utf8'), path);
    }
    assert.equal(await read('lib/three'), 'three, through the link');
    assert.equal(await read('/etc/../lib/./three'), 'three, through the link');
    assert.equal(await read('/etc/away'), 'app:x:7:7::/:/bin/sh\n', readlinkSync(join(rootfs, 'etc/away')));
    for (const gone of [
      '/usr/lib/one',
      '/etc/link',
      '/etc/conf.d/a',
      '/etc/conf.d/c',
      '/var/cache/x',
      '/opt/tree/deep/er/file',
    ]) {
      assert.equal(await read(gone), undefined, gone);
    }
    for (const other of ['/', '/etc', '/etc/passwd/x', '', 'none', 'x'.repeat(300), '/lib'])
      assert.equal(await read(other), undefined);
    await assert.rejects(store.images.rootFile(image, '/etc/passwd', 5), /larger than 5 bytes/);
  });
});
