import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { ContainerConfig, Mount, NamespaceOptions } from '../../src/runtime/model.js';
import { usePods } from '../support/pods.js';
import { call, containerConfig } from '../support/runtime.js';
import { buildTestImage } from '../support/test-image.js';
import { attacksProgram, factsProgram, line, namespaces, userns, volume } from '../support/userns.js';

const image = 'test.example/attacks:1';

/** What a container is given beyond being root of its user namespace. */
const strengths: Readonly<Record<string, Partial<ContainerConfig['security']>>> = {
  'root as usual': {},
  'root with CAP_SYS_ADMIN': { capabilities: { add: ['CAP_SYS_ADMIN'], drop: [], addAmbient: [] } },
  'privileged root': { privileged: true, capabilities: { add: ['ALL'], drop: [], addAmbient: [] } },
};

interface Attack {
  readonly mounts?: readonly Mount[];
  /** Of the pods; those of the control have the same without a user namespace. */
  readonly options?: Partial<NamespaceOptions>;
  /** Of the control alone: what a user namespace rules out. */
  readonly control?: Partial<NamespaceOptions>;
  /** Shell commands before the attempts, whose success does not matter. */
  readonly prepare?: string;
  /** As the program `attacks` takes them; files the kernel does not have are left out. */
  readonly attempts: readonly string[];
}

/**
 * Each attack is a program that really tries, inside: in a pod in a user namespace nothing of it works, however strong
 * the container, and in a privileged pod without one everything does, or the attack would prove nothing.
 */
