import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { O } from '../../src/native/constants.js';
import { openNative, type Native } from '../../src/native/native.js';
import type { IdMapping } from '../../src/runtime/model.js';
import { measureTree } from '../../src/runtime/snapshots/tree.js';
import {
  createRemapRun,
  defaultGids,
  defaultUids,
  remapProgram,
  type RemapOptions,
  type RemapOutcome,
  type RemapProgram,
  type RemapRun,
} from '../support/remap-run.js';
import { accessList, CAP_NET_RAW, fileCapability } from '../support/file-attributes.js';
import { skip } from '../support/skip.js';
import { treeFacts, type EntryFacts } from '../support/tree-facts.js';

const modes = ['metacopy', 'copy'] as const;
const gibibyte = 1 << 30;

/** Types of mknod(2). */
const S = { IFIFO: 0o010000, IFCHR: 0o020000, IFBLK: 0o060000, IFSOCK: 0o140000 } as const;

const capability = (rootid?: number): Buffer => fileCapability(CAP_NET_RAW, rootid);

/** What the kernel lets a container see of an id, by the same rules and none of the same code. */
const hostId = (maps: readonly IdMapping[], id: number): number => {
  const line = maps.find((each) => id >= each.containerId && id < each.containerId + each.size);
  assert.ok(line !== undefined, `id ${id} is not mapped`);
  return line.hostId + id - line.containerId;
};

function mappedXattr(name: string, hex: string): string {
  const value = Buffer.from(hex, 'hex');
  if (name === 'security.capability') {
    return capability(hostId(defaultUids, value.length === 24 ? value.readUInt32LE(20) : 0)).toString('hex');
  }
  if (!name.startsWith('system.posix_acl')) return hex;
  for (let at = 4; at < value.length; at += 8) {
    const tag = value.readUInt16LE(at);
    const maps = tag === 2 ? defaultUids : tag === 8 ? defaultGids : undefined;
    if (maps !== undefined) value.writeUInt32LE(hostId(maps, value.readUInt32LE(at + 4)), at + 4);
  }
  return value.toString('hex');
}

const mapped = (facts: EntryFacts): EntryFacts => ({
  ...facts,
  uid: hostId(defaultUids, facts.uid),
  gid: hostId(defaultGids, facts.gid),
  xattrs: Object.fromEntries(Object.entries(facts.xattrs).map(([name, hex]) => [name, mappedXattr(name, hex)])),
});

