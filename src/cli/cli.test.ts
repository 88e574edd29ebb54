import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { RuntimeError } from '../kit/errors.js';
import type { CommandStreams, ContainerStreams, ContainerView, ExecCommand, Runtime } from '../runtime/facade.js';
import type { Image } from '../runtime/model.js';
import type { Composition } from './composition.js';
import { logBytes, offsetOfLast, parseLogLine, readLog } from './log-lines.js';
import { runCli } from './main.js';
import { barLine } from './progress.js';
import { formatAge, formatBytes, renderTable } from './text.js';

const image: Image = {
  id: `sha256:${'1'.repeat(64)}`,
  repoTags: ['docker.io/library/hello:1'],
  repoDigests: [],
  size: 2048,
  pinned: false,
  annotations: {},
  run: { env: [], entrypoint: [], cmd: [], user: '', workingDir: '', stopSignal: '', volumes: [], labels: {} },
  diffIds: [],
  chainId: '',
  platform: 'linux/amd64',
};

const container = {
  id: 'abc123'.padEnd(64, '0'),
  sandboxId: 'p'.repeat(64),
  config: { metadata: { name: 'web', attempt: 0 }, image: { image: 'hello', userSpecifiedImage: 'hello:1' } },
  state: 'running',
  createdAt: BigInt(Date.now() - 120_000) * 1_000_000n,
  imageName: 'hello:1',
} as unknown as ContainerView;

/** Only what the tests below ask for; anything else is a TypeError that fails the test. */
function fakeRuntime(seen: unknown[]): Runtime {
  return {
    status: () => ({ conditions: [{ type: 'RuntimeReady', status: true, reason: '', message: '' }] }),
    sandboxes: { list: () => [] },
    containers: {
      list: () => [container],
      status: () => container,
      execSync: (...args: readonly unknown[]) => {
        seen.push(args.slice(0, 3));
        return Promise.resolve({ stdout: Buffer.from([0xff, 0x0a]), stderr: Buffer.from('warn\n'), exitCode: 7 });
      },
      attach: (id: string) => Promise.resolve(echo(id)),
      exec: (id: string, command: ExecCommand) => {
        seen.push([id, command]);
        return Promise.resolve(says(7));
      },
    },
    images: {
      list: () => [image],
      get: (reference: string) => (reference === 'gone' ? undefined : image),
      remove: () => Promise.reject(new RuntimeError('wrong-state', 'image is in use')),
      pull: (
        spec: unknown,
        auth: unknown,
        call: { observer: { note(level: string, message: string): void } },
        on: (p: unknown) => void,
      ) => {
        seen.push(spec, auth);
        call.observer.note('warn', 'slow mirror');
        on({ digest: 'sha256:aa', phase: 'done', bytes: 5, total: 2048 });
        return Promise.resolve(image);
      },
    },
    maintenance: {
      orphans: () => Promise.resolve([{ kind: 'cgroup', target: '/berth/x', reason: 'no pod' }]),
      clean: () => Promise.resolve([]),
    },
    close: () => Promise.resolve(void seen.push('closed')),
  } as unknown as Runtime;
}

/** A container that answers what it is sent, and ends when its input does. */
function echo(id: string): ContainerStreams {
  let listener: ((stream: 'stdout' | 'stderr', data: Uint8Array) => void) | undefined;
  let finish = (): void => undefined;
  const ended = new Promise<void>((resolve) => (finish = resolve));
  return {
    onOutput(given) {
      listener = given;
      given('stdout', Buffer.from(`hello ${id}`));
    },
    write: (data) => Promise.resolve(listener?.('stderr', data)),
    end: () => finish(),
    pause: () => undefined,
    resume: () => undefined,
    ended,
    close: () => finish(),
  };
}

/** A command that says something on both streams and exits. */
function says(code: number): CommandStreams {
  return {
    ...echo('command'),
    onOutput(listener) {
      listener('stdout', Buffer.from([0xff, 0x0a]));
      listener('stderr', Buffer.from('warn\n'));
    },
    resize: () => Promise.resolve(),
    exited: Promise.resolve(code),
  };
}

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly raw: Buffer;
}

async function cli(composition: Composition, env: Record<string, string>, ...argv: string[]): Promise<Result> {
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  const sink = (to: Buffer[]) => ({ write: (data: string | Uint8Array) => void to.push(Buffer.from(data)) });
  const signal = new AbortController().signal;
  const code = await runCli(argv, composition, { stdout: sink(out), stderr: sink(err), env, signal });
  const raw = Buffer.concat(out);
  return { code, stdout: raw.toString(), stderr: Buffer.concat(err).toString(), raw };
}

function fakeComposition(seen: unknown[]): Composition {
  return {
    version: '9.9.9',
    rootless: false,
    enterNamespaces: () => Promise.resolve(),
    openRuntime: () => Promise.resolve(fakeRuntime(seen)),
    serveCri: () => Promise.resolve({ close: () => Promise.resolve() }),
    explainPlan: (bytes) => Promise.resolve(`plan of ${bytes.length} bytes`),
  };
}

