import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentObserver } from '../../src/kit/observer.js';
import { sleep } from '../../src/kit/deadline.js';
import { isKind, type ErrorKind } from '../../src/kit/errors.js';
import type { ContainerConfig, NamespaceOptions } from '../../src/runtime/model.js';
import { makeFakeCriu } from '../support/fake-criu.js';
import { usePods, type Pods } from '../support/pods.js';
import { call, containerConfig, logText } from '../support/runtime.js';
import { skip } from '../support/skip.js';
import { namespaces as usernsNamespaces, volume } from '../support/userns.js';

const counting = 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done';
const own: NamespaceOptions = { network: 'pod', pid: 'container', ipc: 'pod' };

const tar = (...args: readonly string[]): Buffer => execFileSync('tar', [...args], { maxBuffer: 64 << 20 });
const names = (archive: string): string[] => tar('tf', archive).toString().trimEnd().split('\n');
const content = (archive: string, name: string): Buffer => tar('xOf', archive, name);
const json = (archive: string, name: string): unknown => JSON.parse(content(archive, name).toString());

/** What its container prints goes on, so it runs. */
async function assertRuns(pods: Pods, id: string): Promise<void> {
  const { logPath, state } = pods.host.runtime.containers.status(id);
  assert.equal(state, 'running');
  const before = logText(logPath).length;
  for (let i = 0; i < 400 && logText(logPath).length === before; i++) await sleep(10);
  assert.ok(logText(logPath).length > before, 'the container stands still');
}

const refusal =
  (kind: ErrorKind, message: RegExp) =>
  (error: unknown): boolean =>
    isKind(error, kind) && message.test(error.message);