describe('attacks from user namespaces', function () {
  this.timeout(120_000);
  const pods = usePods({
    async prepare({ host, testHost }) {
      const files = [
        { path: 'bin/facts', content: readFileSync(factsProgram()), mode: 0o755 },
        { path: 'bin/attacks', content: readFileSync(attacksProgram()), mode: 0o755 },
        { path: 'mnt/' },
      ];
      const layout = buildTestImage(join(testHost.dir, 'attacks'), { name: image, layers: [files] });
      await host.runtime.images.import(layout, image, call());
    },
  });
  const { testHost, output, start, directory } = pods;
  let victim: ChildProcess;
  before(() => (victim = spawn('sleep', ['1000'], { stdio: 'ignore', cwd: '/', env: { SECRET: 'x' } })));
  after(() => victim.kill('SIGKILL'));

  const run = (options: NamespaceOptions = namespaces(), privileged = false): Promise<string> =>
    pods.run({ namespaces: options, security: { privileged } });
  const container = (
    script: string,
    changes: Parameters<typeof containerConfig>[1] = {},
    options = namespaces(),
  ): ContainerConfig =>
    containerConfig(script, {
      image: { image, userSpecifiedImage: image, annotations: {}, runtimeHandler: '' },
      ...changes,
      security: { namespaces: options, ...changes.security },
    });
  const onHost = (...args: readonly string[]): string => execFileSync(attacksProgram(), args, { encoding: 'utf8' });

  const without = ({ userns: _, ...plain }: NamespaceOptions): NamespaceOptions => plain;
  const scriptOf = ({ prepare = 'true', attempts }: Attack): string =>
    `(${prepare}) > /dev/null 2>&1; attacks ${attempts.join(' + ')}`;

  /** What each attempt came to, in order: `done` or the name of an error. */
  const attempt = async (
    pod: string,
    attack: Attack,
    security: Partial<ContainerConfig['security']>,
    options: NamespaceOptions,
  ) => {
    const config = container(scriptOf(attack), { mounts: attack.mounts ?? [], security }, options);
    const lines = (await output(pod, config)).trim().split('\n');
    assert.equal(lines.length, attack.attempts.length, lines.join('\n'));
    return lines;
  };
  const isDone = (text: string): boolean => text.endsWith(' done');

  async function fails(attack: Attack): Promise<void> {
    const options = namespaces(attack.options);
    const pod = await run(options, true);
    for (const [strength, security] of Object.entries(strengths)) {
      const lines = await attempt(pod, attack, security, options);
      assert.deepEqual(lines.filter(isDone), [], `${strength} of a user namespace`);
    }
    await pods.remove(pod);
    const plain = { ...without(options), ...attack.control };
    const privileged = { privileged: true, capabilities: { add: ['ALL'], drop: [], addAmbient: [] } };
    const control = await attempt(await run(plain, true), attack, privileged, plain);
    const impossible = control.filter((text) => !isDone(text) && !text.endsWith(' ENOSYS'));
    assert.deepEqual(impossible, [], 'without a user namespace');
  }

  const proc = volume('/proc', '/host', { readonly: true });

  describe('on files', () => {
    it('a secret of the host’s root in the way cannot be read or changed', async () => {
      const secret = join(directory('secret'), 'file');
      writeFileSync(secret, 'secret', { mode: 0o600 });
      await fails({ mounts: [volume(secret, '/secret')], attempts: ['read /secret', 'write-back /secret'] });
      assert.equal(readFileSync(secret, 'utf8'), 'secret');
    });

    it('nor one of ids beyond the mapping in an idmapped volume', async () => {
      const dir = directory('foreign');
      writeFileSync(join(dir, 'file'), 'secret', { mode: 0o600 });
      chownSync(join(dir, 'file'), 70_000, 70_000);
      const attack = { attempts: ['read /v/file', 'write-back /v/file', 'link /v/file /v/mine'] };
      const maps = { uidMappings: [line(1_000_000)], gidMappings: [line(2_000_000)] };
      const pod = await run();
      for (const security of Object.values(strengths)) {
        const lines = await attempt(pod, { ...attack, mounts: [volume(dir, '/v', maps)] }, security, namespaces());
        assert.deepEqual(lines.filter(isDone), []);
      }
    });

    it('nor can it be taken by a hard link', async () => {
      const dir = directory('links', 0o777);
      writeFileSync(join(dir, 'secret'), 'secret', { mode: 0o600 });
      await fails({ mounts: [volume(dir, '/v')], attempts: ['link /v/secret /v/mine', 'read /v/mine'] });
    });

    it('nor be opened by its number in the file system of a volume', async function () {
      const dir = directory('handles');
      const secret = join(testHost.dir, 'by-number');
      writeFileSync(secret, 'secret', { mode: 0o600 });
      const handle = spawnSync(attacksProgram(), ['handle', secret], { encoding: 'utf8' });
      if (handle.status !== 0) this.skip(); // this file system has no handles
      await fails({ mounts: [volume(dir, '/v')], attempts: [`open-handle /v ${handle.stdout}`] });
    });

    it('nor be reached through another process’s root, descriptors or memory', async () => {
      const at = `/host/${victim.pid}`;
      const secret = join(directory('process'), 'file');
      writeFileSync(secret, 'secret', { mode: 0o600 });
      const attempts = [
        ...[`root${secret}`, `cwd${secret}`, 'environ', 'maps', 'exe'].map((name) => `read ${at}/${name}`),
        `list ${at}/fd`,
        `list ${at}/root/root`,
      ];
      await fails({ mounts: [proc], attempts });
    });

    it('an idmapped volume takes no ids and no devices beyond the mapping', async () => {
      const dir = directory('volume');
      writeFileSync(join(dir, 'file'), 'x');
      const maps = { uidMappings: [line(1_000_000)], gidMappings: [line(2_000_000)] };
      const script =
        'chown 1000:1000 /v/file; chmod 6755 /v/file; chown 70000 /v/file 2>&1 | grep -c .; mknod /v/n c 1 3 2>&1';
      const config = container(script, {
        mounts: [volume(dir, '/v', maps)],
        security: strengths['privileged root'] ?? {},
      });
      assert.equal(await output(await run(namespaces(), true), config), '1\nmknod: /v/n: Operation not permitted\n');
      assert.deepEqual([statSync(join(dir, 'file')).uid, statSync(join(dir, 'file')).gid], [1000, 1000]);
    });

    it('a link in a volume leads into the container’s own root', async () => {
      const dir = directory('symbolic', 0o777);
      const pod = await run();
      await output(
        pod,
        container('ln -s /etc/marker /v/link; ln -s ../../../../../../etc /v/up', { mounts: [volume(dir, '/v')] }),
      );
      const other = namespaces({ userns: userns(5_000_000, 6_000_000) });
      const script = 'echo mine > /etc/marker; cat /v/link /v/up/marker; echo written > /v/link; cat /etc/marker';
      const seen = await output(await run(other), container(script, { mounts: [volume(dir, '/v')] }, other));
      assert.equal(seen, 'mine\nmine\nwritten\n');
      assert.equal(existsSync('/etc/marker'), false);
    });

    it('setuid files of one pod give no rights to the host or to another pod', async () => {
      chmodSync(testHost.dir, 0o711); // so that others may try
      const shared = directory('shared', 0o777);
      const mounts = [volume(shared, '/v')];
      const make = (name: string): string =>
        `cp /bin/facts /v/${name}; chmod 4755 /v/${name}; cp /bin/attacks /v/a; chmod 6755 /v/a`;
      const pod = await run();
      await output(pod, container(make('mapped'), { mounts, security: strengths['privileged root'] ?? {} }));
      const { userns: _, ...plain } = namespaces();
      await output(await run(plain), container(make('plain'), { mounts }, plain));
      const asNobody = (name: string): string =>
        execFileSync(join(shared, name), ['self'], { uid: 65534, gid: 65534, encoding: 'utf8' });
      assert.match(asNobody('mapped'), /^euid=1000000 egid=65534 effective=0000000000000000/);
      assert.match(asNobody('plain'), /^euid=0 /);
      const other = namespaces({ userns: userns(5_000_000, 6_000_000) });
      const security = { runAsUser: 1000, runAsGroup: 1000 };
      const seen = await output(await run(other), container('/v/mapped self', { mounts, security }, other));
      assert.equal(seen, 'euid=1000 egid=1000 effective=0000000000000000\n');
    });

    it('files of another pod are a stranger’s', async () => {
      const shared = directory('private', 0o777);
      const mounts = [volume(shared, '/v')];
      const owner = namespaces({ userns: userns(5_000_000, 6_000_000) });
      const script = 'echo mine > /v/private; chmod 600 /v/private; mkdir -m 700 /v/dir';
      await output(await run(owner), container(script, { mounts }, owner));
      assert.deepEqual(
        [statSync(join(shared, 'private')).uid, statSync(join(shared, 'dir')).gid],
        [5_000_000, 6_000_000],
      );
      const attempts = [
        'read /v/private',
        'write-back /v/private',
        'link /v/private /v/mine',
        'list /v/dir',
        'enter /v/dir',
      ];
      await fails({ mounts, attempts });
    });
  });

  describe('on devices', () => {
    it('nodes cannot be made', async () => {
      await fails({
        attempts: ['node /mnt/null c 1 3', 'node /mnt/disk b 254 0', 'node /dev/memory c 1 1'],
      });
    });

    it('nor made use of on file systems mounted inside', async () => {
      await fails({ prepare: 'mount -t tmpfs none /mnt', attempts: ['node /mnt/null c 1 3'] });
    });
  });

  describe('on the kernel', () => {
    it('no module, program or other kernel can be loaded; its log, clock and swap stay', async () => {
      const kprobe = 2;
      const cgroupDevice = 15;
      const attempts = ['load-module', 'unload-module', 'kexec', `bpf ${kprobe}`, `bpf ${cgroupDevice}`];
      await fails({ attempts: [...attempts, 'kernel-log', 'account', 'clock', 'swap'] });
    });

    const global = ['kernel/core_pattern', 'kernel/panic', 'kernel/modprobe', 'vm/overcommit_memory', 'fs/file-max'];
    const existing = (names: readonly string[]): string[] => names.filter((name) => existsSync(`/proc/sys/${name}`));

    it('no sysctl of the host can be changed', async () => {
      await fails({ attempts: existing(global).map((name) => `write-back /proc/sys/${name}`) });
    });

    it('nor one of the host’s network in a pod that shares it, whose /sys stays as it is', async () => {
      const files = existing(['net/ipv4/ip_forward', 'net/core/somaxconn']).map((name) => `/proc/sys/${name}`);
      const attempts = [...files, '/sys/class/net/lo/mtu'].map((path) => `write-back ${path}`);
      await fails({ options: { network: 'node' }, attempts });
    });

    it('no profile can be loaded', async () => {
      const apparmor = existsSync('/sys/kernel/security/apparmor/.load');
      const selinux = existsSync('/sys/fs/selinux/load');
      const attempts = [
        'mount securityfs /mnt',
        ...(apparmor ? ['load-policy /mnt/apparmor/.load', 'load-policy /mnt/apparmor/.replace'] : []),
        ...(selinux ? ['mount selinuxfs /mnt'] : []),
      ];
      await fails({ attempts });
      // With the host's network comes the host's /sys, and with it whatever is mounted there.
      const bound = ['/sys/kernel/security/apparmor/.load', '/sys/fs/selinux/load', '/sys/fs/selinux/enforce'];
      const options = namespaces({ network: 'node' });
      const attack = { attempts: bound.map((path) => `load-policy ${path}`) };
      const lines = await attempt(await run(options), attack, strengths['privileged root'] ?? {}, options);
      assert.deepEqual(lines.filter(isDone), []);
    });

    it('no view of the kernel’s inside can be mounted', async () => {
      const kinds = ['debugfs', 'pstore'].filter((kind) =>
        readFileSync('/proc/filesystems', 'utf8').includes(`\t${kind}\n`),
      );
      await fails({ attempts: kinds.map((kind) => `mount ${kind} /mnt`) });
    });

    it('keys of the host’s root are not found and not read', async () => {
      const name = `berth-test-${process.pid}`;
      const serial = onHost('add-key', name);
      try {
        await fails({ attempts: [`read-key ${serial}`, `find-key ${name}`] });
      } finally {
        onHost('end-key', serial);
      }
    });
  });

  describe('on its own confines', () => {
    const v1 = existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes');
    const usual = '/sys/fs/cgroup';

    it('cgroups: no limit, device or release agent can be changed', async () => {
      const own = ['memory/memory.limit_in_bytes', 'memory/notify_on_release'].map(
        (name) => `write-back ${usual}/${name}`,
      );
      const attempts = v1
        ? [...own, `write ${usual}/devices/devices.allow a`, 'mount cgroup /mnt memory']
        : [`write ${usual}/cgroup.subtree_control +pids`];
      await fails({ attempts });
    });

    it('cgroups: nor through a namespace of its own', async () => {
      const files = ['memory.limit_in_bytes', 'notify_on_release', 'cgroup.procs'].map(
        (name) => `write-back /mnt/${name}`,
      );
      await fails({
        prepare: v1 ? 'attacks mount-cgroup cgroup /mnt memory' : 'attacks mount-cgroup cgroup2 /mnt',
        attempts: v1 ? files.slice(0, 2) : ['write /mnt/cgroup.subtree_control +pids'],
      });
    });

    it('a volume stays as read-only, noexec and hiding as it was given, and the host’s /sys read-only', async () => {
      const dir = directory('read-only');
      mkdirSync(join(dir, 'below'), { recursive: true });
      writeFileSync(join(dir, 'file'), 'x');
      writeFileSync(join(dir, 'below/hidden'), 'x');
      const maps = { uidMappings: [line(1_000_000)], gidMappings: [line(2_000_000)] };
      const mounts = [
        volume(dir, '/v', { readonly: true, ...maps }),
        volume(dir, '/deep', { readonly: true, recursiveReadOnly: true, ...maps }),
        volume(join(dir, 'file'), '/one', { readonly: true, ...maps }),
      ];
      const paths = mounts.map(({ containerPath }) => containerPath);
      const attempts = [
        ...[...paths, '/sys'].map((path) => `make-writable ${path}`),
        ...['/v', '/deep'].map((path) => `unmount ${path}/below`),
        ...['/v/file', '/deep/file', '/one', '/sys/class/net/lo/mtu'].map((path) => `write-back ${path}`),
        ...['/v', '/deep'].map((path) => `read ${path}/below/hidden`),
      ];
      execFileSync('mount', ['--bind', directory('cover'), join(dir, 'below')]);
      try {
        await fails({ mounts, options: { network: 'node' }, attempts });
      } finally {
        execFileSync('umount', [join(dir, 'below')]);
      }
    });

    it('what is masked or read-only of its own stays so for root as usual', async () => {
      const attempts = [
        ...['/sys', '/proc/sys'].map((path) => `make-writable ${path}`),
        ...['/proc/interrupts', '/proc/sys', '/sys'].map((path) => `unmount ${path}`),
      ];
      const security = { maskedPaths: ['/proc/interrupts'], readonlyPaths: ['/proc/sys'] };
      assert.deepEqual((await attempt(await run(), { attempts }, security, namespaces())).filter(isDone), []);
    });

    it('what root with every capability uncovers is still the host’s', async () => {
      const dir = directory('unmapped');
      writeFileSync(join(dir, 'file'), 'x');
      const attempts = ['/proc/sys/kernel/panic', '/sys/class/net/lo/mtu', '/v/file'].map(
        (path) => `write-back ${path}`,
      );
      await fails({
        mounts: [volume(dir, '/v', { readonly: true })],
        options: { network: 'node' },
        prepare: 'for path in /v /sys /proc/sys; do attacks make-writable $path; done; umount /proc/sys /sys/fs/cgroup',
        attempts,
      });
    });
  });

  describe('on Berth', () => {
    const running = async (options: NamespaceOptions): Promise<{ pod: string; id: string }> => {
      const pod = await run(options);
      return { pod, id: await start(pod, container('echo mine > /mine; exec sleep 1000', {}, options)) };
    };
    const stranger = namespaces({ userns: userns(5_000_000, 6_000_000) });

    it('its directories: no pod, shim, bundle or file of another container is reached', async () => {
      const { pod, id } = await running(stranger);
      const { paths, snapshots } = pods.host.parts;
      const inside = (path: string): string => join('/v', path.slice(testHost.dir.length));
      const upper = snapshots.snapshot(id)?.upperDir ?? '';
      const socket = readdirSync(paths.podDir(pod)).find((name) => statSync(join(paths.podDir(pod), name)).isSocket());
      assert.ok(socket !== undefined);
      const podDir = inside(paths.podDir(pod));
      const attempts = [
        ...[inside(testHost.config.state), inside(paths.pods), podDir, inside(paths.bundle(pod, id))].map(
          (path) => `list ${path}`,
        ),
        `enter ${podDir}`,
        `dial ${podDir}/${socket}`,
        `read ${inside(paths.bundle(pod, id))}/config.json`,
        `write-back ${podDir}/hosts`,
        `read ${inside(upper)}/mine`,
        `list ${inside(testHost.config.root)}/snapshots`,
      ];
      await fails({ mounts: [volume(testHost.dir, '/v')], attempts });
    });

    it('its directories one by one: the own can be gone through and not listed, another’s neither', async () => {
      const [own, other] = [await running(namespaces()), await running(stranger)];
      const dirs = ({ pod, id }: typeof own): string[] => [
        pods.host.parts.paths.podDir(pod),
        pods.host.parts.paths.bundle(pod, id),
      ];
      const mounts = [...dirs(own), ...dirs(other)].map((dir, index) => volume(dir, `/v${index}`));
      const attempts = [
        'enter /v0',
        'enter /v1',
        'list /v0',
        'list /v1',
        'enter /v2',
        'enter /v3',
        'list /v2',
        'list /v3',
      ];
      for (const security of Object.values(strengths)) {
        const lines = await attempt(own.pod, { mounts, attempts }, { ...security, privileged: false }, namespaces());
        assert.deepEqual(lines.map(isDone), [true, true, false, false, false, false, false, false]);
      }
    });

    it('the shim’s program, where the pod’s first process runs it; not even host root can write it', async () => {
      const options = namespaces({ pid: 'pod' });
      const pod = await run(options);
      const capabilities = { add: ['ALL'], drop: [], addAmbient: [] };
      const attack = { attempts: ['read /proc/1/exe', 'write /proc/1/exe x', 'read /proc/1/mem', 'list /proc/1/fd'] };
      const lines = await attempt(pod, attack, { capabilities }, options);
      assert.deepEqual(lines.filter(isDone), []);
      const plain = without(options);
      const strong = await attempt(await run(plain, true), attack, { privileged: true, capabilities }, plain);
      assert.deepEqual(strong.slice(0, 2).map(isDone), [true, false], strong.join('\n'));
    });

    it('the shim: neither traced nor read, though the host’s /proc is there', async () => {
      const { pod } = await running(stranger);
      const at = `/host/${pods.host.parts.registry.sandbox(pod).record.shimPid}`;
      const files = ['exe', 'maps', 'environ'].map((name) => `read ${at}/${name}`);
      await fails({
        mounts: [proc],
        control: { pid: 'node' },
        attempts: [...files, `list ${at}/fd`, `setns ${at}/ns/mnt`],
      });
    });

    it('no descriptor of it is left open', async () => {
      assert.equal(await output(await run(), container('exec ls /proc/self/fd')), '0\n1\n2\n3\n');
    });
  });

  describe('on processes', () => {
    it('of the host: not signalled, traced or entered', async () => {
      const attempts = ['kill', 'pidfd', 'trace'].map((word) => `${word} ${victim.pid}`);
      await fails({ control: { pid: 'node' }, attempts });
    });

    it('of the host: no namespace entered, though its /proc is there', async () => {
      const kinds = ['mnt', 'net', 'ipc', 'uts', 'pid'];
      const attempts = kinds.map((kind) => `setns /host/${victim.pid}/ns/${kind}`);
      await fails({ mounts: [proc], control: { pid: 'node' }, attempts });
    });

    it('of another pod: neither read nor entered', async () => {
      const other = namespaces({ userns: userns(5_000_000, 6_000_000) });
      const pod = await run(other);
      const at = `/host/${pods.pidOf(await start(pod, container('sleep 1000', {}, other)))}`;
      const files = ['environ', 'maps', 'root/etc/passwd', 'exe', 'fd/0'].map((name) => `read ${at}/${name}`);
      const kinds = ['mnt', 'net', 'ipc', 'uts', 'pid'].map((kind) => `setns ${at}/ns/${kind}`);
      await fails({ mounts: [proc], control: { pid: 'node' }, attempts: [...files, `list ${at}/fd`, ...kinds] });
    });
  });
});
