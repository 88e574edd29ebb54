import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openNative, type Native } from '../../src/native/native.js';
import { parseRanges } from '../../src/runtime/idmap/mapping.js';
import { accessList, CAP_NET_RAW, fileCapability } from '../support/file-attributes.js';
import { buildUnpackHelper } from '../support/image-store.js';
import { paxRecords, tar, tarEntry, type TarEntry } from '../support/tar-builder.js';
import { createUnpackRun, listTree, type UnpackRun } from '../support/unpack-run.js';

const end = Buffer.alloc(1024);
const textOf = (report: Buffer): string[] => report.toString('latin1').split('\0').slice(0, -1);

describe('berth-unpack', () => {
  let run: UnpackRun;
  let native: Native;
  before(() => {
    buildUnpackHelper();
    native = openNative();
  });
  beforeEach(() => (run = createUnpackRun()));
  afterEach(() => {
    try {
      assert.deepEqual(readdirSync(run.outside), [], 'something was written outside');
      assert.equal(statSync(run.outside).mode & 0o7777, 0o755, 'mode of a directory outside was changed');
      assert.equal(statSync(run.outside).uid, 0);
    } finally {
      run.close();
    }
  });

  const opaque = (path: string): string | undefined =>
    native.files.getXattr(path, 'trusted.overlay.opaque')?.toString();
  const accept = async (entries: readonly TarEntry[], name = 'a'): Promise<string> =>
    await run.apply(name, tar(entries));
  const refuse = async (archive: readonly TarEntry[] | Buffer, why: RegExp): Promise<void> => {
    const outcome = await run.extract('a', Buffer.isBuffer(archive) ? archive : tar(archive));
    assert.equal(outcome.code, 2, outcome.stderr);
    assert.match(outcome.stderr, why);
  };

  describe('what archives hold', () => {
    it('writes files with content, owner, mode and time', async () => {
      const dir = await accept([
        { path: 'd/', mode: 0o1750, uid: 7, gid: 8, mtime: 1_000_000 },
        { path: 'd/f', content: 'text', mode: 0o4711, uid: 1000, gid: 4_294_967_294, mtime: 1_500_000_000 },
        { path: './d//./empty', content: '' },
      ]);
      const file = lstatSync(join(dir, 'd/f'));
      assert.equal(readFileSync(join(dir, 'd/f'), 'utf8'), 'text');
      assert.deepEqual([file.mode & 0o7777, file.uid, file.gid], [0o4711, 1000, 4_294_967_294]);
      assert.equal(file.mtimeMs, 1_500_000_000_000);
      const parent = lstatSync(join(dir, 'd'));
      assert.deepEqual([parent.mode & 0o7777, parent.uid, parent.gid, parent.mtimeMs], [0o1750, 7, 8, 1e9]);
      assert.equal(lstatSync(join(dir, 'd/empty')).size, 0);
    });

    it('makes links, devices and fifos', async () => {
      const dir = await accept([
        { path: 'f', content: 'x' },
        { path: 'hard', type: 'link', linkTo: 'f' },
        { path: 'soft', type: 'symlink', linkTo: '/etc/passwd', uid: 5 },
        { path: 'null', type: 'char', major: 1, minor: 3, mode: 0o666 },
        { path: 'disk', type: 'block', major: 8, minor: 0, uid: 3 },
        { path: 'pipe', type: 'fifo', mode: 0o4600 },
        { path: 'more', type: 'contiguous', content: 'y' },
      ]);
      assert.deepEqual(listTree(dir), ['b disk', '- f', '- hard', '- more', 'c null', 'p pipe', 'l soft']);
      assert.equal(lstatSync(join(dir, 'hard')).ino, lstatSync(join(dir, 'f')).ino);
      assert.equal(readlinkSync(join(dir, 'soft')), '/etc/passwd');
      assert.equal(lstatSync(join(dir, 'soft')).uid, 5);
      assert.equal(lstatSync(join(dir, 'null')).rdev, (1 << 8) | 3);
      assert.equal(lstatSync(join(dir, 'pipe')).mode & 0o7777, 0o4600);
    });

    it('keeps extended attributes and file capabilities', async () => {
      const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
      const dir = await accept([
        {
          path: 'ping',
          content: 'x',
          uid: 9,
          mode: 0o755,
          pax: { 'SCHILY.xattr.security.capability': capability, 'SCHILY.xattr.user.note': 'a=b\nc' },
        },
        { path: 'd/', pax: { 'SCHILY.xattr.user.note': 'dir' } },
        { path: 'l', content: '', pax: { 'SCHILY.xattr.security.selinux': 'system_u:object_r:etc_t:s0' } },
      ]);
      assert.deepEqual(native.files.getXattr(join(dir, 'ping'), 'security.capability'), capability);
      assert.equal(native.files.getXattr(join(dir, 'ping'), 'user.note')?.toString(), 'a=b\nc');
      assert.equal(native.files.getXattr(join(dir, 'd'), 'user.note')?.toString(), 'dir');
      assert.equal(native.files.getXattr(join(dir, 'l'), 'security.selinux'), undefined);
    });

    it('reads long names of every format', async () => {
      const deep = `${'directory-'.repeat(15)}/${'x'.repeat(200)}`;
      const gnuName = Buffer.concat([
        tarEntry({ path: '././@LongLink', flag: 'L', content: `${deep}-gnu\0` }),
        tarEntry({ path: 'short', content: 'gnu' }),
      ]);
      const gnuLink = Buffer.concat([
        tarEntry({ path: '././@LongLink', flag: 'K', content: `${'t'.repeat(300)}\0` }),
        tarEntry({ path: 'link', type: 'symlink', linkTo: 'cut' }),
      ]);
      const ustar = tarEntry({ path: 'name', content: 'ustar', patch: [[345, Buffer.from('some/prefix')]] });
      const pax = tarEntry({ path: `${deep}-pax`, content: 'pax' });
      const dir = await run.apply('a', Buffer.concat([gnuName, gnuLink, ustar, pax, end]));
      assert.equal(readFileSync(join(dir, `${deep}-gnu`), 'utf8'), 'gnu');
      assert.equal(readFileSync(join(dir, `${deep}-pax`), 'utf8'), 'pax');
      assert.equal(readFileSync(join(dir, 'some/prefix/name'), 'utf8'), 'ustar');
      assert.equal(readlinkSync(join(dir, 'link')), 't'.repeat(300));
    });

    it('reads pax times, ids and sizes, and base-256 numbers', async () => {
      const size = Buffer.alloc(12);
      size[0] = 0x80;
      size[11] = 4;
      const before1970 = Buffer.alloc(12, 0xff);
      const dir = await run.apply(
        'a',
        Buffer.concat([
          tarEntry({
            path: 'p',
            content: 'four',
            size: 0,
            pax: { mtime: '1234567890.123456789123', uid: '70000000', size: '4' },
          }),
          tarEntry({
            path: 'b',
            content: 'four',
            patch: [
              [124, size],
              [136, before1970],
            ],
          }),
          tarEntry({ path: 'old', content: '', pax: { mtime: '-1.5' } }),
          tarEntry({ path: 'g', type: 'pax-global', content: paxRecords({ comment: 'x', uid: '5' }) }),
          tarEntry({ path: 'after', content: 'z' }),
          end,
        ]),
      );
      const st = lstatSync(join(dir, 'p'), { bigint: true });
      assert.deepEqual([st.mtimeNs, st.uid, st.size], [1_234_567_890_123_456_789n, 70_000_000n, 4n]);
      assert.equal(readFileSync(join(dir, 'b'), 'utf8'), 'four');
      assert.equal(lstatSync(join(dir, 'b')).mtimeMs, -1000);
      assert.equal(lstatSync(join(dir, 'old')).mtimeMs, -1500);
      assert.equal(lstatSync(join(dir, 'after')).uid, 0);
    });

    it('reads what GNU tar and its sparse formats write', async () => {
      const from = join(run.root, 'from');
      mkdirSync(from);
      execFileSync('truncate', ['-s', '40M', join(from, 'sparse')]);
      for (const [i, text] of ['begin', 'middle', 'nearly the end'].entries()) {
        execFileSync(
          'dd',
          [`of=${join(from, 'sparse')}`, 'conv=notrunc', 'bs=1', `seek=${i * 19_000_000 + 4096}`, 'status=none'],
          {
            input: text,
          },
        );
      }
      const formats = [
        ['--format=gnu'],
        ['--format=posix', '--sparse-version=0.0'],
        ['--format=posix', '--sparse-version=0.1'],
        ['--format=posix', '--sparse-version=1.0'],
      ];
      for (const [i, format] of formats.entries()) {
        const archive = execFileSync('tar', ['-C', from, '-S', ...format, '-cf', '-', 'sparse'], {
          maxBuffer: 1 << 28,
        });
        assert.ok(archive.length < 1 << 20, 'the archive is sparse');
        const dir = await run.apply(`s${i}`, archive);
        assert.ok(readFileSync(join(dir, 'sparse')).equals(readFileSync(join(from, 'sparse'))), format.join(' '));
        assert.ok(lstatSync(join(dir, 'sparse')).blocks < 1000, 'the file is sparse');
      }
    });

    it('keeps the bytes of many sizes, whatever way the input is cut', async () => {
      const sizes = [0, 1, 511, 512, 513, 4096, 65_535, 1 << 20, (1 << 20) + 1, 3_333_333];
      const dir = await accept(sizes.map((size, i) => ({ path: `f${i}`, content: Buffer.alloc(size, `${i}:`) })));
      for (const [i, size] of sizes.entries()) {
        assert.ok(readFileSync(join(dir, `f${i}`)).equals(Buffer.alloc(size, `${i}:`)), `size ${size}`);
      }
    });

    it('lets the later entry win, and keeps directories that are listed twice', async () => {
      const dir = await accept([
        { path: 'f', content: 'old' },
        { path: 'f', content: 'new' },
        { path: 'd/' },
        { path: 'd/in', content: 'kept' },
        { path: 'd/', mode: 0o700 },
        { path: 'x/' },
        { path: 'x/deep/er/', mode: 0 },
        { path: 'x', content: 'a file now' },
        { path: 'l', type: 'symlink', linkTo: 'f' },
        { path: 'l', content: 'no link' },
        { path: 'y', content: 'file' },
        { path: 'y/' },
      ]);
      assert.deepEqual(listTree(dir), ['d d', '- d/in', '- f', '- l', '- x', 'd y']);
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'new');
      assert.equal(lstatSync(join(dir, 'd')).mode & 0o777, 0o700);
      assert.equal(opaque(join(dir, 'y')), 'y', 'the file had hidden what is below');
    });

    it('accepts an empty archive, no end marker, and bytes after the end', async () => {
      assert.equal((await run.extract('a', Buffer.alloc(0))).code, 0);
      assert.equal((await run.extract('b', tarEntry({ path: 'f', content: 'x' }))).code, 0);
      const trailing = Buffer.concat([tar([{ path: 'f' }]), Buffer.alloc(3 << 20, 'garbage')]);
      assert.equal((await run.extract('c', trailing)).code, 0);
    });
  });

  describe('whiteouts', () => {
    it('become overlay whiteouts and opaque directories', async () => {
      const dir = await accept([
        { path: 'd/' },
        { path: 'd/.wh.gone', content: '' },
        { path: 'o/' },
        { path: 'o/.wh..wh..opq', content: '' },
        { path: 'implied/.wh..wh..opq', content: '' },
        { path: '.wh.top', content: '' },
      ]);
      assert.deepEqual(listTree(dir), ['d d', 'c d/gone', 'd implied', 'd o', 'c top']);
      assert.equal(lstatSync(join(dir, 'd/gone')).rdev, 0);
      assert.deepEqual(
        [opaque(join(dir, 'o')), opaque(join(dir, 'implied')), opaque(join(dir, 'd'))],
        ['y', 'y', undefined],
      );
    });

    it('do not take away what their own layer has', async () => {
      const dir = await accept([
        { path: 'before/' },
        { path: 'before/f' },
        { path: '.wh.before', content: '' },
        { path: '.wh.after', content: '' },
        { path: 'after/' },
        { path: 'after/f' },
        { path: '.wh.implied', content: '' },
        { path: 'implied/f' },
        { path: 'file' },
        { path: '.wh.file', content: '' },
        { path: '.wh.file2', content: '' },
        { path: 'file2' },
      ]);
      assert.deepEqual(listTree(dir), [
        'd after',
        '- after/f',
        'd before',
        '- before/f',
        '- file',
        '- file2',
        'd implied',
        '- implied/f',
      ]);
      for (const name of ['before', 'after', 'implied']) assert.equal(opaque(join(dir, name)), 'y', name);
    });

    it('of nothing are refused', async () => {
      await refuse([{ path: 'd/.wh.', content: '' }], /whiteout of nothing/);
    });
    it('of the parent are refused', async () => {
      await refuse([{ path: 'd/.wh...', content: '' }], /whiteout of nothing/);
    });
    it('of aufs are passed over', async () => {
      const dir = await accept([{ path: '.wh..wh.plnk/1.2' }, { path: '.wh..wh.aufs' }, { path: 'f' }]);
      assert.deepEqual(listTree(dir), ['- f']);
    });
  });

  describe('what is owed to lower layers', () => {
    it('reports directories that were not listed, and hard links to what is not there', async () => {
      const outcome = await run.extract(
        'a',
        tar([{ path: 'a/b/f' }, { path: 'a/b/' }, { path: 'l', type: 'link', linkTo: '/x/y' }]),
      );
      const records = textOf(outcome.report);
      assert.deepEqual(records.slice(0, -1), ['P', 'Pa', 'Ll', 'x/y']);
      assert.match(records.at(-1) ?? '', /^S\d+ \d+ 0 0$/);
    });

    it('reports which ids the files have, each where it stands', async () => {
      const attributes = (text: Record<string, Buffer>) =>
        Object.fromEntries(Object.entries(text).map(([name, value]) => [`SCHILY.xattr.${name}`, value]));
      const entries: readonly TarEntry[] = [
        { path: './', uid: 3, gid: 4 },
        ...[1002, 1000, 70_000, 1001, 1001, 5].map((uid, i): TarEntry => ({ path: `f${i}`, uid, gid: 100 - i })),
        { path: 'd/', gid: 70_001, pax: attributes({ 'system.posix_acl_default': accessList([7001], [7002]) }) },
        { path: 'l', type: 'symlink', linkTo: 'x', uid: 8 },
        { path: 'p', type: 'fifo', gid: 9 },
        { path: 'h', type: 'link', linkTo: 'f0', uid: 666 },
        { path: '.wh.gone', uid: 667 },
        { path: 'a', pax: attributes({ 'system.posix_acl_access': accessList([7003], []) }) },
        { path: 'c', pax: attributes({ 'security.capability': fileCapability(CAP_NET_RAW, 7004) }) },
      ];
      const outcome = await run.extract('a', tar(entries));
      assert.equal(outcome.code, 0, outcome.stderr);
      assert.match(
        textOf(outcome.report).at(-1) ?? '',
        /^S\d+ \d+ 0,3,5,8,1000-1002,7001,7003-7004,70000 0,4,9,95-100,7002,70001$/,
      );
    });

    it('reports a few ids too many rather than too many ranges', async () => {
      const ids = Array.from({ length: 1000 }, (_, i) => (i * 7919 * 10) % 100_000).filter((id) => id !== 0);
      const outcome = await run.extract('a', tar(ids.map((uid, i) => ({ path: `f${i}`, uid, gid: uid * 40_000 }))));
      const [, uids = '', gids = ''] = / (\S+) (\S+)$/.exec(textOf(outcome.report).at(-1) ?? '') ?? [];
      for (const [text, factor] of [
        [uids, 1],
        [gids, 40_000],
      ] as const) {
        const ranges = parseRanges(text);
        assert.equal(ranges.length, 256);
        assert.ok(ranges.every(([first], i) => i === 0 || first > (ranges[i - 1]?.[1] ?? 0) + 1));
        for (const id of ids)
          assert.ok(
            ranges.some(([first, last]) => id * factor >= first && id * factor <= last),
            `${id}`,
          );
      }
    });

    it('takes owner, mode, attributes and time of such directories from below', async () => {
      await run.apply(
        'low',
        tar([
          { path: 'a/', mode: 0o2751, uid: 11, gid: 12, mtime: 1_111_111_111, pax: { 'SCHILY.xattr.user.k': 'v' } },
          { path: 'a/b/', mode: 0o700, mtime: 1_222_222_222 },
        ]),
      );
      const dir = await run.apply('up', tar([{ path: 'a/b/f' }]), ['low']);
      const a = lstatSync(join(dir, 'a'));
      assert.deepEqual([a.mode & 0o7777, a.uid, a.gid, a.mtimeMs], [0o2751, 11, 12, 1_111_111_111_000]);
      assert.equal(native.files.getXattr(join(dir, 'a'), 'user.k')?.toString(), 'v');
      assert.equal(lstatSync(join(dir, 'a/b')).mode & 0o7777, 0o700);
      assert.equal(lstatSync(join(dir, 'a/b')).mtimeMs, 1_222_222_222_000);
    });

    it('sees the layers below as the overlay will: topmost first, whiteouts and opaque directories', async () => {
      await run.apply(
        'l1',
        tar([
          { path: 'a/', uid: 1 },
          { path: 'b/', uid: 1 },
          { path: 'b/c/', uid: 1 },
          { path: 'd/', uid: 1 },
        ]),
      );
      await run.apply(
        'l2',
        tar([
          { path: 'a/', uid: 2 },
          { path: '.wh.d', content: '' },
          { path: 'b/.wh..wh..opq', content: '' },
        ]),
        ['l1'],
      );
      const dir = await run.apply('l3', tar([{ path: 'a/f' }, { path: 'b/c/f' }, { path: 'd/f' }]), ['l2', 'l1']);
      assert.equal(lstatSync(join(dir, 'a')).uid, 2);
      assert.equal(lstatSync(join(dir, 'b')).uid, 1, 'the metadata of an opaque directory that was itself not listed');
      assert.equal(lstatSync(join(dir, 'b/c')).uid, 0, 'hidden by the opaque directory');
      assert.equal(lstatSync(join(dir, 'd')).uid, 0, 'removed in between');
    });

    it('moves what was written under a directory that is a link below to where the link leads', async () => {
      await run.apply(
        'low',
        tar([
          { path: 'usr/', mtime: 1_000_000_000 },
          { path: 'usr/lib/', mode: 0o711, mtime: 1_000_000_001 },
          { path: 'usr/lib/sub/', uid: 4 },
          { path: 'usr/lib/old' },
          { path: 'lib', type: 'symlink', linkTo: 'usr/lib' },
        ]),
      );
      const dir = await run.apply(
        'up',
        tar([
          { path: 'lib/new', content: '1' },
          { path: 'lib/sub/f' },
          { path: 'lib/.wh.old', content: '' },
          { path: 'usr/lib/other' },
          { path: 'lib/hard', type: 'link', linkTo: 'lib/sub/f' },
        ]),
        ['low'],
      );
      assert.deepEqual(listTree(dir), [
        'd usr',
        'd usr/lib',
        '- usr/lib/hard',
        '- usr/lib/new',
        'c usr/lib/old',
        '- usr/lib/other',
        'd usr/lib/sub',
        '- usr/lib/sub/f',
      ]);
      assert.equal(lstatSync(join(dir, 'usr/lib')).mode & 0o777, 0o711);
      assert.equal(lstatSync(join(dir, 'usr/lib')).mtimeMs, 1_000_000_001_000);
      assert.equal(lstatSync(join(dir, 'usr')).mtimeMs, 1_000_000_000_000);
      assert.equal(lstatSync(join(dir, 'usr/lib/sub')).uid, 4);
    });

    it('copies up the target of a hard link, with everything it has', async () => {
      const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
      await run.apply(
        'low',
        tar([
          { path: 'bin/', mode: 0o751, mtime: 1_000_000_000 },
          {
            path: 'bin/tool',
            content: 'tool',
            mode: 0o4755,
            uid: 3,
            pax: { 'SCHILY.xattr.security.capability': capability },
          },
          { path: 'sbin', type: 'symlink', linkTo: 'bin' },
          { path: 'bin/alias', type: 'symlink', linkTo: 'tool' },
        ]),
      );
      const dir = await run.apply(
        'up',
        tar([
          { path: 'opt/', mtime: 1_300_000_000 },
          { path: 'opt/tool', type: 'link', linkTo: 'sbin/tool' },
          { path: 'opt/again', type: 'link', linkTo: 'opt/tool' },
          { path: 'opt/alias', type: 'link', linkTo: 'bin/alias' },
        ]),
        ['low'],
      );
      assert.deepEqual(listTree(dir), [
        'd bin',
        'l bin/alias',
        '- bin/tool',
        'd opt',
        '- opt/again',
        'l opt/alias',
        '- opt/tool',
      ]);
      const tool = lstatSync(join(dir, 'opt/tool'));
      assert.deepEqual([tool.mode & 0o7777, tool.uid, tool.nlink, tool.mtimeMs], [0o4755, 3, 3, 1_600_000_000_000]);
      assert.equal(tool.ino, lstatSync(join(dir, 'bin/tool')).ino);
      assert.deepEqual(native.files.getXattr(join(dir, 'bin/tool'), 'security.capability'), capability);
      assert.equal(lstatSync(join(dir, 'opt')).mtimeMs, 1_300_000_000_000);
      assert.equal(lstatSync(join(dir, 'bin')).mtimeMs, 1_000_000_000_000);
      assert.equal(lstatSync(join(dir, 'bin')).mode & 0o777, 0o751);
    });

    it('refuses hard links to what no layer has, or what a layer removed', async () => {
      await run.apply('low', tar([{ path: 'f' }, { path: 'd/' }]));
      await run.apply('mid', tar([{ path: '.wh.f', content: '' }]), ['low']);
      for (const [i, target] of ['none', 'f', 'd', '../outside', 'd/../../outside/x'].entries()) {
        await assert.rejects(
          run.apply(`up${i}`, tar([{ path: 'l', type: 'link', linkTo: target }]), ['mid', 'low']),
          /hard link l: target \S+ (does not exist|is a directory)/,
        );
      }
    });
  });

  describe('archives that want out', () => {
    const outsideEscapes = [
      '../outside/f',
      '/../outside/f',
      'a/../../outside/f',
      '/tmp/../../../outside/f',
      '../../../../../../../../outside/f',
    ];
    for (const path of outsideEscapes) {
      it(`keeps ${path} inside`, async () => {
        const dir = await accept([{ path }]);
        assert.ok(listTree(dir).some((line) => line.endsWith('/f')));
      });
    }

    it('keeps absolute paths inside', async () => {
      const dir = await accept([{ path: `${run.outside}/f`, content: 'x' }]);
      assert.equal(readFileSync(join(dir, run.outside, 'f'), 'utf8'), 'x');
    });

    for (const target of [
      'OUTSIDE',
      '../outside',
      '../../../../../../../..OUTSIDE',
      '/proc/self/root/OUTSIDE',
      '/proc/self/cwd/..',
    ]) {
      it(`follows a link to ${target} inside only`, async () => {
        const linkTo = target.replace('OUTSIDE', run.outside);
        const dir = await accept([
          { path: 'escape', type: 'symlink', linkTo },
          { path: 'escape/f', content: 'x' },
          { path: 'escape/d/', mode: 0o777 },
          { path: 'escape/.wh.passwd', content: '' },
        ]);
        assert.equal(readlinkSync(join(dir, 'escape')), linkTo);
      });
    }

    it('follows chains of links inside only', async () => {
      await accept([
        { path: 'a', type: 'symlink', linkTo: '..' },
        { path: 'b', type: 'symlink', linkTo: 'a/..' },
        { path: 'd/' },
        { path: 'd/c', type: 'symlink', linkTo: '../b/../outside' },
        { path: 'd/c/f', content: 'x' },
        { path: 'b/outside/g', content: 'x' },
      ]);
    });

    it('gives up on links in circles', async () => {
      await refuse(
        [{ path: 'a', type: 'symlink', linkTo: 'b' }, { path: 'b', type: 'symlink', linkTo: 'a' }, { path: 'a/f' }],
        /too many links/,
      );
    });

    it('replaces a link by a file or a directory, never writes through it', async () => {
      writeFileSync(join(run.root, 'victim'), 'safe');
      const dir = await accept([
        { path: 'l', type: 'symlink', linkTo: '../victim' },
        { path: 'l', content: 'x', mode: 0o777 },
        { path: 'd', type: 'symlink', linkTo: '../outside' },
        { path: 'd/', mode: 0o777, uid: 5 },
        { path: 'd/f' },
        { path: 'n', type: 'symlink', linkTo: '../victim' },
        { path: 'n', type: 'fifo', mode: 0o777, uid: 5 },
      ]);
      assert.equal(readFileSync(join(run.root, 'victim'), 'utf8'), 'safe');
      assert.equal(lstatSync(join(run.root, 'victim')).uid, 0);
      assert.deepEqual(listTree(dir), ['d d', '- d/f', '- l', 'p n']);
    });

    it('hard links nothing from outside', async () => {
      writeFileSync(join(run.root, 'victim'), 'safe');
      const outcome = await run.extract(
        'a',
        tar([
          { path: 'out', type: 'symlink', linkTo: '..' },
          { path: 'h', type: 'link', linkTo: 'out/victim' },
          { path: 'h2', type: 'link', linkTo: '../victim' },
          { path: 'h3', type: 'link', linkTo: `${run.root}/victim` },
        ]),
      );
      assert.equal(outcome.code, 0);
      assert.deepEqual(listTree(run.layer('a')), ['l out']);
      assert.equal((await run.settle('a', outcome.report, [])).code, 2);
      assert.equal(lstatSync(join(run.root, 'victim')).nlink, 1);
    });

    it('does not write through a hard link to a link', async () => {
      writeFileSync(join(run.root, 'victim'), 'safe');
      const dir = await accept([
        { path: 'l', type: 'symlink', linkTo: '../victim' },
        { path: 'h', type: 'link', linkTo: 'l' },
        { path: 'h', content: 'x' },
      ]);
      assert.equal(readFileSync(join(run.root, 'victim'), 'utf8'), 'safe');
      assert.deepEqual(listTree(dir), ['- h', 'l l']);
    });

    it('settles inside only, whatever the lower layers hold', async () => {
      await run.apply(
        'low',
        tar([
          { path: 'lib', type: 'symlink', linkTo: '../outside' },
          { path: 'abs', type: 'symlink', linkTo: run.outside },
          { path: 'loop', type: 'symlink', linkTo: 'loop' },
          { path: 'file' },
        ]),
      );
      const entries = ['lib/f', 'abs/f', 'loop/f', 'file/f'].map((path) => ({ path }));
      const dir = await run.apply('up', tar(entries), ['low']);
      assert.deepEqual(
        listTree(dir).filter((line) => line.startsWith('-')),
        ['- abs/f', '- file/f', '- lib/f', '- loop/f'],
      );
    });

    it('refuses a path through a file', async () => {
      await refuse([{ path: 'f' }, { path: 'f/g' }], /is not a directory/);
    });
    it('refuses attributes that command the overlay', async () => {
      for (const [i, name] of [
        'trusted.overlay.redirect',
        'trusted.overlay.opaque',
        'user.overlay.metacopy',
      ].entries()) {
        const outcome = await run.extract(`x${i}`, tar([{ path: 'd/', pax: { [`SCHILY.xattr.${name}`]: '/etc' } }]));
        assert.equal(outcome.code, 2);
        assert.match(outcome.stderr, /overlay file system/);
      }
    });
    it('refuses ids beyond 32 bits', async () => {
      for (const [i, pax] of [{ uid: '4294967295' }, { gid: '4294967296' }, { uid: '-1' }, { uid: '1e3' }].entries()) {
        assert.equal((await run.extract(`x${i}`, tar([{ path: 'f', pax }]))).code, 2);
      }
    });
    it('prints no control characters of a name', async () => {
      await refuse([{ path: '\u001b[31mred', type: 'symlink', linkTo: '', flag: '2' }], /\\x1b\[31mred/);
    });
  });

  describe('archives that are broken', () => {
    it('refuses garbage', async () => await refuse(Buffer.alloc(4096, 'no tar at all'), /checksum|number/));
    it('refuses a truncated header', async () =>
      await refuse(tarEntry({ path: 'f' }).subarray(0, 300), /inside a header/));
    it('refuses truncated data', async () => {
      await refuse(tarEntry({ path: 'f', content: Buffer.alloc(5000) }).subarray(0, 2000), /inside an entry/);
    });
    it('refuses a size beyond the archive', async () => {
      await refuse([{ path: 'f', content: 'x', size: 0o77777777777 }], /inside an entry/);
    });
    it('refuses huge sizes', async () => {
      await refuse([{ path: 'f', pax: { size: '18446744073709551616' } }], /too large/);
    });
    it('refuses an unknown type', async () => await refuse([{ path: 'f', flag: 'Q' }], /unknown type/));
    it('refuses oversized extended headers', async () => {
      await refuse(tarEntry({ path: 'x', type: 'pax', content: Buffer.alloc((1 << 20) + 1, 'x') }), /too long/);
    });
    it('refuses malformed extended headers', async () => {
      const bad = [
        '5 a',
        '99 path=x\n',
        '0 path=x\n',
        'x path=x\n',
        '9 pathxx\n',
        '6 a=b',
        '18446744073709551615 a=b\n',
      ];
      for (const [i, content] of bad.entries()) {
        const archive = Buffer.concat([tarEntry({ path: 'x', type: 'pax', content }), tarEntry({ path: 'f' }), end]);
        assert.equal((await run.extract(`x${i}`, archive)).code, 2, content);
      }
    });
    it('refuses an extended header at the end', async () => {
      await refuse(
        tarEntry({ path: 'x', type: 'pax', content: paxRecords({ path: 'y' }) }),
        /after an extended header/,
      );
    });
    it('refuses names and depths no file system has', async () => {
      await refuse([{ path: 'x'.repeat(256) }], /too long/);
    });
    it('refuses depth without end', async () => await refuse([{ path: 'd/'.repeat(5000) }], /directories/));
    it('unpacks and removes deep trees', async () => {
      const deep = 'd/'.repeat(900);
      const dir = await accept([{ path: `${deep}f` }, { path: 'd/e', type: 'symlink', linkTo: deep }]);
      assert.ok(lstatSync(join(dir, 'd')).isDirectory());
    });
    it('refuses sparse maps that lie', async () => {
      const maps = ['0,10,5,10', '100,1', '0,1,', '0,18446744073709551615', '5', '0,3', '-1,4'];
      for (const [i, map] of maps.entries()) {
        const pax = { 'GNU.sparse.map': map, 'GNU.sparse.size': '50' };
        assert.equal((await run.extract(`x${i}`, tar([{ path: 'f', content: '0123', pax }]))).code, 2, map);
      }
    });
    it('refuses a sparse map in the data that never ends', async () => {
      const pax = { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '10' };
      await refuse([{ path: 'f', content: '9999\n1\n1\n', pax }], /sparse map/);
    });
    it('refuses a root that is no directory', async () =>
      await refuse([{ path: '.', type: 'file', content: 'x' }], /root is no directory/));
  });
});