describe('command line', () => {
  let dir = '';
  let env: Record<string, string> = {};
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'cli-'));
    writeFileSync(join(dir, 'config.toml'), `root = "${dir}/root"\nstate = "${dir}"\n`);
    env = { BERTH_CONFIG: join(dir, 'config.toml') };
  });
  after(() => rmSync(dir, { recursive: true }));

  const local = (...argv: string[]) => cli(fakeComposition([]), env, ...argv);

  it('says what there is', async () => {
    const help = await local('--help');
    assert.match(help.stdout, /^ {2}image pull +pull an image$/m);
    for (const line of help.stdout.matchAll(/^ {2}([a-z]+(?: [a-z]+)?) {2,}/gm)) {
      const { code, stdout } = await local(...(line[1] ?? '').split(' '), '--help');
      assert.equal(code, 0);
      assert.match(stdout, new RegExp(`^Usage: berth ${line[1]}`));
    }
    assert.match((await local('serve', '--help')).stdout, /--network-cni-conf-dir PATH/);
  });

  it('refuses mistakes with exit code 2 and a hint', async () => {
    const refused = async (pattern: RegExp, ...argv: string[]) => {
      const { code, stderr } = await local(...argv);
      assert.equal(code, 2, stderr);
      assert.match(stderr, pattern);
    };
    await refused(/unknown command "iamge" \(did you mean "image"\?\)/, 'iamge');
    await refused(/one of: berth image pull/, 'image');
    await refused(/unknown flag --quite \(did you mean "--quiet"\?\)/, 'ps', '--quite');
    await refused(/missing CONTAINER/, 'logs');
    await refused(/unexpected argument "b"/, 'logs', 'a', 'b');
    await refused(/--tail must be an integer/, 'logs', '--tail', 'x', 'a');
    await refused(/--user and --password-file go together/, 'image', 'pull', '--user', 'me', 'hello');
  });

  it('says what is wrong with the configuration', async () => {
    const { code, stderr } = await cli(fakeComposition([]), { ...env, BERTH_LOG_LEVEL: 'loud' }, 'config', 'check');
    assert.equal(code, 1);
    assert.match(stderr, /BERTH_LOG_LEVEL: must be one of/);
    assert.equal((await local('config', 'check')).code, 0);
    assert.match((await local('config', 'show', '--network-mtu', '99')).stdout, /^mtu = 99$/m);
    assert.match((await local('config', 'default')).stdout, /^#mtu = 0$/m);
  });

  it('opens the runtime itself when no agent runs, and closes it', async () => {
    const seen: unknown[] = [];
    const { stdout, code } = await cli(fakeComposition(seen), env, 'ps');
    assert.equal(code, 0);
    assert.match(
      stdout,
      /^ID +NAME +POD +IMAGE +STATE +CREATED\nabc1230000000 +web +hello:1 +running +2 minutes ago\n$/,
    );
    assert.deepEqual(seen, ['closed']);
  });

  it('passes a program’s own flags through', async () => {
    const seen: unknown[] = [];
    const { code } = await cli(fakeComposition(seen), env, 'exec', '--timeout', '3', 'web', 'ls', '-l', '--help');
    assert.equal(code, 7);
    assert.deepEqual(seen[0], [container.id, ['ls', '-l', '--help'], 3]);
    await cli(fakeComposition(seen), env, 'exec', '-i', 'web', 'cat', '-');
    assert.deepEqual(seen[2], [container.id, { args: ['cat', '-'], stdin: true, terminal: false }]);
  });

  it('passes exit code and output bytes on', async () => {
    const { raw, stderr } = await local('exec', 'abc', 'x');
    assert.deepEqual([...raw], [0xff, 0x0a]);
    assert.equal(stderr, 'warn\n');
  });

  it('finds what is left over, and exits 1 until it is gone', async () => {
    const { code, stdout } = await local('doctor');
    assert.equal(code, 1);
    assert.match(stdout, /^cgroup +\/berth\/x +no pod$/m);
    assert.match((await local('doctor', '--clean')).stdout, /Nothing is left over/);
  });

  it('says errors of the runtime in one line', async () => {
    const { code, stderr } = await local('image', 'rm', 'hello');
    assert.equal(code, 1);
    assert.equal(stderr, 'berth: image is in use\n');
    assert.match((await local('image', 'rm', 'gone')).stderr, /image "gone" not found/);
  });

  describe('with an agent', () => {
    const seen: unknown[] = [];
    const stop = new AbortController();
    let served: Promise<number>;
    const quiet = { write: () => undefined };
    before(async () => {
      const agent = fakeComposition(seen);
      served = runCli(['serve', '--admin-address', '127.0.0.1:0', '--log-level', 'error'], agent, {
        stdout: quiet,
        stderr: quiet,
        env,
        signal: stop.signal,
      });
      const { agentAnswers } = await import('./remote/client.js');
      while (!(await agentAnswers(join(dir, 'admin.sock')))) await sleep(10);
    });
    after(async () => {
      stop.abort();
      assert.equal(await served, 0);
      assert.ok(seen.includes('closed'));
    });

    /** A runtime of its own would be a mistake here. */
    const remote: Composition = { ...fakeComposition([]), openRuntime: () => Promise.reject(new Error('opened')) };

    it('speaks to it, with progress and warnings', async () => {
      writeFileSync(join(dir, 'password'), 'secret\n');
      const argv = ['image', 'pull', '--user', 'me', '--password-file', join(dir, 'password'), 'hello'];
      const { code, stdout, stderr } = await cli(remote, env, ...argv);
      assert.equal(code, 0, stderr);
      assert.equal(stdout, `${image.id}\n`);
      assert.equal(stderr, 'warning: slow mirror\naa done (2.0 KiB)\n');
      assert.deepEqual((seen[1] as { password: string }).password, 'secret');
    });

    it('carries bigint, bytes, exit codes and errors', async () => {
      assert.match((await cli(remote, env, 'ps')).stdout, /2 minutes ago/);
      const { code, raw } = await cli(remote, env, 'exec', 'web', 'x');
      assert.deepEqual([code, ...raw], [7, 0xff, 0x0a]);
      assert.equal((await cli(remote, env, 'image', 'rm', 'hello')).stderr, 'berth: image is in use\n');
    });

    it('refuses a command of another release', async () => {
      const { stderr } = await cli({ ...remote, version: '1.0.0' }, env, 'ps');
      assert.match(stderr, /running agent is release 9\.9\.9, this command is 1\.0\.0/);
    });

    it('joins streams both ways', async () => {
      const { attachRemote } = await import('./remote/streams.js');
      const { signal } = new AbortController();
      const streams = await attachRemote(join(dir, 'admin.sock'), 'web', signal);
      const got: string[] = [];
      streams.onOutput((stream, data) => void got.push(`${stream}: ${Buffer.from(data).toString()}`));
      await streams.write(Buffer.from('typed'));
      while (got.length < 2) await sleep(5);
      streams.end();
      await streams.ended;
      assert.deepEqual(got, ['stdout: hello web', 'stderr: typed']);
    });
  });
});

