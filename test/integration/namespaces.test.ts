import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, rmdirSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ContainerConfig, NamespaceMode, NamespaceOptions } from '../../src/runtime/model.js';
import { optionsOf, readPodRows, type PodRow } from '../support/namespace-table.js';
import { namespaceOf, usePods } from '../support/pods.js';
import { call, containerConfig } from '../support/runtime.js';
import { buildTestImage } from '../support/test-image.js';
import { factsProgram } from '../support/userns.js';

const image = 'test.example/facts:1';
const table = readFileSync(new URL('../golden/namespaces.txt', import.meta.url), 'utf8');

const sysctls = {
  net: ['net.ipv4.ip_local_port_range', '2000\t3000'],
  ipc: ['kernel.msgmax', '7777'],
  uts: ['kernel.domainname', 'berth.test'],
} as const;
const pathOf = (name: string): string => `/proc/sys/${name.replaceAll('.', '/')}`;

/** The kernel does what test/golden/namespaces.txt says, row by row. */
describe('namespaces on the kernel', function () {
  this.timeout(60_000);
  const pods = usePods({
    async prepare({ host, testHost }) {
      const files = [{ path: 'bin/facts', content: readFileSync(factsProgram()), mode: 0o755 }];
      const layout = buildTestImage(join(testHost.dir, 'facts'), { name: image, layers: [files] });
      await host.runtime.images.import(layout, image, call());
    },
  });

  // What shows that a container sees the host's shared memory and message queues.
  const mark = `berth-test-${process.pid}`;
  let queues: string;
  before(() => {
    queues = mkdtempSync(join(tmpdir(), 'bt-queues-'));
    execFileSync('mount', ['-t', 'mqueue', 'none', queues]);
    writeFileSync(join(queues, mark), '');
    writeFileSync(join('/dev/shm', mark), '');
  });
  after(() => {
    rmSync(join('/dev/shm', mark), { force: true });
    rmSync(join(queues, mark), { force: true });
    execFileSync('umount', [queues]);
    rmdirSync(queues);
  });

  const container = (script: string, options: NamespaceOptions): ContainerConfig =>
    containerConfig(script, {
      image: { image, userSpecifiedImage: image, annotations: {}, runtimeHandler: '' },
      security: { namespaces: options },
    });
  const sleeper = (options: NamespaceOptions) => container('exec sleep 1000', options);
  const lines = async (id: string, script: string): Promise<string[]> => {
    const { stdout, stderr } = await pods.exec(id, 'sh', '-c', script);
    assert.equal(stderr, '');
    return stdout.trim().split('\n');
  };
  const isHosts = (id: string, kind: string): boolean =>
    namespaceOf(pods.pidOf(id), kind) === namespaceOf('self', kind);
  const hostSys = (): string[][] =>
    readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((text) => text.split(' '))
      .filter(([, , , , path = '']) => path === '/sys' || path.startsWith('/sys/'));
  const words = (row: PodRow): string => `user ${row.user}, network ${row.network}, ipc ${row.ipc}, pid ${row.pid}`;

  for (const row of readPodRows(table)) {
    const options = optionsOf(row);
    if (row.refused !== undefined) {
      it(`${words(row)}: is refused`, async () => {
        await assert.rejects(pods.run({ namespaces: options }), (error: Error) => {
          assert.ok(error.message.endsWith(row.refused?.replace(/^\w+ /, '') ?? ''), error.message);
          return true;
        });
      });
      continue;
    }
    it(`${words(row)}: is as the table says`, async () => {
      const wanted = row.sysctls.map((kind) => sysctls[kind as keyof typeof sysctls]);
      const dns = { servers: ['10.9.9.9'], searches: ['a.test'], options: [] };
      const pod = await pods.run({
        namespaces: options,
        hostname: 'web-0',
        dns,
        sysctls: Object.fromEntries(wanted),
      });
      const id = await pods.start(pod, sleeper(options));
      const other = await pods.start(pod, sleeper(options));
      checkLinks(row, pod, id, other);
      await checkOwners(row, id);
      await checkNetwork(row, pod, id);
      await checkNames(row, id);
      await checkSharedMemory(row, id, other);
      await checkSysctls(row, id);
    });
    it(`${words(row)}: other sysctls are refused`, async () => {
      for (const [kind, [name, value]] of Object.entries(sysctls)) {
        if (row.sysctls.includes(kind)) continue;
        const before = readFileSync(pathOf(name), 'utf8');
        await assert.rejects(
          pods.run({ namespaces: options, sysctls: { [name]: value } }),
          new RegExp(`needs a ${kind} namespace`),
        );
        assert.equal(readFileSync(pathOf(name), 'utf8'), before);
      }
    });
    it(`${words(row)}: containers may have PID namespaces of their own`, () => checkPids(row, options));
  }

  function checkLinks(row: PodRow, pod: string, id: string, other: string): void {
    for (const kind of ['net', 'uts', 'ipc', 'user']) {
      assert.equal(isHosts(id, kind), !row.own.includes(kind), kind);
      assert.equal(namespaceOf(pods.pidOf(id), kind), namespaceOf(pods.pidOf(other), kind), kind);
    }
    for (const each of [id, other]) assert.equal(isHosts(each, 'mnt'), false);
    assert.notEqual(namespaceOf(pods.pidOf(id), 'mnt'), namespaceOf(pods.pidOf(other), 'mnt'));
    const ownCgroups = pods.host.parts.cgroups.layout.version === 'v2';
    assert.equal(isHosts(id, 'cgroup'), !ownCgroups);
    assert.equal(existsSync(pods.host.parts.paths.netnsPin(pod)), row.own.includes('net'));
  }

  /** Whoever owns a namespace has rights over it; EPERM: it belongs to the host's user namespace. */
  async function checkOwners(row: PodRow, id: string): Promise<void> {
    const owner = (kind: string): string => {
      const made = ['mnt', ...(row.pid === 'node' ? [] : ['pid']), ...row.own].includes(kind);
      return `${kind} ${made || row.user === 'node' ? 'own' : 'EPERM'}`;
    };
    assert.deepEqual(await lines(id, 'facts owners'), ['mnt', 'pid', 'net', 'ipc', 'uts'].map(owner));
  }

  async function checkNetwork(row: PodRow, pod: string, id: string): Promise<void> {
    const addresses = pods.host.runtime.sandboxes.status(pod).ips;
    assert.equal(addresses.length > 0, row.addresses === 'attached');
    const interfaces = row.own.includes('net') ? ['eth0', 'lo'] : readdirSync('/sys/class/net').sort();
    assert.deepEqual((await lines(id, 'ls /sys/class/net')).sort(), interfaces);
    const mounts = (await lines(id, 'cat /proc/self/mountinfo')).map((text) => text.split(' '));
    const sys = mounts.filter(([, , , , path = '']) => path === '/sys' || path.startsWith('/sys/'));
    assert.deepEqual(
      sys.filter((fields) => !fields[5]?.split(',').includes('ro')),
      [],
    );
    // A network namespace has one sysfs; what is bound comes with everything below.
    const top = sys.find(([, , , , path]) => path === '/sys');
    assert.equal(top?.[2] === hostSys()[0]?.[2], !row.own.includes('net'));
    assert.equal(sys.length > hostSys().length, row.sys === 'bound' && hostSys().length > 0);
  }

  async function checkNames(row: PodRow, id: string): Promise<void> {
    const [name = '', file = ''] = await lines(id, 'hostname; cat /etc/hostname');
    const hosts = await lines(id, 'cat /etc/hosts');
    assert.deepEqual(await lines(id, 'cat /etc/resolv.conf'), ['search a.test', 'nameserver 10.9.9.9']);
    if (row.names === 'pod') {
      assert.deepEqual([name, file], ['web-0', 'web-0']);
      assert.ok(hosts.some((text) => text.endsWith('\tweb-0')));
      return;
    }
    assert.equal(name, hostname());
    assert.equal(file, existsSync('/etc/hostname') ? readFileSync('/etc/hostname', 'utf8').trim() : '');
    assert.deepEqual(hosts, readFileSync('/etc/hosts', 'utf8').trim().split('\n'));
  }

  async function checkSharedMemory(row: PodRow, id: string, other: string): Promise<void> {
    for (const [dir, whose] of [
      ['/dev/shm', row.shm],
      ['/dev/mqueue', row.mqueue],
    ] as const) {
      const made = `${mark}-pod`;
      await lines(id, `touch ${dir}/${made}`);
      const seen = await lines(other, `ls ${dir}`);
      await lines(id, `rm ${dir}/${made}`);
      assert.deepEqual([seen.includes(mark), seen.includes(made)], [whose === 'host', true], dir);
    }
  }

  async function checkSysctls(row: PodRow, id: string): Promise<void> {
    for (const kind of row.sysctls) {
      const [name, value] = sysctls[kind as keyof typeof sysctls];
      assert.deepEqual(await lines(id, `cat ${pathOf(name)}`), [value]);
      assert.notEqual(readFileSync(pathOf(name), 'utf8').trim(), value);
    }
  }

  /** `first` is what runs as the first process of the container's /proc. */
  async function checkPids(row: PodRow, options: NamespaceOptions): Promise<void> {
    const pod = await pods.run({ namespaces: options });
    const begin = (pid: NamespaceMode, command: string, targetId?: string) => {
      const own = { ...options, pid, ...(targetId === undefined ? {} : { targetId }) };
      return pods.start(pod, { ...container('', own), command: command.split(' ') });
    };
    const first = async (id: string) => (await lines(id, 'tr "\\0" " " < /proc/1/cmdline')).join('').trim();
    const own = await begin('container', 'sleep 1111');
    assert.equal(await first(own), 'sleep 1111');
    const target = await begin('target', 'sleep 2222', own);
    assert.equal(namespaceOf(pods.pidOf(target), 'pid'), namespaceOf(pods.pidOf(own), 'pid'));
    assert.equal(await first(target), 'sleep 1111');
    const { pausePid } = pods.host.parts.registry.sandbox(pod).record;
    if (row.pid === 'container') await assert.rejects(begin('pod', 'true'), /\.pid: is pod, but the pod was made with/);
    else {
      const shared = await begin('pod', 'sleep 3333');
      const whose = row.pid === 'node' ? ('self' as const) : pausePid;
      assert.equal(namespaceOf(pods.pidOf(shared), 'pid'), namespaceOf(whose, 'pid'));
      assert.notEqual(await first(shared), 'sleep 3333');
    }
    assert.equal(pausePid > 0, row.own.includes('pid'));
    if (row.user === 'pod') {
      await assert.rejects(begin('node', 'true'), /\.pid: is node, which a pod in a user namespace cannot be/);
      return;
    }
    const node = await begin('node', 'sleep 4444');
    assert.ok(isHosts(node, 'pid'));
    assert.equal(await first(node), readFileSync('/proc/1/cmdline', 'utf8').replaceAll('\0', ' ').trim());
  }
});