function suite(name: string, program: RemapProgram): void {
  describe(name, () => {
    let run: RemapRun;
    let native: Native;
    before(function () {
      const built = program.build();
      if (!built && program.sanitized) skip(this, 'no compiler with sanitizers');
      assert.ok(built);
      native = openNative();
    });
    beforeEach(() => (run = createRemapRun(program, native)));
    afterEach(() => run.close());

    const file = (layer: string, path: string, content: string | Buffer = path, mode = 0o644): string => {
      const full = join(run.dir(layer), path);
      mkdirSync(join(full, '..'), { recursive: true });
      writeFileSync(full, content);
      chmodSync(full, mode);
      return full;
    };
    const node = (layer: string, path: string, type: number, device: readonly [number, number] = [0, 0]): string => {
      const full = join(run.dir(layer), path);
      mkdirSync(join(full, '..'), { recursive: true });
      native.files.mknodAt(-100, full, type | 0o640, ...device);
      return full;
    };
    const whiteout = (layer: string, path: string): string => node(layer, path, S.IFCHR);
    const opaque = (layer: string, path: string): void =>
      native.files.setXattr(run.dir(join(layer, path)), 'trusted.overlay.opaque', Buffer.from('y'));
    const xattr = (path: string, attribute: string, value: Buffer): void =>
      native.files.setXattr(path, attribute, value);

    const remap = async (
      into: string,
      layers: readonly string[],
      options?: Partial<RemapOptions>,
    ): Promise<RemapOutcome> => {
      const outcome = await run.remap(into, layers, options);
      assert.equal(outcome.code, 0, outcome.stderr);
      assert.deepEqual(outcome.done, await measureTree(run.dir(into)));
      return outcome;
    };

    /** Both ways over the same layers look like the layers themselves, but for the ids. */
    const sameTree = async (layers: readonly string[], suffix = ''): Promise<Map<string, EntryFacts>> => {
      const original = treeFacts(native.files, run.mount(layers));
      const expected = new Map([...original].map(([path, facts]) => [path, mapped(facts)]));
      const checked = await run.remap('nothing', layers, { mode: 'check' });
      assert.deepEqual([checked.code, checked.done], [0, { bytes: 0, inodes: 0 }]);
      for (const mode of modes) {
        const into = `${mode}${suffix}`;
        await remap(into, layers, { mode });
        const root = mode === 'copy' ? run.dir(into) : run.mount([into, ...layers]);
        assert.deepEqual(treeFacts(native.files, root), expected, mode);
      }
      run.unmount();
      return original;
    };

    describe('every kind of entry', () => {
      it('keeps modes, owners, times and data', async () => {
        const modesOf = { plain: 0o644, suid: 0o4755, sgid: 0o2755, both: 0o6711, sticky: 0o1666, none: 0 };
        for (const [path, mode] of Object.entries(modesOf)) {
          const full = file('a', path, path, mode);
          chownSync(full, 1000, 65_535);
          chmodSync(full, mode);
          lutimesSync(full, 1_000_000_000.25, 1_500_000_000.125);
        }
        file('a', 'empty', '');
        for (const [path, mode] of [['dir', 0o2770] as const, ['tmp', 0o1777] as const, ['closed', 0] as const]) {
          const full = join(run.dir('a'), path);
          mkdirSync(full);
          file('a', `${path}/inside`);
          chownSync(full, 7, 8);
          chmodSync(full, mode);
          lutimesSync(full, 1, 1_400_000_000);
        }
        chownSync(run.dir('a'), 5, 6);
        chmodSync(run.dir('a'), 0o751);
        lutimesSync(run.dir('a'), 1, 1_300_000_000);
        const facts = await sameTree(['a']);
        assert.equal(facts.get('.')?.mode, '40751');
        assert.equal(facts.get('./both')?.mode, '106711');
        assert.equal(lstatSync(join(run.dir('copy'), 'suid')).uid, 101_000);
        assert.equal(lstatSync(join(run.dir('copy'), 'suid')).gid, 365_535);
      });

      it('makes links, devices, fifos and sockets', async () => {
        for (const [path, target] of [
          ['dangling', 'nowhere/at/all'],
          ['absolute', '/etc/passwd'],
          ['up', '../../../../../etc/shadow'],
          ['long', 'x'.repeat(1000)],
        ] as const) {
          symlinkSync(target, join(run.dir('a'), path));
          lchownSync(join(run.dir('a'), path), 33, 44);
          lutimesSync(join(run.dir('a'), path), 1, 1_200_000_000.5);
        }
        linkSync(join(run.dir('a'), 'up'), join(run.dir('a'), 'up-again'));
        chmodSync(node('a', 'null', S.IFCHR, [1, 3]), 0o666);
        chownSync(node('a', 'disk', S.IFBLK, [259, 200_000]), 0, 6);
        chmodSync(node('a', 'pipe', S.IFIFO), 0o4622);
        chownSync(node('a', 'socket', S.IFSOCK), 12, 13);
        node('a', 'zero-minor', S.IFCHR, [5, 0]);
        assert.equal((await sameTree(['a'])).size, 11);
      });

      it('gives capabilities to the root they meant', async () => {
        xattr(file('a', 'bin/two'), 'security.capability', capability());
        xattr(file('a', 'bin/three'), 'security.capability', capability(1000));
        const facts = await sameTree(['a']);
        assert.equal(facts.get('./bin/two')?.xattrs['security.capability'], capability().toString('hex'));
        const seen = (path: string): Buffer | undefined =>
          native.files.getXattr(join(run.dir('copy'), path), 'security.capability');
        assert.deepEqual(seen('bin/two'), capability(100_000));
        assert.deepEqual(seen('bin/three'), capability(101_000));
      });

      it('maps the ids of access control lists', async () => {
        const listed = file('a', 'listed', 'x', 0o4755);
        chownSync(listed, 3, 4);
        xattr(listed, 'system.posix_acl_access', accessList([0, 500], [0, 600]));
        chmodSync(listed, 0o6775);
        const shared = join(run.dir('a'), 'shared');
        mkdirSync(shared, { mode: 0o2775 });
        xattr(shared, 'system.posix_acl_access', accessList([7], []));
        xattr(shared, 'system.posix_acl_default', accessList([8], [9]));
        writeFileSync(join(shared, 'inherits'), 'x');
        mkdirSync(join(shared, 'heir'));
        const facts = await sameTree(['a']);
        assert.ok(facts.get('./shared/heir')?.xattrs['system.posix_acl_default'] !== undefined);
        assert.deepEqual(
          native.files.getXattr(join(run.dir('copy'), 'listed'), 'system.posix_acl_access'),
          accessList([100_000, 100_500], [300_000, 300_600]),
        );
      });

      it('keeps other attributes, and none that command the overlay', async () => {
        const target = file('a', 'f');
        xattr(target, 'user.note', Buffer.from('a\0b'));
        xattr(target, 'user.large', Buffer.alloc(3000, 7));
        xattr(target, 'user.empty', Buffer.alloc(0));
        xattr(target, 'trusted.note', Buffer.from('t'));
        xattr(run.dir('a'), 'user.root', Buffer.from('r'));
        symlinkSync('f', join(run.dir('a'), 'link'));
        xattr(join(run.dir('a'), 'link'), 'trusted.note', Buffer.from('of the link'));
        xattr(node('a', 'pipe', S.IFIFO), 'trusted.note', Buffer.from('of the pipe'));
        const facts = await sameTree(['a']);
        assert.deepEqual(Object.keys(facts.get('./f')?.xattrs ?? {}), [
          'trusted.note',
          'user.empty',
          'user.large',
          'user.note',
        ]);
        xattr(target, 'trusted.overlay.redirect', Buffer.from('/link'));
        xattr(target, 'user.overlay.metacopy', Buffer.alloc(0));
        await remap('again', ['a'], { mode: 'copy' });
        const names = native.files.listXattr(join(run.dir('again'), 'f'));
        assert.deepEqual(
          names.filter((attribute) => attribute.includes('overlay')),
          [],
        );
      });

      it('copies sparse files as sparse files', async () => {
        const fd = openSync(file('a', 'sparse', ''), 'r+');
        ftruncateSync(fd, gibibyte);
        writeSync(fd, 'at the start', 0);
        writeSync(fd, 'in the middle', 500_000_000);
        closeSync(fd);
        truncateSync(file('a', 'hole', ''), 5_000_000);
        const tail = openSync(file('a', 'tail', ''), 'r+');
        writeSync(tail, 'at the end', 3_000_000);
        closeSync(tail);
        await sameTree(['a']);
        const copied = lstatSync(join(run.dir('copy'), 'sparse'));
        assert.equal(copied.size, gibibyte);
        assert.ok(copied.blocks * 512 < 1_000_000, `${copied.blocks} blocks`);
        assert.equal(lstatSync(join(run.dir('copy'), 'hole')).blocks, 0);
      });

      it('adds inodes and no data with metacopy', async () => {
        for (let i = 0; i < 20; i++) file('a', `d/${i}`, Buffer.alloc(100_000, i));
        const { done } = await remap('meta', ['a']);
        assert.equal(done?.inodes, 21);
        assert.ok((done?.bytes ?? Infinity) <= 8192, `${done?.bytes} bytes`);
        const copied = await remap('copy', ['a'], { mode: 'copy' });
        assert.ok((copied.done?.bytes ?? 0) >= 2_000_000);
        for (const line of [...copied.progress]) assert.match(line, /^p \d+ \d+$/);
        assert.ok(copied.progress.length > 0);
      });
    });

    describe('hard links', () => {
      it('stay links, across directories and without the names that are gone', async () => {
        const first = file('low', 'a/first', 'data', 0o4755);
        chownSync(first, 1, 2);
        chmodSync(first, 0o4755);
        mkdirSync(join(run.dir('low'), 'b/c'), { recursive: true });
        linkSync(first, join(run.dir('low'), 'b/c/second'));
        linkSync(first, join(run.dir('low'), 'third'));
        linkSync(first, join(run.dir('low'), 'b/gone'));
        linkSync(node('low', 'pipe', S.IFIFO), join(run.dir('low'), 'b/pipe'));
        whiteout('high', 'b/gone');
        file('high', 'a/other', 'other');
        linkSync(join(run.dir('high'), 'a/other'), join(run.dir('high'), 'other'));
        const facts = await sameTree(['high', 'low']);
        assert.equal(facts.get('./third')?.inode, './a/first');
        for (const mode of modes) assert.equal(lstatSync(join(run.dir(mode), 'a/first')).nlink, 3, mode);
      });

      it('are made when hundreds of names lead across many directories', async () => {
        const origin = file('a', 'origin', 'x');
        for (let i = 0; i < 300; i++) {
          mkdirSync(join(run.dir('a'), `d${i}`));
          linkSync(origin, join(run.dir('a'), `d${i}/one`));
          linkSync(origin, join(run.dir('a'), `d${i}/two`));
        }
        await sameTree(['a']);
        assert.equal(lstatSync(join(run.dir('copy'), 'd7/two')).nlink, 601);
      });
    });

    describe('stacks of layers', () => {
      it('takes whiteouts, opaque directories and replaced entries as overlayfs does', async () => {
        file('c', 'kept', 'bottom');
        file('c', 'gone', 'bottom');
        file('c', 'changed', 'bottom');
        file('c', 'cut/below', 'bottom');
        file('c', 'cut/deep/below', 'bottom');
        file('c', 'merged/one', 'bottom', 0o600);
        file('c', 'merged/sub/one', 'bottom');
        file('c', 'tree/inside', 'bottom');
        file('c', 'plain', 'bottom');
        file('c', 'back/old', 'bottom');
        file('b', 'cut/middle', 'middle');
        opaque('b', 'cut');
        file('b', 'merged/two', 'middle');
        file('b', 'tree', 'a file now');
        file('b', 'plain/dir', 'a directory now');
        whiteout('b', 'back');
        file('b', 'only-here', '');
        whiteout('b', 'never-was');
        whiteout('a', 'gone');
        file('a', 'changed', 'top');
        file('a', 'cut/top', 'top');
        file('a', 'merged/sub/three', 'top');
        whiteout('a', 'merged/one');
        file('a', 'tree/fresh', 'a directory again');
        file('a', 'back/new', 'top');
        symlinkSync('merged', join(run.dir('a'), 'link'));
        chownSync(run.dir('a'), 1, 1);
        chownSync(run.dir('b'), 2, 2);
        chmodSync(run.dir('b/merged'), 0o700);
        const facts = await sameTree(['a', 'b', 'c']);
        assert.deepEqual(
          [...facts.keys()].filter((path) => /back|cut|tree|plain|gone/.test(path)),
          [
            './back',
            './back/new',
            './cut',
            './cut/middle',
            './cut/top',
            './plain',
            './plain/dir',
            './tree',
            './tree/fresh',
          ],
        );
        await sameTree(['c', 'b', 'a'], '-turned');
      });

      it('finds data below and beside opaque directories in the middle', async () => {
        file('d', 'x/y/z/from-d', 'd');
        file('c', 'x/y/z/from-c', 'c');
        opaque('c', 'x/y');
        file('b', 'x/y/from-b', 'b');
        opaque('b', 'x');
        file('a', 'x/y/z/from-a', 'a');
        file('a', 'x/y2/from-a', 'a');
        await sameTree(['a', 'b', 'c', 'd']);
        await sameTree(['a', 'c', 'd'], '-less');
        opaque('d', '.');
        await sameTree(['c', 'd', 'a'], '-opaque-root');
      });

      it('stacks 130 layers', async () => {
        const layers = Array.from({ length: 130 }, (_, index) => `${index}`);
        for (const layer of layers) {
          file(layer, `own/${layer}`, layer);
          file(layer, 'same', layer);
          if (Number(layer) > 0) whiteout(layer, `own/${Number(layer) + 1}`);
        }
        const facts = await sameTree(layers);
        assert.equal(facts.size, 4 + 1);
        assert.equal(readFileSync(join(run.dir('copy'), 'same'), 'utf8'), '0');
      });

      it('takes names of any bytes and directories of thousands', async () => {
        for (const byteName of [
          Buffer.from([0xff, 0xfe, 0x0a, 0x22]),
          Buffer.alloc(255, 0x80),
          Buffer.from(' .wh.x'),
        ]) {
          writeFileSync(Buffer.concat([Buffer.from(`${run.dir('low')}/`), byteName]), 'x');
        }
        for (let i = 0; i < 900; i++) file(i % 3 === 0 ? 'high' : 'low', `huge/${'long-'.repeat(40)}${i}`, `${i}`);
        for (let i = 0; i < 90; i++) whiteout('high', `huge/${'long-'.repeat(40)}${i * 3 + 1}`);
        assert.equal((await sameTree(['high', 'low'])).size, 2 + 3 + 810);
      });

      it('goes as deep as a tree may be', async () => {
        const depth = 1000;
        const name = 'd'.repeat(200);
        let at = native.files.openAt(-100, run.dir('a'), O.PATH | O.DIRECTORY);
        for (let level = 0; level < depth; level++) {
          native.files.mkdirAt(at.fd, name, 0o700);
          const next = native.files.openAt(at.fd, name, O.PATH | O.DIRECTORY);
          at[Symbol.dispose]();
          at = next;
        }
        at[Symbol.dispose]();
        for (const mode of modes) {
          const outcome = await run.remap(mode, ['a'], { mode });
          assert.equal(outcome.code, 0, outcome.stderr);
          assert.equal(outcome.done?.inodes, depth);
        }
        /* Not every rm(1) gets to the bottom. */
        for (const root of ['a', ...modes].map(run.dir)) {
          for (let level = 1; level < depth; level++) {
            renameSync(join(root, name, name), join(root, 'next'));
            rmdirSync(join(root, name));
            renameSync(join(root, 'next'), join(root, name));
          }
        }
      });

      it('reads user.overlay attributes with -u, and only those', async () => {
        file('low', 'cut/below');
        file('low', 'whole/below');
        file('high', 'cut/top');
        file('high', 'whole/top');
        xattr(join(run.dir('high'), 'cut'), 'user.overlay.opaque', Buffer.from('y'));
        xattr(join(run.dir('high'), 'whole'), 'trusted.overlay.opaque', Buffer.from('y'));
        await remap('copy', ['high', 'low'], { mode: 'copy', userXattrs: true });
        assert.deepEqual(readdirSync(join(run.dir('copy'), 'cut')), ['top']);
        assert.deepEqual(readdirSync(join(run.dir('copy'), 'whole')), ['below', 'top']);
        assert.deepEqual(native.files.listXattr(join(run.dir('copy'), 'cut')), []);
        const refused = await run.remap('meta', ['high', 'low'], { userXattrs: true });
        assert.equal(refused.code, 3);
        assert.match(refused.stderr, /metacopy with user\.overlay attributes: /);
      });
    });

    describe('a container on top of metacopy', () => {
      const layers = ['meta', 'high', 'low'];
      const content = Buffer.alloc(70_000, 'content ');
      beforeEach(async () => {
        for (const path of ['d/write', 'd/rename', 'd/link', 'd/away', 'd/mode', 'd/cut', 'd/sub/deep', 'e/over'])
          file('low', path, content);
        file('low', 'cut/hidden', content);
        file('high', 'cut/shown', content);
        opaque('high', 'cut');
        linkSync(join(run.dir('low'), 'd/write'), join(run.dir('low'), 'e/written'));
        await remap('meta', ['high', 'low']);
      });

      it('writes, renames, links, removes, and finds it all again', () => {
        const at = (path: string): string => join(run.mount(layers, { upper: 'up' }), path);
        const root = at('');
        appendFileSync(join(root, 'd/write'), 'more');
        renameSync(join(root, 'd/rename'), join(root, 'e/renamed'));
        linkSync(join(root, 'd/link'), join(root, 'e/linked'));
        unlinkSync(join(root, 'd/away'));
        chmodSync(join(root, 'd/mode'), 0o4700);
        truncateSync(join(root, 'd/cut'), 10);
        renameSync(join(root, 'd/mode'), join(root, 'd/mode-moved'));
        renameSync(join(root, 'd/sub'), join(root, 'e/sub-moved'));
        renameSync(join(root, 'cut'), join(root, 'cut-moved'));
        renameSync(join(root, 'e/sub-moved/deep'), join(root, 'deep-moved'));
        renameSync(join(root, 'd'), join(root, 'd-moved'));
        rmSync(join(root, 'e/over'));
        mkdirSync(join(root, 'e/over'));
        const seen = treeFacts(native.files, root);
        run.unmount();
        const again = run.mount(layers, { upper: 'up' });
        assert.deepEqual(treeFacts(native.files, again), seen);
        const read = (path: string): string => readFileSync(join(again, path), 'utf8');
        assert.equal(read('d-moved/write'), `${content.toString()}more`);
        assert.equal(read('d-moved/cut'), content.subarray(0, 10).toString());
        for (const path of ['d-moved/link', 'e/linked', 'e/renamed', 'd-moved/mode-moved', 'deep-moved'])
          assert.equal(read(path), content.toString(), path);
        assert.equal(read('cut-moved/shown'), content.toString());
        assert.deepEqual(readdirSync(join(again, 'cut-moved')), ['shown']);
        assert.equal(lstatSync(join(again, 'd-moved/mode-moved')).mode & 0o7777, 0o4700);
        assert.equal(lstatSync(join(again, 'e/renamed')).uid, 100_000);
        assert.deepEqual(readFileSync(join(run.dir('low'), 'd/write')), content);
      });

      it('takes metadata changes up without the data', async () => {
        const root = run.mount(layers, { upper: 'up' });
        chownSync(join(root, 'd/mode'), 100_001, 300_001);
        renameSync(join(root, 'd/rename'), join(root, 'd/renamed'));
        run.unmount();
        assert.ok((await measureTree(run.dir('up'))).bytes < 50_000);
        const again = run.mount(layers, { upper: 'up' });
        assert.deepEqual(readFileSync(join(again, 'd/mode')), content);
        assert.deepEqual(readFileSync(join(again, 'd/renamed')), content);
      });
    });

    describe('ids', () => {
      it('follows several ranges, each kind its own', async () => {
        const uids = [
          { containerId: 5000, hostId: 10, size: 10 },
          { containerId: 0, hostId: 100_000, size: 1000 },
          { containerId: 4_294_967_290, hostId: 77, size: 4 },
        ];
        const gids = [
          { containerId: 0, hostId: 200_000, size: 1 },
          { containerId: 1, hostId: 0, size: 1 },
          { containerId: 2, hostId: 4_294_967_200, size: 94 },
        ];
        const owners = [
          [0, 0],
          [999, 1],
          [5000, 2],
          [5009, 95],
          [4_294_967_293, 0],
        ] as const;
        for (const [uid, gid] of owners) chownSync(file('a', `${uid}`), uid, gid);
        await remap('copy', ['a'], { mode: 'copy', uids, gids });
        const seen = owners.map(([uid]) => lstatSync(join(run.dir('copy'), `${uid}`)));
        assert.deepEqual(
          seen.map((st) => [st.uid, st.gid]),
          [
            [100_000, 200_000],
            [100_999, 0],
            [10, 4_294_967_200],
            [19, 4_294_967_293],
            [80, 200_000],
          ],
        );
      });

      it('takes 340 lines of each kind', async () => {
        const many = Array.from({ length: 340 }, (_, index) => ({
          containerId: 339 - index,
          hostId: 1_000_000 + index * 3,
          size: 1,
        }));
        chownSync(file('a', 'f'), 338, 339);
        await remap('copy', ['a'], { mode: 'copy', uids: many, gids: many });
        const { uid, gid } = lstatSync(join(run.dir('copy'), 'f'));
        assert.deepEqual([uid, gid], [1_000_003, 1_000_000]);
      });

      let refused = 0;
      const refuse = async (why: string, options?: Partial<RemapOptions>): Promise<void> => {
        for (const mode of [...modes, 'check'] as const) {
          const outcome = await run.remap(`refused-${refused++}`, ['a'], { mode, ...options });
          assert.equal(outcome.code, 2, outcome.stderr);
          assert.equal(outcome.stderr, why);
          assert.equal(outcome.done, undefined);
        }
      };

      it('names the file and the id that no range holds', async () => {
        chownSync(file('a', 'etc/foo'), 70_000, 0);
        await refuse('etc/foo: uid 70000 is not mapped');
        chownSync(file('a', 'etc/foo'), 0, 65_536);
        await refuse('etc/foo: gid 65536 is not mapped');
        rmSync(join(run.dir('a'), 'etc/foo'));
        symlinkSync('x', join(run.dir('a'), 'etc/l\x1b[31m'));
        lchownSync(join(run.dir('a'), 'etc/l\x1b[31m'), 80_000, 0);
        await refuse('etc/l\\x1b[31m: uid 80000 is not mapped');
        rmSync(join(run.dir('a'), 'etc/l\x1b[31m'));
        chownSync(run.dir('a/etc'), 0, 90_000);
        await refuse('etc: gid 90000 is not mapped');
        chownSync(run.dir('a/etc'), 0, 0);
        await refuse('/: uid 0 is not mapped', { uids: [] });
        rmSync(join(run.dir('a'), 'etc'), { recursive: true });
        chownSync(run.dir('a'), 99_999, 0);
        await refuse('/: uid 99999 is not mapped');
      });

      it('does not mind ids of what upper layers hide', async () => {
        for (const path of ['gone', 'replaced', 'opaque/old', 'turned/inside'])
          chownSync(file('b', path), 70_000, 70_000);
        whiteout('a', 'gone');
        file('a', 'replaced');
        file('a', 'turned');
        file('a', 'opaque/new');
        opaque('a', 'opaque');
        chownSync(run.dir('b/opaque'), 70_000, 0);
        for (const mode of [...modes, 'check'] as const) {
          const { code, stderr } = await run.remap(mode, ['a', 'b'], { mode });
          assert.equal(code, 0, stderr);
        }
        assert.equal((await run.remap('again', ['b'], { mode: 'check' })).code, 2);
      });

      it('names ids inside attributes too', async () => {
        const target = file('a', 'f');
        xattr(target, 'system.posix_acl_access', accessList([70_001], []));
        await refuse('f: uid 70001 of its access control list is not mapped');
        xattr(target, 'system.posix_acl_access', accessList([1], [70_002]));
        await refuse('f: gid 70002 of its access control list is not mapped');
        rmSync(target);
        xattr(file('a', 'f'), 'security.capability', capability(70_003));
        await refuse('f: uid 70003 of its file capability is not mapped');
        chownSync(target, 1, 0);
        xattr(target, 'security.capability', capability());
        await refuse('f: uid 0 of its file capability is not mapped', {
          uids: [{ containerId: 1, hostId: 100_001, size: 10 }],
        });
        rmSync(target);
        xattr(run.dir('a/d'), 'system.posix_acl_default', accessList([70_004], []));
        await refuse('d: uid 70004 of its access control list is not mapped');
      });

      it('takes no map that is none', async () => {
        file('a', 'f');
        const inputs = [
          'x 0 1 2\n',
          'u 0 1\n',
          'u 0 1 2 3\n',
          'u 0 1 0\n',
          'u 4294967295 1 1\n',
          'u 0 4294967295 1\n',
          'u 1 0 4294967295\n',
          'u 99999999999 1 1\n',
          'u -1 0 1\n',
          'u 0 1 10\nu 9 100 10\n',
          'g 0 0 1\n'.repeat(341),
          'u 0 0 1\n'.repeat(10_000),
        ];
        for (const [index, input] of inputs.entries()) {
          const outcome = await run.remap(`none${index}`, ['a'], { input });
          assert.equal(outcome.code, 3, JSON.stringify(input.slice(0, 40)));
          assert.match(outcome.stderr, /the id maps: Invalid argument/);
        }
      });
    });
  });
}

suite('berth-remap', remapProgram(false));
suite('berth-remap with sanitizers', remapProgram(true));
