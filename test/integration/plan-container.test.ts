import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { compilePlan } from '../../src/runtime/plan/compile.js';
import type { LaunchFacts } from '../../src/runtime/plan/facts.js';
import { runPlan } from '../support/plan/exec-tool.js';
import { testFacts, testRoot, testSpec, type SpecChanges, type TestRoot } from '../support/plan/specs.js';

/** Container plans on the real kernel: what the program sees of what the spec asked for. */
describe('container plans', function () {
  this.timeout(60_000);
  let root: TestRoot;
  before(() => {
    root = testRoot();
  });
  after(() => root.remove());

  const run = (command: string | readonly string[], changes: SpecChanges = {}, facts: Partial<LaunchFacts> = {}) =>
    runPlan(compilePlan(testSpec(command, changes), testFacts(root, facts)));

  const output = async (
    command: string,
    changes: SpecChanges = {},
    facts: Partial<LaunchFacts> = {},
  ): Promise<string> => {
    const result = await run(command, changes, facts);
    assert.equal(result.failure, '');
    assert.equal(result.stderr, '');
    return result.stdout;
  };

  describe('namespaces', () => {
    it('are new where the spec lists them', async () => {
      const inside = (
        await output('for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done; hostname; echo $$')
      )
        .trim()
        .split('\n');
      const own = ['pid', 'net', 'ipc', 'uts', 'mnt'].map((kind) => readLink(`/proc/self/ns/${kind}`));
      inside.slice(0, 5).forEach((name, i) => assert.notEqual(name, own[i]));
      assert.deepEqual(inside.slice(5), ['box', '1']);
    });

    it('are the host’s where it does not', async () => {
      const namespaces = [{ type: 'mount' as const }];
      const changes = { linux: { namespaces }, spec: { hostname: '' } };
      const inside = (await output('for n in pid net ipc uts; do readlink /proc/self/ns/$n; done', changes)).trim();
      assert.deepEqual(
        inside.split('\n'),
        ['pid', 'net', 'ipc', 'uts'].map((kind) => readLink(`/proc/self/ns/${kind}`)),
      );
    });

    it('bring up lo in a new network namespace', async () => {
      assert.match(await output('ip addr show lo'), /UP[\s\S]*127\.0\.0\.1/);
    });

    it('are checked when given by path', async () => {
      const wrong = {
        linux: { namespaces: [{ type: 'mount' as const }, { type: 'network' as const, path: '/proc/self/ns/uts' }] },
        spec: { hostname: '' },
      };
      assert.match((await run('true', wrong)).failure, /^enter net namespace \/proc\/self\/ns\/uts: EINVAL/);
      const file = {
        linux: { namespaces: [{ type: 'mount' as const }, { type: 'network' as const, path: '/etc/passwd' }] },
        spec: { hostname: '' },
      };
      assert.match((await run('true', file)).failure, /^enter net namespace \/etc\/passwd: EINVAL/);
      const own = {
        linux: { namespaces: [{ type: 'mount' as const }, { type: 'network' as const, path: '/proc/self/ns/net' }] },
        spec: { hostname: '' },
      };
      assert.equal((await output('readlink /proc/self/ns/net', own)).trim(), readLink('/proc/self/ns/net'));
    });
  });

  describe('mounts', () => {
    it('are the usual ones, and no more', async () => {
      const lines = (await output("cut -d' ' -f2-4 /proc/self/mounts")).trim().split('\n');
      const points = lines.map((line) => line.split(' ')[0]);
      assert.deepEqual(points.slice(0, 6), ['/', '/proc', '/dev', '/dev/pts', '/dev/mqueue', '/sys']);
      assert.match(lines[1] ?? '', /proc rw,nosuid,nodev,noexec/);
      assert.match(lines[5] ?? '', /sysfs ro,nosuid,nodev,noexec/);
    });

    it('leave nothing on the host', async () => {
      const before = readFileSync('/proc/self/mountinfo', 'utf8');
      await output('mount -t tmpfs none /tmp 2>/dev/null; true');
      assert.equal(readFileSync('/proc/self/mountinfo', 'utf8'), before);
    });

    it('bind files and directories, and make their targets', async () => {
      const file = `${root.path}-file`;
      const dir = `${root.path}-dir`;
      writeFileSync(file, 'hello');
      mkdirSync(dir);
      try {
        const mounts = [
          { destination: '/proc', type: 'proc' },
          { destination: '/a/b/file', type: 'bind', source: file, options: ['bind', 'ro'] },
          { destination: '/c/d', source: dir, options: ['rbind', 'nosuid', 'noexec'] },
        ];
        const again = await run(
          'cat /a/b/file; echo x 2>/dev/null >/a/b/file || echo refused; touch /c/d/new; grep -E " /a/| /c/" /proc/self/mountinfo | cut -d" " -f5-7',
          { spec: { mounts } },
        );
        assert.match(again.stdout, /^hellorefused\n\/a\/b\/file ro,\S* *-?\n\/c\/d rw,nosuid,noexec/);
      } finally {
        removeAll(file, dir);
      }
    });

    it('name the mount that fails', async () => {
      const mounts = [{ destination: '/etc/resolv.conf', type: 'bind', source: '/nonexistent', options: ['bind'] }];
      assert.equal((await run('true', { spec: { mounts } })).failure, 'mount /etc/resolv.conf: ENOENT (source)');
      const bad = [{ destination: '/data', type: 'tmpfs', options: ['sice=1'] }];
      assert.equal((await run('true', { spec: { mounts: bad } })).failure, 'mount /data: EINVAL (option)');
      const unknown = [{ destination: '/data', type: 'nosuchfs' }];
      assert.equal((await run('true', { spec: { mounts: unknown } })).failure, 'mount /data: ENODEV (source)');
    });

    it('make read-only what should be, below too', async () => {
      const dir = `${root.path}-deep`;
      mkdirSync(dir);
      try {
        const mounts = [
          { destination: '/proc', type: 'proc' },
          { destination: '/sys', type: 'sysfs' },
          { destination: '/host-sys', source: '/sys', options: ['rbind', 'rro'] },
        ];
        const text = await output('grep " /host-sys" /proc/self/mountinfo | cut -d" " -f6 | cut -d, -f1 | sort -u', {
          spec: { mounts },
        });
        assert.equal(text.trim(), 'ro');
      } finally {
        removeAll(dir);
      }
    });

    it('copy up what a tmpfs hides', async () => {
      mkdirSync(root.at('filled/sub'), { recursive: true });
      writeFileSync(root.at('filled/sub/file'), 'kept', { mode: 0o640 });
      const mounts = [{ destination: '/filled', type: 'tmpfs', options: ['tmpcopyup'] }];
      const text = await output(
        'cat /filled/sub/file; echo; stat -c "%a %U" /filled/sub/file; echo new >/filled/sub/file',
        {
          spec: { mounts },
        },
      );
      assert.equal(text, 'kept\n640 root\n');
      assert.equal(readFileSync(root.at('filled/sub/file'), 'utf8'), 'kept');
    });
  });

  describe('root', () => {
    it('is read-only when asked, its tmpfs mounts are not', async () => {
      const text = await output('touch /x 2>/dev/null || echo refused; touch /dev/shm/y && echo ok', {
        spec: { root: { path: '/', readonly: true } },
      });
      assert.equal(text, 'refused\nok\n');
    });

    it('is all there is: the host’s root is gone', async () => {
      const text = await output('cd /; cd ../../..; pwd; ls -d /proc/1/root/bin; wc -l </proc/self/mounts');
      assert.match(text, /^\/\n\/proc\/1\/root\/bin\n\d+\n$/);
    });
  });

  describe('devices', () => {
    it('are the standard ones, with their links', async () => {
      const text = await output(
        'cd /dev; for d in null zero full random urandom tty; do stat -c "%n %t:%T %a" $d; done; for l in fd stdin ptmx core; do readlink $l; done',
      );
      assert.deepEqual(text.trim().split('\n'), [
        'null 1:3 666',
        'zero 1:5 666',
        'full 1:7 666',
        'random 1:8 666',
        'urandom 1:9 666',
        'tty 5:0 666',
        '/proc/self/fd',
        '/proc/self/fd/0',
        'pts/ptmx',
        '/proc/kcore',
      ]);
    });

    it('of the spec come with owner and mode', async () => {
      const devices = [
        { path: '/dev/x/fuse', type: 'c' as const, major: 10, minor: 229, fileMode: 0o640, uid: 7, gid: 8 },
      ];
      assert.equal(await output('stat -c "%t:%T %a %u:%g" /dev/x/fuse', { linux: { devices } }), 'a:e5 640 7:8\n');
    });

    it('are bound where nodes cannot be made', async () => {
      const text = await output('echo x >/dev/null && stat -c "%t:%T" /dev/null', {}, { devices: 'bind' });
      assert.equal(text, '1:3\n');
    });
  });

  describe('hidden paths', () => {
    it('are empty, or read-only', async () => {
      mkdirSync(root.at('secret'), { recursive: true });
      writeFileSync(root.at('secret/file'), 'secret');
      writeFileSync(root.at('secret-file'), 'secret');
      mkdirSync(root.at('fixed'), { recursive: true });
      const linux = {
        maskedPaths: ['/secret', '/secret-file', '/missing'],
        readonlyPaths: ['/fixed', '/proc/sys', '/none'],
      };
      const text = await output(
        'ls /secret | wc -l; cat /secret-file | wc -c; touch /fixed/x 2>/dev/null || echo refused; ' +
          'echo 1 2>/dev/null >/proc/sys/net/ipv4/ip_forward || echo refused; touch /secret/y 2>/dev/null || echo refused',
        { linux },
      ).catch((error: Error) => error.message);
      assert.match(text, /^0\n0\nrefused\n/);
    });
  });

  describe('process', () => {
    it('has the user, groups and umask', async () => {
      const user = { uid: 1000, gid: 1001, additionalGids: [5, 6], umask: 0o77 };
      assert.equal(await output('id -u; id -g; id -G; umask', { process: { user } }), '1000\n1001\n1001 5 6\n0077\n');
    });

    it('has the capabilities, and no_new_privs', async () => {
      const all = ['CAP_CHOWN', 'CAP_KILL'];
      const text = await output('grep -E "^(Cap|NoNew)" /proc/self/status | tr -s "\\t" " "', {
        process: { capabilities: { bounding: all, permitted: all, effective: all, inheritable: [], ambient: [] } },
      });
      const mask = '0000000000000021';
      assert.equal(
        text,
        `CapInh: 0000000000000000\nCapPrm: ${mask}\nCapEff: ${mask}\nCapBnd: ${mask}\nCapAmb: 0000000000000000\nNoNewPrivs: 1\n`,
      );
    });

    it('keeps ambient capabilities as another user', async () => {
      const names = ['CAP_NET_BIND_SERVICE'];
      const text = await output('id -u; grep -E "^Cap(Eff|Amb)" /proc/self/status | tr -s "\\t" " "', {
        process: {
          user: { uid: 1000, gid: 1000 },
          capabilities: { bounding: names, permitted: names, effective: names, inheritable: names, ambient: names },
        },
      });
      assert.equal(text, '1000\nCapEff: 0000000000000400\nCapAmb: 0000000000000400\n');
    });

    it('has the limits, clamped where it must be', async () => {
      const rlimits = [
        { type: 'RLIMIT_NOFILE', soft: 100n, hard: 200n },
        { type: 'RLIMIT_CORE', soft: 0n, hard: 0n },
        { type: 'RLIMIT_MEMLOCK', soft: 2n ** 40n, hard: 2n ** 40n },
      ];
      const result = await run('ulimit -Sn; ulimit -Hn; ulimit -c', { process: { rlimits } });
      assert.equal(result.stdout, '100\n200\n0\n');
      assert.ok(result.warnings.every(({ wanted }) => wanted === 2 ** 40));
    });

    it('has an OOM score adjustment, as far as allowed', async () => {
      const result = await run('cat /proc/self/oom_score_adj', { process: { oomScoreAdj: -998 } });
      assert.equal(result.failure, '');
      const got = Number(result.stdout);
      assert.equal(
        result.warnings.some((warning) => warning.wanted === -998 && warning.got === got),
        got !== -998,
      );
      assert.equal((await run('cat /proc/self/oom_score_adj', { process: { oomScoreAdj: 500 } })).stdout, '500\n');
    });

    it('inherits no descriptor, and is dumpable again', async () => {
      const text = await output('ls /proc/self/fd; stat -c %u /proc/self/oom_score_adj', {
        process: { user: { uid: 1000, gid: 1000 } },
      });
      assert.equal(text, '0\n1\n2\n3\n1000\n'); // 3 is the directory ls reads
    });

    it('starts in its directory, which is made', async () => {
      assert.equal(await output('pwd', { process: { cwd: '/tmp/new/dir' } }), '/tmp/new/dir\n');
    });

    it('reports the signals it starts with as default', async () => {
      const text = await output('grep -E "^Sig(Blk|Ign)" /proc/self/status | tr -s "\\t" " "');
      assert.equal(text, 'SigBlk: 0000000000000000\nSigIgn: 0000000000000000\n');
    });

    it('finds the program in PATH, and says why it does not', async () => {
      assert.equal((await run(['id', '-u'])).stdout, '0\n');
      assert.equal((await run(['nothing'])).failure, 'exec nothing: ENOENT');
      assert.equal((await run(['/bin/nothing'])).failure, 'exec /bin/nothing: ENOENT');
      writeFileSync(root.at('bin/plain'), '#!/bin/sh\n', { mode: 0o644 });
      assert.equal((await run(['plain'])).failure, 'exec plain: EACCES');
      assert.equal((await run(['/etc'])).failure, 'exec /etc: EACCES');
      writeFileSync(root.at('bin/text'), 'no program\n', { mode: 0o755 });
      assert.equal((await run(['/bin/text'])).failure, 'exec /bin/text: ENOEXEC');
    });

    it('gives its exit code', async () => {
      assert.equal((await run('exit 3')).exit, 3);
      assert.equal(
        (await run('kill -9 $$; sleep 1', { linux: { namespaces: [{ type: 'mount' }] }, spec: { hostname: '' } })).exit,
        137,
      );
    });
  });

  describe('terminal', () => {
    it('is one of the container’s own devpts, and its console', async () => {
      const spec = testSpec('tty; stat -c "%t:%T" /dev/console; stty size; [ -t 0 ] && echo yes >/dev/console', {
        process: { terminal: true },
      });
      const result = await runPlan(compilePlan(spec, testFacts(root)), { console: true });
      assert.equal(result.failure, '');
      assert.equal(result.stdout.replaceAll('\r', ''), '/dev/pts/0\n88:0\n24 80\nyes\n');
    });
  });
});

const readLink = (path: string): string => readlinkSync(path);

const removeAll = (...paths: readonly string[]): void =>
  paths.forEach((path) => rmSync(path, { recursive: true, force: true }));
