import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../../src/kit/deadline.js';
import { isKind } from '../../src/kit/errors.js';
import type { ContainerConfig, Mount, NamespaceOptions } from '../../src/runtime/model.js';
import { namespaceOf, usePods } from '../support/pods.js';
import { call, containerConfig, logText, podConfig, type OpenHost } from '../support/runtime.js';
import { volume } from '../support/userns.js';

describe('pods and containers on the kernel', function () {
  this.timeout(60_000);
  const pods = usePods();
  const { run, start, exec, pidOf, toEnd, testHost } = pods;
  let host: OpenHost;
  before(() => (host = pods.host));
  const namespaces = (changes: Partial<NamespaceOptions>): NamespaceOptions => ({
    network: 'pod',
    pid: 'container',
    ipc: 'pod',
    ...changes,
  });
  /** PID 1 of a PID namespace is sent no signal that it has no handler for: it must have set its traps. */
  const startReady = async (pod: string, config: ContainerConfig): Promise<string> => {
    const id = await start(pod, config);
    const { logPath } = host.runtime.containers.status(id);
    for (let i = 0; i < 500 && !logText(logPath).includes('ready'); i++) await sleep(10);
    return id;
  };

  describe('one container', () => {
    it('runs, logs, ends with its code', async () => {
      const pod = await run();
      const result = await toEnd(pod, containerConfig('echo out; echo err >&2; exit 7'));
      assert.equal(result.code, 7);
      assert.equal(result.reason, 'Error');
      assert.deepEqual(result.output.split('\n').sort(), ['', 'err', 'out']);
      const { logPath, startedAt, exit } = host.runtime.containers.status(result.id);
      const raw = readFileSync(logPath, 'utf8').split('\n');
      assert.match(raw[0] ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) F (out|err)$/);
      assert.ok(startedAt > 0n && (exit?.finishedAt ?? 0n) >= startedAt);
    });

    it('reports a signal as 128 and its number', async () => {
      const result = await toEnd(await run(), containerConfig('kill -KILL $$'));
      // PID 1 of its own namespace ignores what it sends itself, so the shell goes on and ends with 0.
      assert.equal(result.code, 0);
      const pod = await run({ namespaces: namespaces({ pid: 'pod' }) });
      const shared = await toEnd(
        pod,
        containerConfig('kill -TERM $$', { security: { namespaces: namespaces({ pid: 'pod' }) } }),
      );
      assert.equal(shared.code, 143);
    });

    it('says which step failed when it cannot start', async () => {
      const pod = await run();
      const id = await host.runtime.containers.create(
        { sandboxId: pod, config: { ...containerConfig(''), command: ['/no/such/program'] } },
        call(),
      );
      await assert.rejects(host.runtime.containers.start(id, call()), /exec \/no\/such\/program: ENOENT/);
      const view = host.runtime.containers.status(id);
      assert.equal(view.state, 'exited');
      assert.equal(view.exit?.reason, 'StartError');
    });

    it('has hostname, hosts, resolv.conf, environment, user and working directory', async () => {
      const pod = await run({ hostname: 'web-0', dns: { servers: ['10.9.9.9'], searches: ['a.test'], options: [] } });
      const config = containerConfig(
        'hostname; cat /etc/hostname /etc/resolv.conf; grep web-0 /etc/hosts; pwd; id; echo "$A $HOME"',
        {
          env: [{ key: 'A', value: Buffer.from('b') }],
          workingDir: '/tmp',
          security: { runAsUser: 33, supplementalGroups: [77] },
        },
      );
      const { output, code } = await toEnd(pod, config);
      assert.equal(code, 0, output);
      const ip = host.runtime.sandboxes.status(pod).ips[0] ?? '';
      assert.match(output, /^web-0\nweb-0\nsearch a\.test\nnameserver 10\.9\.9\.9\n/);
      assert.ok(output.includes(`${ip}\tweb-0`), output);
      assert.match(output, /\/tmp\nuid=33/);
      assert.match(output, /groups=.*77/);
    });

    it('is stopped by its signal, and killed when it does not obey', async () => {
      const pod = await run();
      const obedient = await startReady(
        pod,
        containerConfig('trap "exit 5" TERM; echo ready; while :; do sleep 0.05; done'),
      );
      await host.runtime.containers.stop(obedient, 10, call());
      assert.equal(host.runtime.containers.status(obedient).exit?.code, 5);
      const usr1 = await startReady(
        pod,
        containerConfig('trap "exit 6" USR1; echo ready; while :; do sleep 0.05; done', { stopSignal: 'SIGUSR1' }),
      );
      await host.runtime.containers.stop(usr1, 10, call());
      assert.equal(host.runtime.containers.status(usr1).exit?.code, 6);
      const stubborn = await startReady(
        pod,
        containerConfig('trap "" TERM; echo ready; (while :; do sleep 1; done) & while :; do sleep 0.1; done'),
      );
      await host.runtime.containers.stop(stubborn, 1, call());
      assert.equal(host.runtime.containers.status(stubborn).exit?.code, 137);
      assert.deepEqual(host.parts.cgroups.pids(host.parts.registry.container(stubborn).record.cgroupPath), []);
      await host.runtime.containers.stop(stubborn, 1, call());
      await host.runtime.containers.stop('feedfeed', 1, call());
    });

    it('starts although its empty cgroup was killed before', async () => {
      const pod = await run();
      const id = await host.runtime.containers.create(
        { sandboxId: pod, config: containerConfig('sleep 1000') },
        call(),
      );
      await host.parts.cgroups.kill(host.parts.registry.container(id).record.cgroupPath);
      await host.runtime.containers.start(id, call());
      assert.equal(host.runtime.containers.status(id).state, 'running');
    });

    it('answers exec with output, code and timeout', async () => {
      const id = await start(await run(), containerConfig('sleep 1000'));
      assert.deepEqual(await exec(id, 'sh', '-c', 'echo hi; echo no >&2; exit 3'), {
        stdout: 'hi\n',
        stderr: 'no\n',
        exitCode: 3,
      });
      await assert.rejects(host.runtime.containers.execSync(id, ['sleep', '60'], 1, call()), (error) =>
        isKind(error, 'deadline'),
      );
      assert.equal(host.runtime.containers.status(id).state, 'running');
      assert.doesNotMatch((await exec(id, 'ps')).stdout, /sleep 60/);
      await assert.rejects(host.runtime.containers.execSync(id, ['/none'], 1, call()), /exec \/none: ENOENT/);
    });

    it('runs with a terminal', async () => {
      const { output, code } = await toEnd(
        await run(),
        containerConfig('tty; test -t 1 && echo yes; echo $TERM', { tty: true }),
      );
      assert.equal(code, 0);
      assert.match(output, /\/dev\/(pts\/0|console)\r\nyes\r\nxterm\r\n/);
    });
  });

  describe('namespaces', () => {
    it('a pod has its own, its containers share them', async () => {
      const pod = await run({ namespaces: namespaces({ pid: 'pod' }) });
      const config = { security: { namespaces: namespaces({ pid: 'pod' }) } };
      const a = await start(pod, containerConfig('sleep 1000', config));
      const b = await start(pod, containerConfig('sleep 2000', config));
      for (const kind of ['net', 'ipc', 'uts', 'pid']) {
        assert.equal(namespaceOf(pidOf(a), kind), namespaceOf(pidOf(b), kind), kind);
        assert.notEqual(namespaceOf(pidOf(a), kind), namespaceOf('self', kind), kind);
      }
      assert.notEqual(namespaceOf(pidOf(a), 'mnt'), namespaceOf(pidOf(b), 'mnt'));
      assert.match((await exec(a, 'ps')).stdout, /sleep 2000/);
      await exec(a, 'sh', '-c', 'echo shared > /dev/shm/x');
      assert.equal((await exec(b, 'cat', '/dev/shm/x')).stdout, 'shared\n');
      assert.match((await exec(b, 'df', '-m', '/dev/shm')).stdout, / 64 /);
    });

    it('a container of its own PID namespace is PID 1 and sees nobody', async () => {
      const pod = await run();
      const a = await start(pod, containerConfig('sleep 1000'));
      const b = await start(pod, containerConfig('sleep 2000'));
      assert.notEqual(namespaceOf(pidOf(a), 'pid'), namespaceOf(pidOf(b), 'pid'));
      const seen = (await exec(b, 'ps')).stdout;
      assert.doesNotMatch(seen, /sleep 1000/);
      assert.match(seen, /^\s*1 .*sleep 2000/m);
    });

    it('target: an ephemeral container sees its target’s processes', async () => {
      const pod = await run();
      const target = await start(pod, containerConfig('sleep 1000'));
      const options = namespaces({ pid: 'target', targetId: target });
      const other = await start(pod, containerConfig('sleep 2000', { security: { namespaces: options } }));
      assert.equal(namespaceOf(pidOf(other), 'pid'), namespaceOf(pidOf(target), 'pid'));
      assert.match((await exec(other, 'ps')).stdout, /1 root .*sleep 1000/);
    });

    it('pods talk over the network they have', async () => {
      const server = await run();
      const client = await run();
      const ip = host.runtime.sandboxes.status(server).ips[0] ?? '';
      await start(server, containerConfig('while :; do echo pong | nc -l -p 7000; done'));
      const { output } = await toEnd(
        client,
        containerConfig(`for i in 1 2 3 4 5 6 7 8 9; do nc -w 2 ${ip} 7000 && exit 0; sleep 0.2; done`),
      );
      assert.equal(output, 'pong\n');
    });

    it('sysctls reach the pod’s namespaces, others are refused', async () => {
      const pod = await run({
        sysctls: { 'kernel.shm_rmid_forced': '1', 'net.ipv4.ip_local_port_range': '2000 3000' },
      });
      const { output } = await toEnd(
        pod,
        containerConfig(
          'cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/ip_unprivileged_port_start',
        ),
      );
      assert.equal(output, '1\n2000\t3000\n0\n');
      await assert.rejects(run({ sysctls: { 'kernel.core_pattern': 'x' } }), (error) =>
        isKind(error, 'invalid-argument'),
      );
    });
  });

  describe('security', () => {
    const status = async (security: Partial<ContainerConfig['security']>): Promise<string> =>
      (
        await toEnd(
          await run(),
          containerConfig('grep -E "^(Cap|NoNewPrivs|Seccomp:|Uid|Groups)" /proc/self/status', { security }),
        )
      ).output;

    it('capabilities: defaults, added, dropped, ambient, never inheritable', async () => {
      assert.match(
        await status({}),
        /CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000/,
      );
      const none = await status({ capabilities: { add: [], drop: ['ALL'], addAmbient: [] } });
      assert.match(none, /CapEff:\t0000000000000000/);
      const one = await status({ capabilities: { add: ['CAP_NET_ADMIN'], drop: ['ALL'], addAmbient: [] } });
      assert.match(one, /CapEff:\t0000000000001000/);
      const ambient = await status({
        runAsUser: 33,
        capabilities: { add: [], drop: ['ALL'], addAmbient: ['CAP_NET_ADMIN'] },
      });
      assert.match(ambient, /CapEff:\t0000000000001000[^]*CapAmb:\t0000000000001000/);
      const user = await status({ runAsUser: 33 });
      assert.match(user, /CapEff:\t0000000000000000/);
    });

    it('no new privileges stops setuid', async () => {
      assert.match(await status({ noNewPrivs: true }), /NoNewPrivs:\t1/);
      assert.match(await status({}), /NoNewPrivs:\t0/);
    });

    it('seccomp: RuntimeDefault filters, unconfined does not', async () => {
      assert.match(await status({ seccomp: { kind: 'runtime-default' } }), /Seccomp:\t2/);
      assert.match(await status({ seccomp: { kind: 'unconfined' } }), /Seccomp:\t0/);
      const { output } = await toEnd(
        await run(),
        containerConfig('unshare -U true 2>&1 || echo refused', { security: { seccomp: { kind: 'runtime-default' } } }),
      );
      assert.match(output, /refused/);
    });

    it('seccomp: a Localhost profile is obeyed, a missing one refused', async () => {
      const file = join(testHost.dir, 'no-mkdir.json');
      const rule = { names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 1 };
      writeFileSync(file, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule] }));
      const pod = await run();
      const config = (path: string) =>
        containerConfig('mkdir /tmp/x 2>&1; touch /tmp/y && echo touched', {
          security: { seccomp: { kind: 'localhost', localhostRef: path } },
        });
      const { output } = await toEnd(pod, config(file));
      assert.match(output, /Operation not permitted\ntouched/);
      await assert.rejects(
        host.runtime.containers.create({ sandboxId: pod, config: config('/no/such.json') }, call()),
        (error) => isKind(error, 'invalid-argument'),
      );
    });

    it('masked and read-only paths', async () => {
      const { output } = await toEnd(
        await run(),
        containerConfig(
          'cat /proc/kcore | head -c 1 | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/domainname || echo ro',
          {
            security: { maskedPaths: ['/proc/kcore', '/sys/firmware', '/none'], readonlyPaths: ['/proc/sys'] },
          },
        ),
      );
      assert.match(output, /0\n0\n/);
      assert.match(output, /ro\n/);
    });

    it('read-only root', async () => {
      const { output } = await toEnd(
        await run(),
        containerConfig('touch /x 2>&1; touch /dev/shm/y && echo shm', { security: { readonlyRootfs: true } }),
      );
      assert.match(output, /Read-only file system\nshm/);
    });

    it('devices: the standard ones work, others are refused, asked ones are there', async () => {
      const { output } = await toEnd(
        await run(),
        containerConfig('head -c 3 /dev/zero | wc -c; mknod /tmp/k c 1 11; cat /tmp/k 2>&1 | head -c 60; ls /dev', {
          devices: [{ containerPath: '/dev/mine', hostPath: '/dev/null', permissions: 'rwm' }],
        }),
      );
      assert.match(output, /^3\n/);
      assert.match(output, /Operation not permitted/);
      for (const name of ['full', 'mine', 'null', 'ptmx', 'pts', 'random', 'shm', 'stdout', 'tty', 'urandom', 'zero']) {
        assert.match(output, new RegExp(`^${name}$`, 'm'));
      }
    });

    it('privileged has everything', async () => {
      const { output } = await toEnd(
        await run({ security: { privileged: true } }),
        containerConfig(
          'grep CapEff /proc/self/status; mount -t tmpfs none /mnt 2>&1 || mkdir -p /mnt && mount -t tmpfs none /mnt && echo mounted; test -e /dev/kmsg && echo kmsg',
          {
            security: { privileged: true, seccomp: { kind: 'runtime-default' } },
          },
        ),
      );
      assert.match(output, /mounted/);
      assert.match(output, /kmsg/);
    });
  });

  describe('volumes', () => {
    const mount = (hostPath: string, changes: Partial<Mount> = {}): Mount => volume(hostPath, '/data', changes);
    let source: string;

    beforeEach(() => {
      source = join(testHost.dir, 'volume');
      mkdirSync(join(source, 'inner'), { recursive: true });
      writeFileSync(join(source, 'file'), 'from the host\n');
      execFileSync('mount', ['--bind', source, source]);
      execFileSync('mount', ['--make-rshared', source]);
      execFileSync('mount', ['-t', 'tmpfs', 'none', join(source, 'inner')]);
    });
    afterEach(() => {
      const mounted = readFileSync('/proc/self/mountinfo', 'utf8')
        .split('\n')
        .map((line) => line.split(' ')[4] ?? '')
        .filter((path) => path === source || path.startsWith(`${source}/`));
      for (const path of mounted.reverse()) execFileSync('umount', ['-l', path]);
      rmSync(source, { recursive: true });
    });

    it('are read, written, read-only, recursively so, and without exec', async () => {
      const pod = await run();
      const output = async (script: string, changes: Partial<Mount>) =>
        (await toEnd(pod, containerConfig(script, { mounts: [mount(source, changes)] }))).output;
      assert.equal(await output('cat /data/file; echo new > /data/made && cat /data/made', {}), 'from the host\nnew\n');
      assert.equal(readFileSync(join(source, 'made'), 'utf8'), 'new\n');
      assert.match(
        await output('touch /data/x 2>&1; touch /data/inner/x && echo inner', { readonly: true }),
        /Read-only.*\ninner\n/,
      );
      const all = { readonly: true, recursiveReadOnly: true };
      assert.match(await output('touch /data/inner/x 2>&1 || echo refused', all), /refused/);
      const flags = { options: ['noexec', 'nosuid', 'nodev'] };
      assert.match(await output('grep " /data " /proc/self/mountinfo', flags), /nosuid,nodev,noexec/);
    });

    it('pass mounts on as their propagation says', async () => {
      const pod = await run({ security: { privileged: true } });
      const begin = (propagation: Mount['propagation']) =>
        start(
          pod,
          containerConfig('sleep 1000', { mounts: [mount(source, { propagation })], security: { privileged: true } }),
        );
      const both = await begin('bidirectional');
      const down = await begin('host-to-container');
      const none = await begin('private');
      mkdirSync(join(source, 'later'));
      execFileSync('mount', ['-t', 'tmpfs', 'none', join(source, 'later')]);
      writeFileSync(join(source, 'later', 'seen'), '');
      const sees = async (id: string): Promise<string> => (await exec(id, 'ls', '/data/later')).stdout;
      assert.deepEqual([await sees(both), await sees(down), await sees(none)], ['seen\n', 'seen\n', '']);
      await exec(both, 'sh', '-c', 'mkdir /data/up && mount -t tmpfs none /data/up && touch /data/up/theirs');
      assert.ok(existsSync(join(source, 'up', 'theirs')));
      await exec(down, 'sh', '-c', 'mkdir /data/mine && mount -t tmpfs none /data/mine && touch /data/mine/theirs');
      assert.ok(!existsSync(join(source, 'mine', 'theirs')));
    });

    it('that do not exist are refused by field', async () => {
      const pod = await run();
      await assert.rejects(
        host.runtime.containers.create(
          { sandboxId: pod, config: containerConfig('true', { mounts: [mount('/no/such')] }) },
          call(),
        ),
        /config\.mounts\[0\]\.host_path: \/no\/such does not exist/,
      );
    });
  });

  describe('resources', () => {
    it('limits are in force and can be changed', async () => {
      const pod = await run();
      const id = await start(
        pod,
        containerConfig('sleep 1000', {
          resources: { memoryLimit: 64 << 20, cpuShares: 512, cpuPeriod: 100_000, cpuQuota: 50_000, cpusetCpus: '0' },
        }),
      );
      const stats = await host.runtime.containers.stats(id);
      assert.equal(stats.memory?.availableBytes !== undefined, true);
      assert.ok((stats.cpu?.usageCoreNanoSeconds ?? 0n) > 0n);
      assert.match((await exec(id, 'grep', 'Cpus_allowed_list', '/proc/self/status')).stdout, /\t0$/m);
      await host.runtime.containers.updateResources(id, { memoryLimit: 128 << 20 }, {}, call());
      assert.equal(host.runtime.containers.status(id).resources.memoryLimit, 128 << 20);
      assert.equal(host.runtime.containers.status(id).resources.cpuShares, 512);
    });

    it('an out-of-memory kill is told apart', async () => {
      const result = await toEnd(
        await run(),
        containerConfig('head -c 200m /dev/zero | tail > /dev/null; exit $?', {
          resources: { memoryLimit: 24 << 20, memorySwapLimit: 24 << 20 },
        }),
      );
      assert.equal(result.reason, 'OOMKilled');
      assert.notEqual(result.code, 0);
    });
  });

  describe('requests', () => {
    it('a retry joins the first attempt', async () => {
      const config = podConfig(testHost.dir);
      const ids = await Promise.all(
        [1, 2, 3].map(() => host.runtime.sandboxes.run({ config, runtimeHandler: '' }, call())),
      );
      assert.equal(new Set(ids).size, 1);
      assert.equal(await host.runtime.sandboxes.run({ config, runtimeHandler: '' }, call()), ids[0]);
      const container = containerConfig('true');
      const created = await Promise.all(
        [1, 2].map(() => host.runtime.containers.create({ sandboxId: ids[0] ?? '', config: container }, call())),
      );
      assert.equal(new Set(created).size, 1);
    });

    it('stop and remove may be repeated, missing is success', async () => {
      const pod = await run();
      await start(pod, containerConfig('sleep 1000'));
      for (let i = 0; i < 2; i++) await host.runtime.sandboxes.stop(pod, call());
      assert.equal(host.runtime.sandboxes.status(pod).state, 'not-ready');
      assert.deepEqual(
        host.runtime.containers.list({ sandboxId: pod }).map(({ state }) => state),
        ['exited'],
      );
      for (let i = 0; i < 2; i++) await host.runtime.sandboxes.remove(pod, call());
      await host.runtime.sandboxes.remove('nothing', call());
      await host.runtime.containers.remove('nothing', call());
      assert.throws(
        () => host.runtime.sandboxes.status(pod),
        (error) => isKind(error, 'not-found'),
      );
    });

    it('twenty pods at once', async () => {
      const ids = await Promise.all(Array.from({ length: 20 }, () => run()));
      const outputs = await Promise.all(ids.map((pod, index) => toEnd(pod, containerConfig(`echo ${index}`))));
      outputs.forEach(({ output }, index) => assert.equal(output, `${index}\n`));
      assert.equal(logText('/nowhere'), '');
    });
  });
});