describe('checkpoints', function () {
  this.timeout(60_000);
  const dir = mkdtempSync(join(tmpdir(), 'bt-criu-'));
  const fake = makeFakeCriu(join(dir, 'fake'));
  after(() => rmSync(dir, { recursive: true, force: true }));

  describe('around a stand-in for CRIU', () => {
    const pods = usePods({ flags: { 'checkpoint-criu': fake.path } });
    let location = '';
    beforeEach(() => {
      fake.behave('works');
      location = join(mkdtempSync(join(dir, 'to-')), 'checkpoint.tar');
    });
    const start = async (config: ContainerConfig = containerConfig(counting)): Promise<string> =>
      await pods.start(await pods.run(), config);
    const checkpoint = (id: string, timeoutSeconds = 30, to = location): Promise<void> =>
      pods.host.runtime.containers.checkpoint(id, { location: to, timeoutSeconds }, call());
    const assertNothingWritten = (): void => {
      assert.deepEqual(readdirSync(join(location, '..')), []);
      const workspace = join(pods.testHost.config.root, 'checkpoints');
      assert.deepEqual(existsSync(workspace) ? readdirSync(workspace) : [], []);
    };

    it('writes an archive of mode 0600 with what the other runtimes put there', async () => {
      const config = containerConfig(counting, { metadata: { name: 'web', attempt: 0 } });
      const id = await start(config);
      await assertRuns(pods, id);
      await checkpoint(id);
      assert.ok(fake.lastDump().frozen, 'the container ran while it was dumped');
      assert.equal(statSync(location).mode & 0o777, 0o600);
      assert.deepEqual(readdirSync(join(location, '..')), ['checkpoint.tar']);
      const expected = ['config.dump', 'spec.dump', 'status.dump', 'status', 'bind.mounts', 'rootfs-diff.tar'];
      const files = [
        'checkpoint/inventory.img',
        'checkpoint/descriptors.json',
        'dump.log',
        'stats-dump',
        'container.log',
      ];
      for (const name of [...expected, ...files]) assert.ok(names(location).includes(name), name);
      const dumped = json(location, 'config.dump') as Record<string, unknown>;
      assert.equal(dumped['id'], id);
      assert.equal(dumped['name'], 'web');
      assert.equal(dumped['runtime'], 'berth');
      const spec = json(location, 'spec.dump') as { annotations: Record<string, string>; process: { args: string[] } };
      assert.equal(spec.annotations['io.kubernetes.cri.container-name'], 'web');
      assert.deepEqual(spec.process.args, config.command);
      assert.match(content(location, 'container.log').toString(), /stdout F 1$/m);
      await assertRuns(pods, id);
    });

    it('names to CRIU what is the pod’s or the host’s', async () => {
      const host = pods.directory('host-volume');
      const id = await start(containerConfig(counting, { mounts: [volume(host, '/data')] }));
      await checkpoint(id);
      const { args } = fake.lastDump();
      const net = statSync(`/proc/${pods.pidOf(id)}/ns/net`).ino;
      assert.ok(args.includes(`net[${net}]:extRootNetNS`));
      for (const point of ['/data', '/etc/hosts']) assert.ok(args.includes(`mnt[${point}]:${point}`), point);
      for (const point of ['/', '/proc', '/dev']) assert.ok(!args.includes(`mnt[${point}]:${point}`), point);
    });

    it('archives what has changed in the root, and lists what is gone', async () => {
      const script = [
        'mkdir -p /new/deep; echo made >/new/deep/file; ln /new/deep/file /new/twin; ln -s /etc/shadow /new/link',
        'mkfifo /new/fifo; chown 12:34 /new/deep/file; chmod 4755 /new/deep/file; printf x >"$(printf "/new/\\377")"',
        'name=$(printf "%0150d" 0); echo long >/new/$name; rm /etc/passwd; rm -r /etc/group; echo ready',
        counting,
      ];
      const id = await start(containerConfig(script.join('; ')));
      await assertRuns(pods, id);
      await checkpoint(id);
      const diff = join(dir, 'diff.tar');
      writeFileSync(diff, content(location, 'rootfs-diff.tar'));
      assert.deepEqual(json(location, 'deleted.files'), ['/etc/group', '/etc/passwd']);
      const listed = tar('tvf', diff, '--numeric-owner').toString();
      assert.match(listed, /^-rwsr-xr-x 12\/34 +5 .* new\/deep\/file$/m);
      assert.match(listed, /^hrwsr-xr-x .* new\/twin link to new\/deep\/file$/m);
      assert.match(listed, /^l.* new\/link -> \/etc\/shadow$/m);
      assert.match(listed, /^prw.* new\/fifo$/m);
      assert.match(listed, /new\/\\377$/m);
      assert.match(listed, /new\/0{150}$/m);
      assert.doesNotMatch(listed, /etc\/hosts|proc|resolv/);
      assert.equal(content(diff, 'new/deep/file').toString(), 'made\n');
    });

    it('lists what a directory that was made anew hides', async () => {
      const id = await start(containerConfig(`rm -r /etc; mkdir /etc; echo new >/etc/motd; echo ready; ${counting}`));
      await assertRuns(pods, id);
      await checkpoint(id);
      const deleted = json(location, 'deleted.files') as string[];
      assert.ok(deleted.length > 0 && deleted.every((path) => path.startsWith('/etc/')), deleted.join());
      assert.ok(!deleted.includes('/etc/motd'));
    });

    it('gives files of a user namespace the owners that the container sees', async function () {
      if (!pods.host.parts.userNamespaces.supported) skip(this, 'no user namespaces here');
      const pod = await pods.run({ namespaces: usernsNamespaces() });
      const config = containerConfig(`echo x >/mine; chown 5:6 /mine; echo ready; ${counting}`, {
        security: { namespaces: usernsNamespaces() },
      });
      const id = await pods.start(pod, config);
      await assertRuns(pods, id);
      await checkpoint(id);
      const diff = join(dir, 'userns-diff.tar');
      writeFileSync(diff, content(location, 'rootfs-diff.tar'));
      assert.match(tar('tvf', diff, '--numeric-owner').toString(), / 5\/6 .* mine$/m);
    });

    it('replaces an archive that is there', async () => {
      writeFileSync(location, 'old', { mode: 0o644 });
      await checkpoint(await start());
      assert.ok(names(location).includes('config.dump'));
      assert.equal(statSync(location).mode & 0o777, 0o600);
    });

    it('says what CRIU holds it back for, leaves nothing, and lets the container run', async () => {
      const id = await start();
      fake.behave('fails');
      await assert.rejects(
        checkpoint(id),
        refusal('internal', /status 1: .*Error \(cr-dump.c:7\): no way to dump this/),
      );
      assertNothingWritten();
      await assertRuns(pods, id);
      fake.behave('works');
      await checkpoint(id);
    });

    it('ends a dump that takes too long, with all it started', async () => {
      const id = await start();
      fake.behave('hangs');
      await assert.rejects(checkpoint(id, 1), refusal('deadline', /checkpoint container/));
      for (const pid of fake.hanging() ?? assert.fail('it did not hang')) await assertGone(pid);
      assertNothingWritten();
      await assertRuns(pods, id);
    });

    it('ends with its caller, and makes one checkpoint of a container at a time', async () => {
      const id = await start();
      fake.behave('hangs');
      const caller = new AbortController();
      const request = { location, timeoutSeconds: 30 };
      const first = pods.host.runtime.containers.checkpoint(id, request, {
        signal: caller.signal,
        observer: silentObserver,
      });
      const ended = assert.rejects(first, (error) => isKind(error, 'cancelled'));
      while (fake.hanging() === undefined) await sleep(10);
      await assert.rejects(checkpoint(id), (error) => isKind(error, 'in-progress'));
      caller.abort();
      await ended;
      assertNothingWritten();
      await assertRuns(pods, id);
    });

    it('can be stopped and removed while it is dumped', async () => {
      const pod = await pods.run();
      const id = await pods.start(pod, containerConfig(counting));
      fake.behave('hangs');
      const failed = assert.rejects(checkpoint(id, 3));
      while (fake.hanging() === undefined) await sleep(10);
      await pods.host.runtime.containers.stop(id, 0, call());
      assert.equal(pods.host.runtime.containers.status(id).state, 'exited');
      await pods.host.runtime.containers.remove(id, call());
      await failed;
      assertNothingWritten();
    });

    it('is refused where nothing can be written', async () => {
      const id = await start();
      for (const bad of ['', 'relative.tar', '/tmp/../etc/x', `${dir}/`, dir, '/no\0/x']) {
        await assert.rejects(checkpoint(id, 5, bad), refusal('invalid-argument', /^location: /), bad);
      }
      await assert.rejects(checkpoint(id, 5, join(dir, 'missing', 'x.tar')), /ENOENT/);
      const small = join(dir, 'small');
      mkdirSync(small);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', small]);
      try {
        await assert.rejects(checkpoint(id, 30, join(small, 'x.tar')), refusal('exhausted', /ENOSPC/));
        assert.deepEqual(readdirSync(small), []);
      } finally {
        execFileSync('umount', [small]);
      }
      await assertRuns(pods, id);
    });

    it('is not restored, and that is said', async () => {
      const image = { ...containerConfig('').image, image: '/var/lib/kubelet/checkpoints/x.tar' };
      const input = { sandboxId: await pods.run(), config: { ...containerConfig(''), image } };
      const wanted = refusal('unimplemented', /checkpoints cannot be restored here/);
      await assert.rejects(pods.host.runtime.containers.create(input, call()), wanted);
    });

    it('is refused for what does not run', async () => {
      const { id } = await pods.toEnd(await pods.run(), containerConfig('true'));
      await assert.rejects(checkpoint(id), refusal('wrong-state', /is not running/));
      await assert.rejects(checkpoint('nothing'), (error) => isKind(error, 'not-found'));
    });

    it('is taken back by the next agent when the agent dies in its midst', async () => {
      const id = await start();
      const workspace = join(pods.testHost.config.root, 'checkpoints', id);
      mkdirSync(join(workspace, 'checkpoint'), { recursive: true });
      const criu = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' });
      const pid = criu.pid ?? assert.fail('sleep does not start');
      const startTime = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[19];
      writeFileSync(join(workspace, 'criu'), `${pid} ${startTime}\n`);
      await pods.host.parts.cgroups.freeze(pods.host.parts.registry.container(id).record.cgroupPath);
      await pods.reopen();
      await assertGone(pid);
      assertNothingWritten();
      await assertRuns(pods, id);
    });
  });

  describe('over a layer of owners', () => {
    const pods = usePods({ flags: { 'checkpoint-criu': fake.path, 'userns-snapshots': 'metacopy' } });
    it('archives the data of a file whose owner alone was changed', async function () {
      if (!pods.host.parts.userNamespaces.supported) skip(this, 'no user namespaces here');
      fake.behave('works');
      const pod = await pods.run({ namespaces: usernsNamespaces() });
      const config = containerConfig(`chown 5:6 /etc/passwd; ${counting}`, {
        security: { namespaces: usernsNamespaces() },
      });
      const id = await pods.start(pod, config);
      await assertRuns(pods, id);
      const location = join(dir, 'owners.tar');
      await pods.host.runtime.containers.checkpoint(id, { location, timeoutSeconds: 30 }, call());
      const diff = join(dir, 'owners-diff.tar');
      writeFileSync(diff, content(location, 'rootfs-diff.tar'));
      assert.match(tar('tvf', diff, '--numeric-owner').toString(), / 5\/6 .* etc\/passwd$/m);
      assert.equal(content(diff, 'etc/passwd').toString(), (await pods.exec(id, '/bin/cat', '/etc/passwd')).stdout);
    });
  });

  describe('without a CRIU that works', () => {
    const [old, unable] = [makeFakeCriu(join(dir, 'old')), makeFakeCriu(join(dir, 'unable'))];
    old.behave('is old');
    unable.behave('lacks the kernel');
    const cases = [
      ['none', join(dir, 'none'), 'unimplemented', /needs CRIU, which is not installed: checkpoint.criu: .*none/],
      ['an old one', old.path, 'unavailable', /is version 2\.0; checkpointing needs 3\.16/],
      ['one the kernel is too old or too new for', unable.path, 'unavailable', /on this kernel: .*no such feature/],
    ] as const;
    for (const [what, path, kind, message] of cases) {
      describe(what, () => {
        const pods = usePods({ flags: { 'checkpoint-criu': path } });
        it('says what is missing', async () => {
          const id = await pods.start(await pods.run(), containerConfig(counting));
          const request = { location: join(dir, 'x.tar'), timeoutSeconds: 5 };
          await assert.rejects(pods.host.runtime.containers.checkpoint(id, request, call()), refusal(kind, message));
          assert.ok(!existsSync(request.location));
          await assertRuns(pods, id);
        });
      });
    }
  });

  describe('with the real CRIU', () => {
    const path = process.env['CRIU'] ?? '';
    const pods = usePods({ flags: path === '' ? {} : { 'checkpoint-criu': path } });
    before(function () {
      const check = spawnSync(path === '' ? 'criu' : path, ['check'], { encoding: 'utf8' });
      if (check.error !== undefined) skip(this, `no criu: ${check.error.message}`);
      if (check.status !== 0) skip(this, `criu cannot work on this kernel: ${check.stderr.split('\n')[0]}`);
    });
    const checkpointed = async (network: NamespaceOptions, changes: Parameters<typeof containerConfig>[1] = {}) => {
      const pod = await pods.run({ namespaces: network });
      const config = containerConfig(counting, {
        ...changes,
        security: { ...changes.security, namespaces: network },
      });
      const id = await pods.start(pod, config);
      await assertRuns(pods, id);
      const location = join(mkdtempSync(join(dir, 'to-')), 'checkpoint.tar');
      await pods.host.runtime.containers.checkpoint(id, { location, timeoutSeconds: 30 }, call());
      await assertRuns(pods, id);
      for (const file of ['inventory.img', 'pstree.img', 'core-1.img', 'pages-1.img']) {
        if (file === 'core-1.img' && network.pid !== 'container') continue;
        assert.ok(names(location).includes(`checkpoint/${file}`), file);
      }
      return location;
    };

    it('dumps a container in a network of its own', () => checkpointed(own));
    it('dumps one in the host’s network', () => checkpointed({ ...own, network: 'node' }));
    it('dumps one that shares its pod’s processes', () => checkpointed({ ...own, pid: 'pod' }));
    it('dumps one with a terminal', () => checkpointed(own, { tty: true, stdin: true }));
    it('dumps one twice', async () => {
      const pod = await pods.run();
      const id = await pods.start(pod, containerConfig(counting));
      for (const name of ['1.tar', '2.tar']) {
        const request = { location: join(dir, name), timeoutSeconds: 30 };
        await pods.host.runtime.containers.checkpoint(id, request, call());
        await assertRuns(pods, id);
      }
    });
    it('dumps one with volumes of every propagation', async () => {
      const source = pods.directory('shared-volume');
      execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', source]);
      try {
        execFileSync('mount', ['--make-rshared', source]);
        const mounts = (['private', 'host-to-container', 'bidirectional'] as const).map((propagation) =>
          volume(source, `/data/${propagation}`, { propagation }),
        );
        await checkpointed(own, { mounts, security: { privileged: true } });
      } finally {
        for (const { id } of pods.host.runtime.sandboxes.list({})) await pods.remove(id);
        execFileSync('umount', [source]);
      }
    });
    it('dumps one with connections and files that are gone', async function () {
      const script = [
        'nc -l -p 7000 -e cat & sleep 0.2; nc 127.0.0.1 7000 </dev/zero >/dev/null &',
        'exec 9>/gone; echo text >&9; rm /gone',
        'until grep -q " 01 " /proc/net/tcp; do sleep 0.05; done',
        counting,
      ];
      const dumped = checkpointed(own, { command: ['/bin/sh', '-c', script.join('\n')] });
      const images = names(
        await dumped.catch((error: unknown) => {
          // SO_PASSCRED of other sockets than Unix ones is refused since Linux 6.16; CRIU 4.2 knows.
          if (!/Can't get 1:16 opt/.test(String(error))) throw error;
          return skip(this, 'this CRIU cannot dump sockets of this kernel');
        }),
      );
      for (const wanted of [/tcp-stream-/, /ghost-file/]) {
        assert.ok(
          images.some((name) => wanted.test(name)),
          `${wanted.source} in ${images.join(' ')}`,
        );
      }
    });
    it('dumps one in a user namespace', async function () {
      if (!pods.host.parts.userNamespaces.supported) skip(this, 'no user namespaces here');
      await checkpointed(usernsNamespaces());
    });
  });
});

async function assertGone(pid: number): Promise<void> {
  for (let i = 0; i < 200; i++) {
    const stat = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'utf8') : ') Z';
    if (/\) [ZX]/.test(stat)) return;
    await sleep(10);
  }
  assert.fail(`process ${pid} is still there`);
}
