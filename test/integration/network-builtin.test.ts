import assert from 'node:assert/strict';
import { spawn, spawnSync, execFileSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { silentObserver } from '../../src/kit/observer.js';
import { isKind } from '../../src/kit/errors.js';
import { loadLibrary } from '../../src/native/library.js';
import { netlink } from '../../src/native/netlink/netlink.js';
import { openNetlink } from '../../src/native/netlink/socket.js';
import type { PortMapping } from '../../src/runtime/model.js';
import { type BuiltinNetwork, type BuiltinOptions, createBuiltinNetwork } from '../../src/runtime/network/builtin.js';
import type { NetworkRequest } from '../../src/runtime/network/pod-network.js';
import { outsideOwnNamespace, reportTestsOf } from '../support/own-network-namespace.js';
import { namespaceNetlink } from '../support/namespace-netlink.js';

const call = { signal: new AbortController().signal, observer: silentObserver };
const library = loadLibrary();

const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });
const inside = (name: string, ...command: string[]): string => ip('netns', 'exec', name, ...command);

interface TestPod {
  readonly request: NetworkRequest;
  readonly name: string;
}

const server =
  'let p=+process.argv[1],h=process.argv[2];require("net").createServer(s=>s.end(h+" "+s.remoteAddress)).listen(p,"::",()=>console.log("up"))';
const udpServer =
  'let p=+process.argv[1],s=require("dgram").createSocket("udp4");s.on("message",(m,r)=>s.send(m+" back",r.port,r.address)).bind(p,()=>console.log("up"))';
const client =
  'let s=require("net").connect(+process.argv[2],process.argv[1]);s.setTimeout(3000,()=>process.exit(2));s.on("data",d=>process.stdout.write(d)).on("error",e=>{console.log(e.code);process.exit(1)})';
const udpClient =
  'let s=require("dgram").createSocket("udp4");s.on("message",m=>{console.log(""+m);s.close();clearTimeout(t)});let t=setTimeout(()=>process.exit(2),3000);s.send("hello",+process.argv[2],process.argv[1])';

/** What a TCP server at this address says to someone in the namespace (`''`: the host). */
function ask(namespace: string, address: string, port: number, program = client): string {
  const command = [process.execPath, '-e', program, address, String(port)];
  const run =
    namespace === ''
      ? spawnSync(command[0]!, command.slice(1), { encoding: 'utf8' })
      : spawnSync('ip', ['netns', 'exec', namespace, ...command], { encoding: 'utf8' });
  return run.status === 0 ? run.stdout.trim() : `failed ${run.status} ${run.stdout.trim()}`;
}

