/** The berth command as people type it, with and without an agent, on the real kernel. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { berthCommand, startAgent, type CommandResult, type TestAgent } from '../support/agent.js';
import { buildTestImage } from '../support/test-image.js';

const image = 'localhost/busybox:1';

describe('the berth command', () => {
  let layout = '';
  before(() => {
    layout = buildTestImage(fs.mkdtempSync(join(tmpdir(), 'image-')), { name: image });
  });
  after(() => fs.rmSync(layout, { recursive: true }));

  const ok = (result: CommandResult): string => {
    assert.equal(result.code, 0, result.stderr);
    return result.stdout;
  };

  for (const mode of ['with an agent', 'without one'] as const) {
    describe(mode, () => {
      let agent: TestAgent;
      before(async () => {
        agent = await startAgent({ stopped: mode === 'without one', env: { BERTH_USERNS_RANGES: '900000:70000' } });
        ok(await agent.berth('image', 'import', layout));
      });
      after(async () => {
        if (mode === 'without one') await agent.start();
        assert.deepEqual(await agent.close(), []);
      });

      it('lists and removes images', async () => {
        assert.match(ok(await agent.berth('image', 'ls')), /^localhost\/busybox:1 /m);
        ok(await agent.berth('image', 'import', '--name', 'localhost/other:2', layout));
        ok(await agent.berth('image', 'ls', 'localhost/other:2'));
        assert.match(
          (await agent.berth('image', 'rm', 'localhost/none:1')).stderr,
          /image "localhost\/none:1" not found/,
        );
      });

      it('runs a command, keeps streams apart and passes the exit code on', async () => {
        const result = await agent.berth('run', '--rm', image, 'sh', '-c', 'echo out; echo err >&2; exit 7');
        assert.deepEqual(result, { code: 7, stdout: 'out\n', stderr: 'err\n' });
        assert.equal(ok(await agent.berth('pods', '-q')), '');
      });

      it('gives the program what the flags say', async () => {
        const shared = fs.mkdtempSync(join(tmpdir(), 'volume-'));
        const script =
          'echo $A; pwd; hostname; id -u; cat /proc/1/comm; touch /v/made; touch /x 2>/dev/null || echo ro';
        const flags = [
          '-e',
          'A=b c',
          '-w',
          '/tmp',
          '--name',
          'flags',
          '-u',
          '1000',
          '-v',
          `${shared}:/v`,
          '--read-only',
        ];
        try {
          const { stdout } = await agent.berth('run', '--rm', ...flags, image, 'sh', '-c', script);
          assert.equal(stdout, 'b c\n/tmp\nflags\n1000\nsh\nro\n');
          assert.deepEqual(fs.readdirSync(shared), []);
          ok(await agent.berth('run', '--rm', '-v', `${shared}:/v`, image, 'touch', '/v/made'));
          assert.deepEqual(fs.readdirSync(shared), ['made']);
        } finally {
          fs.rmSync(shared, { recursive: true });
        }
      });

      it('gives it an address of its own, or the host’s network', async () => {
        const netns = ['readlink', '/proc/self/ns/net'];
        const host = fs.readlinkSync('/proc/self/ns/net');
        const own = ok(
          await agent.berth('run', '--rm', image, 'sh', '-c', 'ip -4 -o addr show; readlink /proc/self/ns/net'),
        );
        assert.match(own, / eth0 +inet 10\./);
        assert.ok(!own.includes(host));
        assert.equal(ok(await agent.berth('run', '--rm', '--net', 'host', image, ...netns)), `${host}\n`);
      });

      it('maps its ids where asked: root inside, nobody outside, volumes and a --rootfs as they are', async () => {
        const shared = fs.mkdtempSync(join(tmpdir(), 'volume-'));
        const root = join(shared, 'root');
        try {
          fs.mkdirSync(join(root, 'bin'), { recursive: true });
          fs.copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
          fs.chmodSync(join(root, 'bin/busybox'), 0o755);
          const flags = ['run', '--rm', '-v', `${shared}:/v`];
          const script = 'busybox id -u; busybox tr -s " " < /proc/self/uid_map; busybox touch /v/made /new';
          const own = await agent.berth(...flags, '--userns', '0:700000:65536', image, 'sh', '-c', script);
          assert.deepEqual([own.stderr, own.stdout], ['', '0\n 0 700000 65536\n']);
          fs.renameSync(join(shared, 'made'), join(shared, 'first'));
          const bare = [
            '--rootfs',
            root,
            'bare',
            '/bin/busybox',
            'sh',
            '-c',
            script.replaceAll('busybox', '/bin/busybox'),
          ];
          const chosen = ok(await agent.berth(...flags, '--userns', 'auto', ...bare));
          assert.equal(chosen, '0\n 0 900000 65536\n');
          assert.equal(fs.statSync(join(shared, 'first')).uid, 0);
          assert.equal(fs.statSync(join(root, 'bin/busybox')).uid, 0);
          const wrong = await agent.berth('run', '--rm', '--userns', '1:5:9', image, 'true');
          assert.match(wrong.stderr, /--userns: container id 0 must be mapped/);
        } finally {
          fs.rmSync(shared, { recursive: true });
        }
      });

      it('keeps a container that ended, with its log, until it is removed', async () => {
        ok(await agent.berth('run', '--name', 'kept', image, 'sh', '-c', 'echo one; echo two'));
        assert.match(ok(await agent.berth('ps', '-a')), / kept .* exited \(0\) /);
        assert.equal(ok(await agent.berth('logs', '--tail', '1', 'kept')), 'two\n');
        assert.match(ok(await agent.berth('inspect', 'kept')), /"name": "kept"/);
        assert.match(ok(await agent.berth('plan', 'explain', 'kept')), /change root/);
        ok(await agent.berth('rm', 'kept'));
        assert.equal(ok(await agent.berth('ps', '-aq')), '');
        assert.equal(ok(await agent.berth('pods', '-q')), '');
      });

      it('runs in the background, to be followed, entered and stopped', async () => {
        const script = 'trap "echo bye; exit 3" TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done';
        ok(await agent.berth('run', '-d', '--name', 'bg', image, 'sh', '-c', script));
        assert.equal((await agent.berth('exec', 'bg', 'sh', '-c', 'echo in; exit 4')).code, 4);
        const typed = await shell(
          `printf 'a b' | ${berthCommand} exec -i bg sh -c 'cat; echo err >&2; exit 6'`,
          agent.env,
        );
        assert.deepEqual(typed, { code: 6, stdout: 'a b', stderr: 'err\n' });
        const terminal = `${berthCommand} exec -t bg sh -c 'stty size; read -r word; echo got $word'`;
        assert.match(await inTerminal(terminal, agent.env, 'typed\n'), /got typed\r\n/);
        assert.match((await agent.berth('rm', 'bg')).stderr, /is running/);
        const following = agent.berth('logs', '-f', 'bg');
        await sleep(300);
        ok(await agent.berth('stop', 'bg'));
        assert.match(ok(await following), /^line 1\nline 2\n[^]*bye\n$/);
        assert.match(ok(await agent.berth('ps', '-a')), / bg .* exited \(3\) /);
        ok(await agent.berth('rm', '-f', 'bg'));
      });

      it('stops the program when interrupted', async () => {
        const script = 'trap "echo asked; exit 9" TERM; echo up; while :; do sleep 0.1; done';
        const child = spawn(berthCommand, ['run', '--rm', image, 'sh', '-c', script], {
          env: { ...process.env, ...agent.env },
        });
        let output = '';
        child.stdout.on('data', (data: Buffer) => {
          output += data.toString();
          if (output === 'up\n') child.kill('SIGINT');
        });
        const code = await new Promise((resolve) => child.once('close', resolve));
        assert.deepEqual([code, output], [9, 'up\nasked\n']);
        assert.equal(ok(await agent.berth('pods', '-q')), '');
      });

      it('runs a directory as it is and never removes it', async () => {
        const rootfs = makeRootfs();
        try {
          const run = (...words: string[]) =>
            agent.berth('run', '--rm', '--rootfs', rootfs, `dir-${randomBytes(2).toString('hex')}`, ...words);
          assert.equal(ok(await run('sh', '-c', 'echo made > /file; cat /file')), 'made\n');
          assert.equal(fs.readFileSync(join(rootfs, 'file'), 'utf8'), 'made\n');
          assert.equal((await run('sh', '-c', 'exit 5')).code, 5);
          assert.ok(fs.existsSync(join(rootfs, 'bin/busybox')));
          assert.match(
            (await agent.berth('run', '--rm', '--rootfs', `${rootfs}/none`, 'x', 'sh')).stderr,
            /is no directory/,
          );
        } finally {
          fs.rmSync(rootfs, { recursive: true });
        }
      });

      it('joins a terminal to it', async () => {
        const rootfs = makeRootfs();
        try {
          const command = `${berthCommand} run -t --rm --rootfs ${rootfs} term sh -c 'read -r word; tty; echo got $word'`;
          const output = await inTerminal(command, agent.env, 'typed\n');
          assert.match(output, /\/dev\/(pts\/0|console)\r\ngot typed\r\n/);
          assert.ok(fs.existsSync(rootfs));
          assert.equal(ok(await agent.berth('pods', '-q')), '');
        } finally {
          fs.rmSync(rootfs, { recursive: true });
        }
      });

      it('leaves nothing behind when a run fails', async () => {
        const missing = await agent.berth('run', '--pull', 'never', '--rm', 'localhost/none:1', 'sh');
        assert.equal(missing.code, 1);
        assert.match(missing.stderr, /localhost\/none:1/);
        const bad = await agent.berth('run', '--rm', image, '/no/such/program');
        assert.equal(bad.code, 1);
        assert.match(bad.stderr, /\/no\/such\/program.*ENOENT/);
        assert.equal(ok(await agent.berth('pods', '-q')), '');
        assert.match(ok(await agent.berth('doctor')), /Nothing is left over/);
      });

      it('finds and removes what nobody owns', async () => {
        const stray = join(agent.dir, 's/pods', 'f'.repeat(64));
        fs.mkdirSync(stray);
        // Opening the runtime recovers, which removes it; a running agent only tells.
        if (mode === 'with an agent') {
          const found = await agent.berth('doctor');
          assert.equal(found.code, 1);
          assert.match(found.stdout, new RegExp(`^directory +${stray} `, 'm'));
        }
        ok(await agent.berth('doctor', '--clean'));
        assert.ok(!fs.existsSync(stray));
      });
    });
  }

  it('says who holds the data directory', async () => {
    const agent = await startAgent();
    try {
      const socket = { BERTH_STATE: join(agent.dir, 't') };
      const other = await new Promise<string>((resolve) => {
        const env = { ...process.env, ...agent.env, ...socket };
        execFile(berthCommand, ['pods'], { env }, (_error, _stdout, stderr) => resolve(stderr));
      });
      assert.match(other, new RegExp(`${agent.dir}/root is held by another process`));
    } finally {
      assert.deepEqual(await agent.close(), []);
    }
  });
});

function makeRootfs(): string {
  const rootfs = fs.mkdtempSync(join(tmpdir(), 'rootfs-'));
  for (const name of ['bin', 'proc', 'sys', 'dev', 'etc', 'tmp']) fs.mkdirSync(join(rootfs, name));
  fs.copyFileSync('/bin/busybox', join(rootfs, 'bin/busybox'));
  for (const name of ['sh', 'cat', 'tty']) fs.symlinkSync('busybox', join(rootfs, 'bin', name));
  return rootfs;
}

function shell(command: string, env: Readonly<Record<string, string>>): Promise<CommandResult> {
  return new Promise((resolve) => {
    execFile('sh', ['-c', command], { env: { ...process.env, ...env } }, (error, stdout, stderr) =>
      resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

/** What a terminal shows of a command that is typed `input` once it runs. */
function inTerminal(command: string, env: Readonly<Record<string, string>>, input: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('script', ['-qec', command, '/dev/null'], { env: { ...process.env, ...env } });
    let output = '';
    child.stdout.on('data', (data: Buffer) => (output += data.toString()));
    child.once('error', reject);
    child.once('close', () => resolve(output));
    child.stdin.write(input);
  });
}
