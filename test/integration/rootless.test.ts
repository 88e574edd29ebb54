import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { endAgent, image, rootlessSuite } from '../support/rootless-suite.js';
import { isInstalled, uid } from '../support/rootless-user.js';
import { skip } from '../support/skip.js';

describe('an agent of an ordinary user', function () {
  this.timeout(120_000);
  const suite = rootlessSuite();
  const { open, text, shell } = suite;

  describe('running one command', () => {
    beforeEach(() => open());

    it('needs no agent, and leaves nothing behind', async () => {
      assert.equal(await text('run', '--rm', '--rootless', image, 'echo', 'done'), 'done\n');
      assert.ok(!existsSync(join(suite.user.state, 'rootless.json')));
    });

    it('is root inside and the user outside, each kind of id by its own map', async () => {
      const said = await shell(
        'id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g:%a /etc/owned /bin/suid',
      );
      const lines = said.split('\n').map((line) => line.trim().replace(/\s+/g, ' '));
      const { uid: subUid, gid: subGid } = suite.user.subordinate;
      const maps = [`0 ${uid} 1`, `1 ${subUid} 65536`, `0 ${uid} 1`, `1 ${subGid} 65536`];
      assert.deepEqual(lines, ['0', '0', ...maps, '33:34:644', '5:6:4755', '']);
    });

    it('writes files that are the user’s outside, and the subordinate ids’', async () => {
      const volume = join(suite.user.home, 'v');
      await text(
        'run',
        '--rm',
        '-v',
        `${suite.user.home}:/home`,
        image,
        'sh',
        '-c',
        'mkdir /home/v; echo x >/home/v/f; chown 7:8 /home/v/f',
      );
      const { uid: subUid, gid: subGid } = suite.user.subordinate;
      assert.equal(statSync(volume).uid, uid);
      assert.deepEqual([statSync(join(volume, 'f')).uid, statSync(join(volume, 'f')).gid], [subUid + 6, subGid + 7]);
    });

    it('has a network of its own, devices, and a /sys of its own', async () => {
      const said = await shell(
        'ls /sys/class/net; ip -4 addr show eth0 | grep -c inet; echo x >/dev/null; head -c1 /dev/zero | wc -c; mount | grep " /sys "',
      );
      assert.match(said, /^eth0\nlo\n1\n1\nsysfs on \/sys type sysfs \(ro,/);
    });

    it('shares the host’s network, and sees /sys read-only then, with all below it', async () => {
      const said = await shell(
        'ls /sys/class/net; mount | grep " on /sys" | grep -vc "[(,]ro[,)]"; true',
        '--net',
        'host',
      );
      assert.match(said, /\n0\n$/);
      const outside = readFileSync('/proc/net/dev', 'utf8')
        .split('\n')
        .slice(2)
        .map((line) => line.split(':')[0]?.trim() ?? '');
      for (const link of outside.filter(Boolean)) assert.ok(said.split('\n').includes(link), link);
    });

    it('sees the host’s processes only where it was asked for', async () => {
      assert.equal((await shell('ls /proc | grep -c "^[0-9]*$"')).trim(), '3');
      assert.ok(Number(await shell('ls /proc | grep -c "^[0-9]*$"', '--pid', 'host')) > 3);
    });

    it('cannot read what is root’s', async () => {
      const secret = join(suite.user.dir, 'secret');
      writeFileSync(secret, 'secret', { mode: 0o600 });
      const { code, stderr } = await suite.user.berth(
        'run',
        '--rm',
        '-v',
        `${secret}:/secret`,
        image,
        'cat',
        '/secret',
      );
      assert.equal(code, 1);
      assert.match(stderr, /Permission denied/);
    });

    it('passes on exit codes and says what was not applied', async () => {
      const { code, stderr } = await suite.user.berth('run', '--rm', '--memory', '64MiB', image, 'sh', '-c', 'exit 7');
      assert.equal(code, 7);
      // Where cgroup v2 is, nothing of it was delegated to this suite.user.
      assert.match(stderr, /no cgroup is delegated to us: memoryLimit of .* not applied/);
    });

    it('can have a user namespace of its own inside', async () => {
      const said = await shell('cat /proc/self/uid_map; stat -c %u:%g /etc/owned', '--userns', '0:1:1000');
      assert.match(said, /^\s+0\s+1\s+1000\n33:34\n$/);
      const { code, stderr } = await suite.user.berth('run', '--rm', '--userns', '0:70000:1000', image, 'true');
      assert.notEqual(code, 0);
      assert.match(stderr, /no uid 70000|not permitted|EPERM|EINVAL/);
    });

    it('runs inside a user namespace that is there already, with what ids that has', async () => {
      await suite.user.close();
      await open({ wrapper: ['unshare', '-Urm'] });
      assert.match(await shell('id -u; cat /proc/self/uid_map'), new RegExp(`^0\\n\\s+0\\s+${uid}\\s+1\\n$`));
    });
  });

  it('says what helps without subordinate ids, and without a runtime directory', async () => {
    await open({ withoutSubordinateIds: true, empty: true });
    const noIds = await suite.user.berth('run', '--rm', image);
    assert.notEqual(noIds.code, 0);
    assert.match(noIds.stderr, /\/etc\/subuid has no ids for user "rootless-test"; as root: usermod --add-subuids/);
    await suite.user.close();
    await open({ env: { XDG_RUNTIME_DIR: '' }, empty: true });
    assert.match((await suite.user.berth('ps')).stderr, /set XDG_RUNTIME_DIR/);
  });

  describe('serving', () => {
    let agent: ChildProcess | undefined;
    const keeper = (): number =>
      (JSON.parse(readFileSync(join(suite.user.state, 'rootless.json'), 'utf8')) as { keeper: { pid: number } }).keeper
        .pid;
    const end = async (signal: NodeJS.Signals): Promise<void> => {
      const ending = agent ?? assert.fail('no agent runs');
      agent = undefined;
      await endAgent(ending, signal, suite.user);
    };

    beforeEach(async () => {
      await open({ empty: true });
      agent = await suite.user.serve();
      await suite.importImage();
    });
    // An agent that ends without pods takes the namespaces along.
    afterEach(async () => {
      if (agent === undefined) return;
      await suite.removePods();
      await end('SIGTERM');
    });

    it('keeps its files where the user’s are, for the user alone', () => {
      for (const path of [suite.user.state, join(suite.user.home, '.local/share/berth')]) {
        assert.deepEqual([statSync(path).uid, statSync(path).mode & 0o777], [uid, 0o700], path);
      }
      assert.ok(existsSync(join(suite.user.state, 'berth.sock')));
    });

    it('loses nothing when it is killed, and comes back into the same namespaces', async () => {
      const port = await freePort();
      const script = 'mkdir /w; echo hello >/w/i; httpd -p 80 -h /w; echo started; exec sleep 100000';
      await text('run', '-d', '--name', 'web', '-p', `127.0.0.1:${port}:80`, image, 'sh', '-c', script);
      assert.equal(await fetchText(port, '/i'), 'hello\n');
      await text('exec', 'web', 'sh', '-c', 'echo kept >/kept');
      const before = keeper();
      await end('SIGKILL');
      assert.ok(suite.user.processes().some((line) => line.startsWith('sleep 100000')));
      await assert.rejects(fetchText(port, '/i'));
      agent = await suite.user.serve();
      assert.equal(keeper(), before);
      assert.equal(await text('exec', 'web', 'cat', '/kept'), 'kept\n');
      assert.equal(await text('logs', 'web'), 'started\n');
      assert.equal(await fetchText(port, '/i'), 'hello\n');
      await text('stop', '--time', '0', 'web');
      assert.match(await text('ps', '-a'), /exited \(137\)/);
    });

    it('finds its pods also when the process that keeps the namespaces was killed', async () => {
      await text('run', '-d', '--name', 'orphan', '--net', 'host', image, 'sh', '-c', 'exec sleep 200000');
      const before = keeper();
      await end('SIGKILL');
      process.kill(before, 'SIGKILL');
      agent = await suite.user.serve();
      assert.notEqual(keeper(), before);
      assert.equal(await text('exec', 'orphan', 'id', '-u'), '0\n');
      await text('stop', '--time', '0', 'orphan');
      assert.deepEqual(
        suite.user.processes().filter((line) => line.startsWith('sleep')),
        [],
      );
      assert.match(await shell('ls /sys/class/net'), /eth0/);
    });

    it('ends every process of a container, also those that left its session in the host’s process ids', async () => {
      const script = 'setsid sleep 200001 & (setsid sh -c "sleep 200002; true" &) ; exec sleep 200003';
      await text('run', '-d', '--name', 'many', '--pid', 'host', image, 'sh', '-c', script);
      const sleeping = (): string[] => suite.user.processes().filter((line) => line.startsWith('sleep 20000'));
      for (let attempt = 0; attempt < 200 && sleeping().length < 3; attempt++) await sleep(25);
      assert.equal(sleeping().length, 3);
      await text('stop', '--time', '0', 'many');
      assert.deepEqual(sleeping(), []);
    });

    it('ends what a container’s first process leaves behind', async () => {
      const script = 'setsid sleep 200004 & sleep 1; exit 0';
      await text('run', '--pid', 'host', '--name', 'short', image, 'sh', '-c', script);
      for (
        let attempt = 0;
        attempt < 200 && suite.user.processes().some((line) => line.startsWith('sleep 200004'));
        attempt++
      )
        await sleep(25);
      assert.deepEqual(
        suite.user.processes().filter((line) => line.startsWith('sleep 200004')),
        [],
      );
    });

    it('lets pods reach each other', async () => {
      const script = 'mkdir /w; echo hello >/w/i; exec httpd -f -p 80 -h /w';
      await text('run', '-d', '--name', 'server', image, 'sh', '-c', script);
      const address = /ready\s+(\S+)/.exec(await text('pods'))?.[1] ?? '';
      assert.equal(await shell(`wget -q -O - http://${address}/i`), 'hello\n');
      await text('stop', '--time', '0', 'server');
    });
  });

  for (const wayOut of ['pasta', 'slirp4netns']) {
    it(`reaches other hosts by ${wayOut}`, async function () {
      if (!isInstalled(wayOut) || !isInstalled('ip')) skip(this, `${wayOut} or ip is not installed`);
      // A host of its own: a link with a default route, and a server at an address that is not the link's.
      const options = {
        prepare: [
          'ip link set lo up',
          'ip link add d0 type veth peer name d1',
          'ip link set d0 up && ip link set d1 up',
          'ip addr add 192.0.2.10/24 dev d0',
          'ip route add default via 192.0.2.1',
          'ip addr add 198.51.100.1/32 dev lo',
          '[ -e "$HOME/../tun" ] || mknod -m 666 "$HOME/../tun" c 10 200',
          'mount --bind "$HOME/../tun" /dev/net/tun',
          'mkdir -p "$HOME/../w" && echo hello >"$HOME/../w/i"',
        ],
        server: 'busybox httpd -f -p 198.51.100.1:8099 -h "$HOME/../w"',
      };
      await open({ ...options, env: { BERTH_NETWORK_ROOTLESS: wayOut } });
      assert.equal(await shell('wget -q -O - http://198.51.100.1:8099/i'), 'hello\n');
    });
  }
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** HTTP/1.0, so that the end of the connection is the end of the answer. */
const fetchText = (port: number, path: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(`GET ${path} HTTP/1.0\r\n\r\n`));
    let said = '';
    socket.setEncoding('utf8').on('data', (data: string) => (said += data));
    socket.on('error', reject).on('close', () => {
      const body = said.indexOf('\r\n\r\n');
      if (body < 0) reject(new Error(`no answer: ${said}`));
      else resolve(said.slice(body + 4));
    });
  });