describe('log lines', () => {
  let path = '';
  beforeEach(() => (path = join(mkdtempSync(join(tmpdir(), 'log-')), 'a.log')));
  afterEach(() => rmSync(join(path, '..'), { recursive: true }));
  const line = (text: string, tag = 'F') => `2026-01-02T03:04:05.000000006Z stdout ${tag} ${text}\n`;
  const texts = async (options = {}) => {
    const all: string[] = [];
    for await (const entry of readLog(path, options)) all.push(logBytes(entry).toString());
    return all.join('');
  };

  it('joins partial entries and keeps bytes', () => {
    const entry = parseLogLine(Buffer.concat([Buffer.from('t stderr P '), Buffer.from([0xff, 0x20])]));
    assert.deepEqual(entry, { time: 't', stream: 'stderr', partial: true, text: Buffer.from([0xff, 0x20]) });
    assert.equal(parseLogLine(Buffer.from('nonsense')), undefined);
    assert.equal(parseLogLine(Buffer.from('t stdout F'))?.text.length, 0);
  });

  it('reads to the end, or from one of the last entries', async () => {
    writeFileSync(path, line('a', 'P') + line('b') + line('c'));
    assert.equal(await texts(), 'ab\nc\n');
    assert.equal(await texts({ from: await offsetOfLast(path, 1) }), 'c\n');
    assert.equal(await texts({ from: await offsetOfLast(path, 9) }), 'ab\nc\n');
    assert.equal(await texts({ from: await offsetOfLast(path, 0) }), '');
  });

  it('follows over a rotation until the container has ended', async () => {
    writeFileSync(path, line('one'));
    let asked = 0;
    const ended = (): Promise<boolean> => {
      asked++;
      if (asked === 1) appendFileSync(path, line('two'));
      if (asked === 2) renameSync(path, `${path}.1`);
      if (asked === 3) writeFileSync(path, line('three'));
      return Promise.resolve(asked > 3);
    };
    assert.equal(await texts({ ended }), 'one\ntwo\nthree\n');
  });
});

describe('text', () => {
  it('writes sizes, ages, tables and bars', () => {
    assert.deepEqual([formatBytes(12), formatBytes(1536), formatBytes(5 * 2 ** 30)], ['12 B', '1.5 KiB', '5.0 GiB']);
    assert.equal(formatAge(0n, 7_200_000_000_000n), '2 hours ago');
    assert.equal(renderTable(['A', 'B'], [['long', 'x']]), 'A     B\nlong  x\n');
    const layer = { digest: 'sha256:0123456789abcdef', phase: 'downloading', bytes: 512, total: 1024 } as const;
    assert.equal(barLine(layer), '0123456789abc  downloading  [==============>               ]  512 B / 1.0 KiB');
  });
});
