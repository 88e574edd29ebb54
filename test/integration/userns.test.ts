import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { isKind } from '../../src/kit/errors.js';
import type { ContainerConfig } from '../../src/runtime/model.js';
import { namespaceOf, usePods, type PodChanges } from '../support/pods.js';
import { call, containerConfig, logText } from '../support/runtime.js';
import { line, namespaces, userns, volume } from '../support/userns.js';
import { mountsIn } from '../support/volumes.js';

describe('pods in user namespaces', function () {
  this.timeout(60_000);
  const pods = usePods({ flags: { 'userns-handlers': 'own', 'userns-ranges': '30000000:131072' } });
  const { start, output, exec, pidOf, directory } = pods;
  const run = (options = namespaces(), changes: PodChanges = {}, runtimeHandler = ''): Promise<string> =>
    pods.run({ ...changes, namespaces: options }, runtimeHandler);
  type Changes = Parameters<typeof containerConfig>[1];
  const container = (script: string, changes: Changes = {}, options = namespaces()): ContainerConfig =>
    containerConfig(script, { ...changes, security: { namespaces: options, ...changes?.security } });

  it('is offered', () => {
    const { handlers, features } = pods.host.runtime.status();
    assert.ok(handlers.every((handler) => handler.userNamespaces));
    assert.ok(features.userNamespacesHostNetwork);
  });

  describe('a container', () => {
    it('is root inside and a stranger outside', async () => {
      const id = await start(await run(), container('sleep 1000'));
      const status = readFileSync(`/proc/${pidOf(id)}/status`, 'utf8');
      assert.match(status, /^Uid:\t1000000\t1000000\t1000000\t1000000$/m);
      assert.match(status, /^Gid:\t2000000\t2000000\t2000000\t2000000$/m);
      const seen = await exec(id, 'sh', '-c', 'id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map');
      assert.equal(seen.stderr, '');
      assert.deepEqual(
        seen.stdout.split('\n').map((text) => text.trim().replace(/\s+/g, ' ')),
        ['0', '0', '0 1000000 65536', '0 2000000 65536', ''],
      );
    });

    it('has namespaces that all belong to the pod’s user namespace', async () => {
      const options = namespaces({ pid: 'pod' });
      const pod = await run(options);
      const a = await start(pod, container('sleep 1000', {}, options));
      const b = await start(pod, container('sleep 1000', {}, options));
      for (const kind of ['net', 'ipc', 'uts', 'pid', 'user']) {
        assert.equal(namespaceOf(pidOf(a), kind), namespaceOf(pidOf(b), kind), kind);
        assert.notEqual(namespaceOf(pidOf(a), kind), namespaceOf('self', kind), kind);
      }
      // Only who owns a namespace's user namespace may change it.
      const script = [
        'hostname renamed && hostname',
        'ip link set lo down && echo net',
        'mkdir /q && mount -t mqueue q /q && echo ipc',
        'mkdir /p && mount -t proc p /p && echo pid',
      ].join('; ');
      const security = { capabilities: { add: ['ALL'], drop: [], addAmbient: [] }, namespaces: options };
      const seen = await output(pod, container(script, { security }, options));
      assert.equal(seen, 'renamed\nnet\nipc\npid\n');
    });

    it('owns its files, devices work, masks hide, and the usual mounts are there', async () => {
      const script = [
        'stat -c "%n %u:%g %a" / /etc/hosts /etc/hostname /etc/resolv.conf /dev /dev/shm /dev/pts /dev/mqueue',
        'echo x > /dev/null && head -c 4 /dev/zero | wc -c',
        'touch /dev/shm/a /etc/new && stat -c "%u:%g" /dev/shm/a /etc/new',
        'echo changed > /etc/hosts && cat /etc/hosts',
        'wc -c < /proc/interrupts; ls /sys/firmware | wc -l; (echo 1 > /proc/sys/net/ipv4/ip_forward) 2>&1 | grep -o "Read-only"',
        'echo again > /dev/stdout; echo more > /dev/stderr',
      ].join('; ');
      const security = { maskedPaths: ['/proc/interrupts', '/sys/firmware'], readonlyPaths: ['/proc/sys'] };
      const seen = (await output(await run(), container(script, { security }))).split('\n');
      assert.deepEqual(
        seen.slice(0, 8).map((text) => text.split(' ').slice(0, 2).join(' ')),
        [
          '/ 0:0',
          '/etc/hosts 0:0',
          '/etc/hostname 0:0',
          '/etc/resolv.conf 0:0',
          '/dev 0:0',
          '/dev/shm 0:0',
          '/dev/pts 0:0',
          '/dev/mqueue 0:0',
        ],
      );
      assert.deepEqual(seen.slice(8), ['4', '0:0', '0:0', 'changed', '0', '0', 'Read-only', 'again', 'more', '']);
    });

    it('runs as a user of its own with groups, who can reopen its output', async () => {
      const security = { runAsUser: 33, runAsGroup: 34, supplementalGroups: [77] };
      const script = 'id -u; id -g; id -G; echo reopened > /proc/self/fd/1; stat -Lc "%u" /proc/self/fd/1';
      const seen = await output(await run(), container(script, { security }));
      assert.equal(seen, '33\n34\n34 77\nreopened\n33\n');
    });

    it('has a terminal', async () => {
      const seen = await output(await run(), container('tty; test -t 0 && stat -c "%u:%g" $(tty)', { tty: true }));
      assert.match(seen, /^\/dev\/(pts\/0|console)\r\n0:5\r\n$/);
    });

    it('is joined by exec, as root and as a user', async () => {
      const id = await start(await run(), container('sleep 1000', { security: { runAsUser: 5 } }));
      const seen = await exec(id, 'sh', '-c', 'id -u; echo out > /dev/stdout; ls /proc | grep -c "^1$"; exit 3');
      assert.deepEqual(seen, { stdout: '5\nout\n1\n', stderr: '', exitCode: 3 });
    });

    it('shares processes where asked: pod and target', async () => {
      const options = namespaces({ pid: 'pod' });
      const pod = await run(options);
      await start(pod, container('sleep 1234', {}, options));
      assert.match(await output(pod, container('ps', {}, options)), /sleep 1234/);
      const other = await run(namespaces({ userns: userns(3_000_000, 3_000_000) }));
      const own = namespaces({ userns: userns(3_000_000, 3_000_000) });
      const target = await start(other, container('sleep 4321', {}, own));
      const joining = { ...own, pid: 'target' as const, targetId: target };
      assert.match(await output(other, container('ps', {}, joining)), /1 root .*sleep 4321/);
    });

    it('sees the host’s network and a read-only /sys where the pod shares it', async () => {
      const options = namespaces({ network: 'node' });
      const id = await start(await run(options), container('sleep 1000', {}, options));
      assert.equal(namespaceOf(pidOf(id), 'net'), namespaceOf('self', 'net'));
      assert.notEqual(namespaceOf(pidOf(id), 'user'), namespaceOf('self', 'user'));
      const seen = await exec(id, 'sh', '-c', 'ls /sys/class/net | grep -c .; mount | grep " /sys" | grep -vc "(ro,"');
      assert.match(seen.stdout, /^[1-9]\d*\n0\n$/);
    });

    it('obeys limits and sysctls', async () => {
      const sysctls = { 'net.ipv4.ip_unprivileged_port_start': '80', 'kernel.shm_rmid_forced': '1' };
      const pod = await run(namespaces(), { sysctls });
      const script =
        'cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced /proc/self/oom_score_adj';
      const seen = await output(pod, container(script, { resources: { oomScoreAdj: 500 } }));
      assert.equal(seen, '80\n1\n500\n');
    });
  });

  describe('the host', () => {
    it('keeps files under mapped ids, the image’s layers as they are, and nothing in its mount table', async () => {
      const pod = await run();
      const { id } = await pods.toEnd(pod, container('echo x > /made; chown 7:8 /made; chmod 600 /etc/passwd'));
      const { upperDir, lowerDirs } = pods.host.parts.snapshots.snapshot(id) ?? { upperDir: '', lowerDirs: [] };
      const made = statSync(join(upperDir, 'made'));
      assert.deepEqual([made.uid, made.gid], [1_000_007, 2_000_008]);
      assert.deepEqual([statSync(upperDir).uid, statSync(upperDir).gid], [1_000_000, 2_000_000]);
      assert.equal(lstatSync(lowerDirs[0] ?? '').uid, 0);
      assert.doesNotMatch(readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(`${pods.testHost.dir}.* overlay`));
    });

    it('lets the mapped root through its own directories only, and nobody list them', async () => {
      const pod = await run();
      const id = await start(pod, container('sleep 1000'));
      for (const dir of [pods.host.parts.paths.podDir(pod), pods.host.parts.paths.bundle(pod, id)]) {
        const { uid, gid, mode } = statSync(dir);
        assert.deepEqual([uid, gid, mode & 0o7777], [0, 2_000_000, 0o710], dir);
      }
      assert.equal(statSync(join(pods.host.parts.paths.bundle(pod, id), 'config.json')).mode & 0o777, 0o600);
    });

    it('finds running pods again after a restart of the agent, ids included', async () => {
      const pod = await run();
      const id = await start(pod, container('sleep 1000'));
      await pods.reopen();
      assert.equal((await exec(id, 'id', '-u')).stdout, '0\n');
      await assert.rejects(run(), /in use by pod test\/pod-/);
    });
  });

  describe('ids of our own choice', () => {
    const chosen = (pod: string) => {
      const option = pods.host.runtime.sandboxes.status(pod).config.security.namespaces.userns;
      return [option?.mode, option?.uids[0]?.hostId, option?.gids[0]?.hostId, option?.uids[0]?.size];
    };
    const { userns: _, ...none } = namespaces();

    it('are given to every pod of a handler that says so, told in its status, and given back', async () => {
      const first = await run(none, {}, 'own');
      const second = await run(none, {}, 'own');
      assert.deepEqual(chosen(first), ['pod', 30_000_000, 30_000_000, 65536]);
      assert.deepEqual(chosen(second), ['pod', 30_065_536, 30_065_536, 65536]);
      const script = 'id -u; cat /proc/self/uid_map | tr -s " "';
      assert.equal(await output(first, container(script, {}, none)), '0\n 0 30000000 65536\n');
      await assert.rejects(run(none, {}, 'own'), /no 65536 uids are left of userns\.ranges/);
      await pods.host.runtime.sandboxes.remove(first, call());
      assert.equal(chosen(await run(none, {}, 'own'))[1], 30_000_000);
    });

    it('are given to pods at once without ever the same', async () => {
      const both = await Promise.all([run(none, {}, 'own'), run(none, {}, 'own')]);
      assert.deepEqual(both.map((pod) => chosen(pod)[1]).sort(), [30_000_000, 30_065_536]);
    });

    it('are given where the pod asks without saying which; what it asks for itself comes first', async () => {
      const open = namespaces({ userns: { mode: 'pod', uids: [], gids: [] } });
      const pod = await run(open);
      assert.equal(chosen(pod)[1], 30_000_000);
      assert.equal(await output(pod, container('id -u', {}, open)), '0\n');
      assert.equal(chosen(await run(namespaces(), {}, 'own'))[1], 1_000_000);
      assert.equal(chosen(await run(none))[0], undefined);
    });

    it('map a directory that is the root without touching it', async () => {
      const root = directory('unmanaged');
      mkdirSync(join(root, 'bin'), { recursive: true });
      copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
      chmodSync(join(root, 'bin/busybox'), 0o755);
      chownSync(join(root, 'bin/busybox'), 3, 4);
      const pod = await run(none, {}, 'own');
      const config = {
        ...container('', {}, none),
        command: ['/bin/busybox', 'sh', '-c', 'stat -c "%u:%g" / /bin/busybox; echo x > /made; chown 5:6 /made'],
      };
      const id = await pods.host.runtime.containers.create({ sandboxId: pod, config, rootfs: root }, call());
      await pods.host.runtime.containers.start(id, call());
      assert.ok(await pods.host.parts.registry.waitForExit(id, 20_000));
      assert.equal(logText(pods.host.runtime.containers.status(id).logPath), '0:0\n3:4\n');
      assert.deepEqual([statSync(join(root, 'made')).uid, statSync(join(root, 'made')).gid], [5, 6]);
      assert.deepEqual([statSync(root).uid, statSync(join(root, 'bin/busybox')).uid], [0, 3]);
      await assert.rejects(
        pods.host.runtime.containers.create(
          { sandboxId: pod, config: container('true', {}, none), rootfs: '/proc' },
          call(),
        ),
        /rootfs: \/proc: file system proc/,
      );
    });
  });

  describe('refusals', () => {
    for (const [what, options, message] of [
      ['several lines that overlap', { uids: [line(1000), line(2000)] }, /container id 0 is mapped twice/],
      ['no line for id 0', { gids: [{ containerId: 1, hostId: 1000, size: 10 }] }, /\.gids: container id 0 must be/],
      ['no size', { uids: [line(1000, 0)] }, /maps nothing/],
      ['ids above 2^32', { uids: [line(0xffff_ffff, 2)] }, /ends above id/],
    ] as const) {
      it(`of ${what}`, async () => {
        await assert.rejects(run(namespaces({ userns: { ...userns(), ...options } })), message);
      });
    }

    it('of host ids another live pod has, until that has stopped', async () => {
      const first = await run();
      await assert.rejects(
        run(namespaces({ userns: userns(1_065_535, 9_000_000) })),
        /\.uids: host uid 1065535 is in use/,
      );
      await assert.rejects(
        run(namespaces({ userns: userns(9_000_000, 2_000_001) })),
        /\.gids: host gid 2000001 is in use/,
      );
      await run(namespaces({ userns: userns(1_065_536, 2_065_536) }));
      await pods.host.runtime.sandboxes.stop(first, call());
      await run();
    });

    it('of a container that does not agree with its pod', async () => {
      const pod = await run();
      const plain = await run(namespaces({ userns: { mode: 'node', uids: [], gids: [] } }));
      const { userns: _, ...none } = namespaces();
      for (const [where, options] of [
        [pod, none],
        [pod, namespaces({ userns: { mode: 'node', uids: [], gids: [] } })],
        [pod, namespaces({ userns: userns(5_000_000) })],
        [pod, namespaces({ userns: { ...userns(), gids: [line(2_000_000, 10)] } })],
        [plain, namespaces()],
      ] as const) {
        await assert.rejects(start(where, container('true', {}, options)), (error) => {
          assert.ok(isKind(error, 'invalid-argument'));
          assert.match(String(error), /userns_options: is .*, but the pod's is /);
          return true;
        });
      }
      assert.equal(await output(plain, container('id -u', {}, none)), '0\n');
    });

    it('of a user that is not mapped', async () => {
      const pod = await run();
      const security = { runAsUser: 70_000 };
      await assert.rejects(start(pod, container('true', { security })), /process\.user\.uid: 70000 is not mapped/);
    });

    it('of mounts that would appear on the host', async () => {
      const mounts = [volume(directory('shared'), '/v', { propagation: 'bidirectional' })];
      await assert.rejects(start(await run(), container('true', { mounts })), /bidirectional is not possible/);
    });
  });

  describe('volumes', () => {
    const maps = { uidMappings: [line(1_000_000)], gidMappings: [line(2_000_000)] };

    it('show and take ids as the container sees them', async () => {
      const dir = directory('volume');
      writeFileSync(join(dir, 'root'), 'x');
      writeFileSync(join(dir, 'user'), 'x');
      chownSync(join(dir, 'user'), 5, 6);
      const mounts = [volume(dir, '/mapped', maps), volume(dir, '/plain')];
      const script =
        'stat -c "%u:%g" /mapped/root /mapped/user /plain/user; echo new > /mapped/new; chown 9:10 /mapped/new; (echo n > /plain/n) 2>&1 | grep -o denied';
      assert.equal(await output(await run(), container(script, { mounts })), '0:0\n5:6\n65534:65534\ndenied\n');
      const { uid, gid } = statSync(join(dir, 'new'));
      assert.deepEqual([uid, gid], [9, 10]);
    });

    it('can be single files and read-only', async () => {
      const file = join(directory('single'), 'file');
      writeFileSync(file, 'secret');
      chmodSync(file, 0o600);
      const mounts = [volume(file, '/etc/secret', { ...maps, readonly: true })];
      const script = 'cat /etc/secret; echo; (echo x > /etc/secret) 2>&1 | grep -o "Read-only"';
      assert.equal(await output(await run(), container(script, { mounts })), 'secret\nRead-only\n');
    });

    it('can be read-only all the way down, and let the host’s mounts in', async () => {
      const dir = directory('tree');
      mkdirSync(join(dir, 'below'), { recursive: true });
      execFileSync('mount', ['--bind', dir, dir]);
      try {
        execFileSync('mount', ['--make-rshared', dir]);
        // A tmpfs could not be idmapped before Linux 6.3.
        execFileSync('mount', ['--bind', directory('tree-below'), join(dir, 'below')]);
        const pod = await run();
        const mounts = [
          volume(dir, '/ro', { ...maps, readonly: true, recursiveReadOnly: true }),
          volume(dir, '/slave', { ...maps, propagation: 'host-to-container' }),
        ];
        const script = '(echo x > /ro/a) 2>&1 | grep -o Read-only; (echo x > /ro/below/a) 2>&1 | grep -o Read-only';
        const security = { readonlyRootfs: true };
        const config = container(`${script}; (echo x > /a) 2>&1 | grep -o Read-only; touch /slave/ok`, {
          mounts,
          security,
        });
        assert.equal(await output(pod, config), 'Read-only\nRead-only\nRead-only\n');
        assert.equal(statSync(join(dir, 'ok')).uid, 0);
      } finally {
        for (const path of mountsIn(pods.testHost.dir)) execFileSync('umount', ['-l', path]);
      }
    });

    it('of file systems that cannot are refused by name before anything starts', async () => {
      const pod = await run();
      const mounts = [volume('/proc/sys', '/data', maps)];
      await assert.rejects(start(pod, container('true', { mounts })), (error) => {
        assert.ok(isKind(error, 'invalid-argument'));
        assert.match(String(error), /config\.mounts\[0\]: volume \/proc\/sys for \/data: file system proc .* Linux \d/);
        return true;
      });
      assert.deepEqual(pods.host.runtime.containers.list({}), []);
    });
  });
});
