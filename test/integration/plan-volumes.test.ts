import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openNative } from '../../src/native/native.js';
import { compilePlan } from '../../src/runtime/plan/compile.js';
import type { VolumeFacts } from '../../src/runtime/plan/facts.js';
import { runPlan } from '../support/plan/exec-tool.js';
import { testFacts, testRoot, testSpec, type TestRoot } from '../support/plan/specs.js';

describe('launch plans with volumes of images', function () {
  this.timeout(60_000);
  let root: TestRoot;
  let dir: string;
  beforeEach(() => {
    root = testRoot();
    dir = mkdtempSync(join(tmpdir(), 'berth-volumes-'));
  });
  afterEach(() => {
    root.remove();
    rmSync(dir, { recursive: true, force: true });
  });

  const run = (command: string, destination: string, source: string, facts: VolumeFacts, options: string[] = []) => {
    const mount = { destination, type: 'bind', source, options: ['bind', 'private'] };
    const mounts = [mount, { destination: '/proc', type: 'proc' }];
    const plan = compilePlan(
      testSpec(command, { spec: { mounts } }),
      testFacts(root, { volumes: new Map([[source, facts]]) }),
    );
    return runPlan(plan, {}, options);
  };

  describe('an image', () => {
    beforeEach(() => {
      for (const name of ['top', 'base/dir/inner']) mkdirSync(join(dir, name), { recursive: true });
      writeFileSync(join(dir, 'top/over'), 'top');
      writeFileSync(join(dir, 'base/over'), 'base');
      writeFileSync(join(dir, 'base/dir/file'), 'file');
      for (const [name, target] of [
        ['absolute', '/dir'],
        ['outside', '../../../../../../../etc'],
        ['magic', '/proc/self/cwd'],
      ] as const)
        symlinkSync(target, join(dir, 'base', name));
      execFileSync('mkfifo', [join(dir, 'base/pipe')]);
    });
    const image = (subPath: string): VolumeFacts => ({
      kind: 'image',
      lower: [join(dir, 'top'), join(dir, 'base')],
      subPath,
      idmap: 'none',
    });

    for (const [way, options] of [
      ['by descriptors', []],
      ['by strings', ['--without', '1']],
      ['by one page', ['--without', '3']],
      ['where no detached mount can be cloned', ['--without', '7']],
    ] as const) {
      it(`is mounted whole and in part, ${way}`, async () => {
        const whole = await run('cat /v/over /v/dir/file; echo x > /v/x', '/v', 'image:a', image(''), [...options]);
        assert.equal(whole.failure, '');
        assert.equal(whole.stdout, 'topfile');
        assert.match(whole.stderr, /Read-only file system/);
        const part = await run('ls /v; ls /v/..; echo x > /v/x', '/v', 'image:a', image('/absolute'), [...options]);
        assert.match(part.stdout, /^file\ninner\nbin\n/);
        assert.match(part.stderr, /Read-only file system/);
        assert.ok(!readFileSync('/proc/self/mountinfo', 'utf8').includes(dir));
      });
    }

    it('has no part that is not a directory or file of its own', async () => {
      for (const [subPath, reason] of [
        ['/missing', 'ENOENT (source)'],
        ['/outside', 'ENOENT (source)'],
        ['/magic', 'ENOENT (source)'],
        ['/pipe', 'ENOTDIR (not what it claims to be)'],
        ['/dir/file/x', 'ENOTDIR (source)'],
      ] as const)
        assert.equal((await run('true', '/v', 'image:a', image(subPath))).failure, `mount /v: ${reason}`, subPath);
      assert.equal((await run('cat /v', '/v', 'image:a', image('/../../dir/../over'))).stdout, 'top');
    });
  });

  describe('a copy of what the root has', () => {
    const copied = { kind: 'copy-up' } as const;
    const volume = (): string => {
      mkdirSync(join(dir, 'volume'));
      return join(dir, 'volume');
    };

    it('keeps attributes, owners, modes, times, holes and links, and nothing of the file system’s own', async () => {
      const { files } = openNative();
      const at = (name: string): string => root.at(`data/${name}`);
      mkdirSync(at('dir'), { recursive: true });
      for (const name of ['plain', 'capable', 'holes', 'dir/file']) writeFileSync(at(name), 'content');
      truncateSync(at('holes'), 1 << 30);
      linkSync(at('plain'), at('linked'));
      symlinkSync('/nowhere', at('dangling'));
      chownSync(at('capable'), 11, 12);
      chmodSync(at('capable'), 0o6711);
      chownSync(root.at('data'), 13, 14);
      chmodSync(root.at('data'), 0o3770);
      execFileSync('touch', ['-d', '2001-02-03', at('plain'), at('dir')]);
      const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
      const acl = Buffer.from(
        '0200000001000600ffffffff020004000f00000004000400ffffffff10000400ffffffff20000400ffffffff',
        'hex',
      );
      files.setXattr(at('capable'), 'security.capability', capability);
      files.setXattr(at('dir/file'), 'system.posix_acl_access', acl);
      files.setXattr(at('dir'), 'user.mine', Buffer.from('yes'));
      files.setXattr(at('dir'), 'trusted.overlay.opaque', Buffer.from('y'));

      const to = volume();
      const result = await run('ls /data', '/data', to, copied);
      assert.equal(result.failure, '');
      assert.equal(result.stdout, 'capable\ndangling\ndir\nholes\nlinked\nplain\n');
      const seen = (name: string): unknown[] => {
        const { uid, gid, mode } = statSync(join(to, name));
        return [uid, gid, mode & 0o7777];
      };
      assert.deepEqual(seen(''), [13, 14, 0o3770]);
      assert.deepEqual(seen('capable'), [11, 12, 0o6711]);
      assert.deepEqual(files.getXattr(join(to, 'capable'), 'security.capability'), capability);
      assert.deepEqual(files.getXattr(join(to, 'dir/file'), 'system.posix_acl_access'), acl);
      assert.equal(files.getXattr(join(to, 'dir'), 'user.mine')?.toString(), 'yes');
      assert.equal(files.getXattr(join(to, 'dir'), 'trusted.overlay.opaque'), undefined);
      for (const name of ['plain', 'dir']) assert.equal(statSync(join(to, name)).mtime.getFullYear(), 2001, name);
      const holes = statSync(join(to, 'holes'));
      assert.equal(holes.size, 1 << 30);
      assert.ok(holes.blocks < 100);
      assert.equal(readFileSync(join(to, 'linked'), 'utf8'), 'content');
      assert.equal(statSync(join(to, 'plain')).nlink, 1);
    });

    it('goes through deep trees, and gives up on bottomless ones', async () => {
      mkdirSync(root.at(`data/${'d/'.repeat(190)}`), { recursive: true });
      const to = volume();
      assert.equal((await run('true', '/data', to, copied)).failure, '');
      assert.deepEqual(readdirSync(join(to, 'd/'.repeat(189))), ['d']);
      mkdirSync(root.at(`deeper/${'d/'.repeat(300)}`), { recursive: true });
      rmSync(to, { recursive: true });
      assert.equal((await run('true', '/deeper', volume(), copied)).failure, 'mount /deeper: ELOOP (source)');
    });

    it('of a link is what is behind it in the root', async () => {
      mkdirSync(root.at('real'));
      writeFileSync(root.at('real/file'), 'inside');
      mkdirSync(join(dir, 'outside'));
      writeFileSync(join(dir, 'outside/secret'), 'of the host');
      symlinkSync('/real', root.at('link'));
      symlinkSync(join(dir, 'outside'), root.at('escape'));
      const to = volume();
      assert.equal((await run('cat /link/file', '/link', to, copied)).stdout, 'inside');
      rmSync(to, { recursive: true });
      const result = await run('ls /escape/', '/escape', volume(), copied);
      assert.deepEqual([result.failure, result.stdout], ['', '']);
      assert.deepEqual(readdirSync(join(dir, 'outside')), ['secret']);
    });
  });
});