function tests(): void {
  let directory: string;
  let network: BuiltinNetwork;
  let made: string[];
  let servers: ChildProcess[];
  const notes: string[] = [];

  const open = (options: Partial<BuiltinOptions> = {}): BuiltinNetwork =>
    createBuiltinNetwork(
      {
        bridge: 'btest0',
        table: 'btest',
        subnets: ['10.199.0.0/24', 'fd00:b::/64'],
        stateDirectory: join(directory, 'state'),
        masquerade: true,
        lingerMs: 0,
        settleMs: 0,
        ...options,
      },
      {
        netlink,
        openNetlink: (protocol) => openNetlink(protocol, library),
        writeSysctl: (path, value) => writeFileSync(`/proc/sys/${path}`, value),
        note: (_level, message) => void notes.push(message),
      },
    );

  const pod = (id: string, portMappings: PortMapping[] = []): TestPod => {
    const name = `pod-${id}`;
    ip('netns', 'add', name);
    made.push(name);
    const netnsPath = `/run/netns/${name}`;
    const request: NetworkRequest = {
      sandboxId: id,
      netnsPath,
      pod: { name: id, namespace: 'test', uid: `uid-${id}` },
      portMappings,
      annotations: {},
      labels: {},
      cgroupParent: '',
      netlink: namespaceNetlink(netnsPath),
    };
    return { request, name };
  };

  const serve = async (namespace: string, port: number, says: string, program = server): Promise<void> => {
    const command = [process.execPath, '-e', program, String(port), says];
    const child =
      namespace === ''
        ? spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'pipe', 'inherit'] })
        : spawn('ip', ['netns', 'exec', namespace, ...command], { stdio: ['ignore', 'pipe', 'inherit'] });
    servers.push(child);
    await once(child.stdout!, 'data');
  };

  /** A namespace that is no pod and knows no way back to the pods' subnet. */
  const outside = (): void => {
    ip('netns', 'add', 'outside');
    made.push('outside');
    ip('link', 'add', 'toout', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', 'outside');
    ip('addr', 'add', '192.0.2.1/24', 'dev', 'toout');
    ip('addr', 'add', '2001:db8::1/64', 'dev', 'toout', 'nodad');
    ip('link', 'set', 'toout', 'up');
    inside('outside', 'ip', 'addr', 'add', '192.0.2.9/24', 'dev', 'eth0');
    inside('outside', 'ip', 'addr', 'add', '2001:db8::9/64', 'dev', 'eth0', 'nodad');
    inside('outside', 'ip', 'link', 'set', 'eth0', 'up');
    inside('outside', 'ip', 'link', 'set', 'lo', 'up');
  };

  const leftovers = (): string[] => [
    ...ip('-o', 'link')
      .split('\n')
      .filter((line) => /btest|vb[0-9a-f]{12}/.test(line)),
    ...execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })
      .split('\n')
      .filter((line) => line.includes('btest')),
  ];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'berth-network-'));
    made = [];
    servers = [];
    notes.length = 0;
    network = open();
  });

  afterEach(async () => {
    for (const child of servers) child.kill('SIGKILL');
    await network.teardown();
    await network.close();
    for (const name of made) ip('netns', 'del', name);
    rmSync(directory, { recursive: true, force: true });
    assert.deepEqual(leftovers(), []);
  });

  it('lets pods and host reach each other', async () => {
    const [a, b] = [pod('a'), pod('b')];
    const first = await network.attach(a.request, call);
    const second = await network.attach(b.request, call);
    assert.deepEqual(first.ips, ['10.199.0.2', 'fd00:b::2']);
    assert.deepEqual(second.ips, ['10.199.0.3', 'fd00:b::3']);
    await serve(b.name, 8080, 'b');
    assert.equal(ask(a.name, '10.199.0.3', 8080), 'b ::ffff:10.199.0.2');
    assert.equal(ask(a.name, 'fd00:b::3', 8080), 'b fd00:b::2');
    assert.equal(ask('', '10.199.0.3', 8080), 'b ::ffff:10.199.0.1');
    await serve('', 8081, 'host');
    assert.equal(ask(a.name, '10.199.0.1', 8081), 'host ::ffff:10.199.0.2');
    assert.match(inside(a.name, 'ip', 'addr', 'show', 'lo'), /LOOPBACK,UP/);
    await network.check(a.request, call);
  });

  it('masquerades what leaves the node', async () => {
    outside();
    const a = pod('a');
    await network.attach(a.request, call);
    await serve('outside', 9000, 'outside');
    assert.equal(ask(a.name, '192.0.2.9', 9000), 'outside ::ffff:192.0.2.1');
    assert.equal(ask(a.name, '2001:db8::9', 9000), 'outside 2001:db8::1');
  });

  it('publishes host ports to the outside, the host, loopback and neighbours', async () => {
    outside();
    const a = pod('a', [
      { protocol: 'tcp', containerPort: 80, hostPort: 8000 },
      { protocol: 'udp', containerPort: 53, hostPort: 5300 },
      { protocol: 'tcp', containerPort: 80, hostPort: 8001, hostIp: '192.0.2.1' },
      { protocol: 'tcp', containerPort: 80, hostPort: 0 },
    ]);
    const b = pod('b');
    await network.attach(a.request, call);
    await network.attach(b.request, call);
    await serve(a.name, 80, 'a');
    await serve(a.name, 53, 'a', udpServer);
    assert.equal(ask('outside', '192.0.2.1', 8000), 'a ::ffff:192.0.2.9');
    assert.equal(ask('outside', '2001:db8::1', 8000), 'a 2001:db8::9');
    assert.equal(ask('outside', '192.0.2.1', 8001), 'a ::ffff:192.0.2.9');
    assert.equal(ask('', '127.0.0.1', 8000), 'a ::ffff:10.199.0.1');
    assert.match(ask('', '192.0.2.1', 8000), /^a /);
    assert.match(ask(b.name, '192.0.2.1', 8000), /^a /);
    assert.match(ask(a.name, '192.0.2.1', 8000), /^a /);
    assert.equal(ask('', '127.0.0.1', 8001), 'failed 1 ECONNREFUSED');
    assert.equal(ask('outside', '192.0.2.1', 5300, udpClient), 'hello back');
    assert.equal(ask('', '127.0.0.1', 5300, udpClient), 'hello back');
    await network.detach(a.request, call);
    assert.equal(ask('', '127.0.0.1', 8000), 'failed 1 ECONNREFUSED');
  });

  it('sends a UDP flow that began too early to the pod once there is one', async () => {
    outside();
    const sender =
      'let s=require("dgram").createSocket("udp4");s.bind(4444);s.on("message",m=>{console.log(""+m);process.exit()});' +
      'setInterval(()=>s.send("hello",+process.argv[2],process.argv[1]),20);setTimeout(()=>process.exit(2),20000);s.send("x",+process.argv[2],process.argv[1],()=>console.log("up"))';
    const early = spawn('ip', ['netns', 'exec', 'outside', process.execPath, '-e', sender, '192.0.2.1', '5300'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    servers.push(early);
    // Rules that track connections must be there for the flow to be known.
    await network.attach(pod('b').request, call);
    await once(early.stdout, 'data');
    const a = pod('a', [{ protocol: 'udp', containerPort: 53, hostPort: 5300 }]);
    const heard = once(early.stdout, 'data');
    await network.attach(a.request, call);
    await serve(a.name, 53, 'a', udpServer);
    assert.equal(String((await heard)[0]), 'hello back\n');
    assert.deepEqual(notes, []);
  });

  it('refuses a host port that another pod has', async () => {
    const port = [{ protocol: 'tcp', containerPort: 80, hostPort: 8000 }] as const;
    await network.attach(pod('a', [...port]).request, call);
    await assert.rejects(network.attach(pod('b', [...port]).request, call), (error) => isKind(error, 'already-exists'));
    assert.equal(network.has('b'), false);
  });

  it('keeps pods from the loopback of the host', async () => {
    const a = pod('a', [{ protocol: 'tcp', containerPort: 80, hostPort: 8000 }]);
    await network.attach(a.request, call);
    await serve('', 7000, 'secret');
    inside(a.name, 'ip', 'addr', 'flush', 'dev', 'lo');
    inside(a.name, 'ip', 'route', 'flush', 'table', 'local', 'dev', 'lo');
    inside(a.name, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet');
    inside(a.name, 'ip', 'route', 'add', '127.0.0.0/8', 'via', '10.199.0.1', 'dev', 'eth0', 'src', '10.199.0.2');
    assert.match(ask(a.name, '127.0.0.1', 7000), /^failed/);
  });

  it('knows its pods after a restart, and gives no address twice', async () => {
    const a = pod('a', [{ protocol: 'tcp', containerPort: 80, hostPort: 8000 }]);
    const first = await network.attach(a.request, call);
    network = open();
    const b = pod('b');
    const second = await network.attach(b.request, call);
    assert.notEqual(second.ips[0], first.ips[0]);
    await serve(a.name, 80, 'a');
    assert.match(ask('', '127.0.0.1', 8000), /^a /);
    await network.detach(a.request, call);
    await network.detach(a.request, call);
    assert.equal(ask('', '127.0.0.1', 8000), 'failed 1 ECONNREFUSED');
  });

  it('frees what dead sandboxes held', async () => {
    await network.attach(pod('a').request, call);
    await network.attach(pod('b').request, call);
    ip('link', 'add', 'vb000000000000', 'type', 'veth', 'peer', 'name', 'vbpeer');
    ip('link', 'set', 'vb000000000000', 'master', 'btest0');
    await network.reconcile(new Set(['b']), call);
    assert.equal(network.has('a'), false);
    assert.equal(leftovers().filter((line) => line.includes('vb')).length, 1);
    await network.reconcile(new Set(), call);
    assert.deepEqual(leftovers(), []);
  });

  it('detaches when the namespace is gone, and sandboxes it never saw', async () => {
    const a = pod('a');
    await network.attach(a.request, call);
    ip('netns', 'del', made.pop()!);
    await network.detach(a.request, call);
    await network.detach({ ...a.request, sandboxId: 'never' }, call);
    assert.deepEqual(leftovers(), []);
  });

  it('comes back when bridge and rules were removed by someone else', async () => {
    await network.attach(pod('a').request, call);
    ip('link', 'del', 'btest0');
    execFileSync('nft', ['flush', 'ruleset']);
    const b = pod('b', [{ protocol: 'tcp', containerPort: 80, hostPort: 8000 }]);
    await network.attach(b.request, call);
    await serve(b.name, 80, 'b');
    assert.match(ask('', '127.0.0.1', 8000), /^b /);
    assert.equal(notes.length, 2);
  });

  it('leaves nothing and frees the address when a pod cannot be configured', async () => {
    const a = pod('a');
    const broken = { ...a.request, netlink: () => Promise.reject(new Error('shim died')) };
    await assert.rejects(network.attach(broken, call), /shim died/);
    await network.detach(a.request, call);
    assert.deepEqual(leftovers(), []);
  });

  it('removes interface, bridge and rules by itself some time after the last pod', async () => {
    network = open({ settleMs: 20, lingerMs: 20 });
    const a = pod('a');
    await network.attach(a.request, call);
    await network.detach(a.request, call);
    assert.equal(network.has('a'), false);
    while (leftovers().length > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  });

  it('leaves running pods their network when it is closed, and an empty node nothing', async () => {
    network = open({ settleMs: 60_000, lingerMs: 60_000 });
    const [a, b] = [pod('a'), pod('b')];
    await network.attach(a.request, call);
    await network.attach(b.request, call);
    await network.detach(a.request, call);
    await network.close();
    assert.equal(leftovers().filter((line) => line.includes('vb')).length, 1);
    network = open({ settleMs: 60_000, lingerMs: 60_000 });
    await network.reconcile(new Set(['b']), call);
    await network.check(b.request, call);
    await network.detach(b.request, call);
    await network.close();
    assert.deepEqual(leftovers(), []);
    network = open();
  });

  it('serves many pods at once', async () => {
    const all = Array.from({ length: 12 }, (_, index) => pod(`many${index}`));
    const results = await Promise.all(all.map(({ request }) => network.attach(request, call)));
    assert.equal(new Set(results.flatMap(({ ips }) => ips)).size, 24);
    await Promise.all(all.map(({ request }) => network.detach(request, call)));
    assert.deepEqual(leftovers(), []);
  });

  it('refuses a subnet that another interface serves', async () => {
    ip('link', 'add', 'other', 'type', 'bridge');
    ip('addr', 'add', '10.199.0.77/16', 'dev', 'other');
    try {
      await assert.rejects(network.attach(pod('a').request, call), /overlaps with 10\.199\.0\.77\/16 on other/);
      assert.equal(network.status().ready, false);
    } finally {
      ip('link', 'del', 'other');
    }
  });

  it('installs the rules that its description promises', async () => {
    await network.attach(pod('a', [{ protocol: 'tcp', containerPort: 80, hostPort: 8000 }]).request, call);
    const listed = execFileSync('nft', ['list', 'table', 'ip', 'btest'], { encoding: 'utf8' });
    assert.equal(listed.trim(), readFileSync(new URL('../golden/network/nft-ip.txt', import.meta.url), 'utf8').trim());
  });
}

if (outsideOwnNamespace()) reportTestsOf('built-in network', import.meta.url);
else describe('built-in network', tests);
