import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { createServer, type AddressInfo } from 'node:net';
import WebSocket from 'ws';
import { serveStreaming, type StreamingServer } from '../../src/cri/streaming/server.js';
import type { StreamingRequest } from '../../src/cri/streaming/sessions.js';
import { silentObserver } from '../../src/kit/observer.js';
import {
  call,
  containerConfig,
  logText,
  makeTestHost,
  podConfig,
  type OpenHost,
  type TestHost,
} from '../support/runtime.js';
import { rawRequest, spdyClient, type ClientStream, type SpdyClient } from '../support/spdy-client.js';

const everyVersion = ['v4.channel.k8s.io', 'v3.channel.k8s.io', 'v2.channel.k8s.io', 'channel.k8s.io'];
const flags = { stdin: false, stdout: true, stderr: true, terminal: false };

interface CommandStreams {
  readonly client: SpdyClient;
  readonly error: ClientStream;
  readonly stdin?: ClientStream;
  readonly stdout: ClientStream;
  readonly stderr?: ClientStream;
  readonly resize?: ClientStream;
}

async function until(done: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let attempt = 0; attempt < 1000; attempt++) {
    if (await done()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`waited too long for ${what}`);
}

describe('streaming on the kernel', function () {
  this.timeout(120_000);
  let testHost: TestHost;
  let host: OpenHost;
  let server: StreamingServer;
  let pod: string;
  let container: string;

  before(async () => {
    testHost = makeTestHost();
    host = await testHost.open();
    server = await serveStreaming(options());
    pod = await host.runtime.sandboxes.run({ config: podConfig(testHost.dir), runtimeHandler: '' }, call());
    container = await start('exec sleep 1000');
  });
  after(async () => {
    await server.close();
    await testHost.destroy();
  });
  afterEach(() => until(() => server.sessions === 0, 'every session to end'));

  const options = (): Parameters<typeof serveStreaming>[0] => ({
    runtime: host.runtime,
    address: '127.0.0.1',
    port: 0,
    idleTimeoutMs: 60_000,
    creationTimeoutMs: 2000,
    watch: () => ({ observer: silentObserver, end: () => undefined }),
  });
  const start = async (script: string, changes: Parameters<typeof containerConfig>[1] = {}): Promise<string> => {
    const config = containerConfig(script, changes);
    const id = await host.runtime.containers.create({ sandboxId: pod, config }, call());
    await host.runtime.containers.start(id, call());
    return id;
  };
  const execRequest = (command: string[], changes: Partial<typeof flags> = {}): StreamingRequest => ({
    kind: 'exec',
    containerId: container,
    command,
    ...flags,
    ...changes,
  });
  const shell = (script: string, changes: Partial<typeof flags> = {}): StreamingRequest =>
    execRequest(['/bin/sh', '-c', script], changes);

  const open = async (request: StreamingRequest, protocols = everyVersion): Promise<CommandStreams> => {
    assert.ok(request.kind !== 'portforward');
    const client = await spdyClient(server.urlFor(request), protocols);
    const stream = (streamtype: string): ClientStream => client.open({ streamtype });
    const sizes = request.terminal && /^v[34]/.test(client.protocol ?? '');
    return {
      client,
      error: stream('error'),
      ...(request.stdin ? { stdin: stream('stdin') } : {}),
      stdout: stream('stdout'),
      ...(request.stderr && !request.terminal ? { stderr: stream('stderr') } : {}),
      ...(sizes ? { resize: stream('resize') } : {}),
    };
  };
  const finish = async ({ client, error, stdout, stderr }: CommandStreams) => {
    assert.deepEqual(await Promise.all([error.ended, stdout.ended, stderr?.ended ?? 'end']), ['end', 'end', 'end']);
    await client.goodbye;
    client.close();
    return { stdout: stdout.text(), stderr: stderr?.text() ?? '', error: error.text() };
  };
  const running = async (marker: string): Promise<boolean> => {
    const listing = await host.runtime.containers.execSync(container, ['/bin/ps', '-o', 'args'], 10, call());
    return Buffer.from(listing.stdout).toString().includes(marker);
  };

  describe('exec over SPDY', () => {
    it('ends with the exit code as a status object', async () => {
      const result = await finish(await open(shell('echo out; echo err >&2; exit 3')));
      assert.deepEqual([result.stdout, result.stderr], ['out\n', 'err\n']);
      const status = JSON.parse(result.error) as { reason: string; details: { causes: unknown } };
      assert.equal(status.reason, 'NonZeroExitCode');
      assert.deepEqual(status.details.causes, [{ reason: 'ExitCode', message: '3' }]);
    });

    for (const protocol of everyVersion.slice(1)) {
      it(`speaks ${protocol}`, async () => {
        assert.equal((await finish(await open(shell('true'), [protocol]))).error, '');
        assert.match((await finish(await open(shell('exit 4'), [protocol]))).error, /exit status 4/);
      });
    }

    it('passes on the end of stdin', async () => {
      const streams = await open(execRequest(['/bin/wc', '-c'], { stdin: true }));
      for (let i = 0; i < 40; i++) streams.stdin?.send(Buffer.alloc(25_000));
      streams.stdin?.end();
      const { stdout, error } = await finish(streams);
      assert.equal(stdout.trim(), '1000000');
      assert.deepEqual(JSON.parse(error), { metadata: {}, status: 'Success' });
    });

    it('gives a terminal with a size, which may change', async () => {
      const script = 'trap "stty size; exit 0" WINCH; echo ready $TERM; while :; do sleep 0.05; done';
      const streams = await open(shell(script, { stdin: true, stderr: false, terminal: true }));
      await until(() => streams.stdout.text().includes('ready xterm'), 'the program');
      streams.resize?.send('{"Width":99,"Hei');
      streams.resize?.send('ght":33}\n');
      const { stdout, error } = await finish(streams);
      assert.match(stdout, /33 99/);
      assert.equal((JSON.parse(error) as { status: string }).status, 'Success');
    });

    it('passes on sizes while the program reads no input', async () => {
      const script = 'trap "stty size; exit" WINCH; stty -echo -icanon; echo ready; while :; do sleep 0.05; done';
      const streams = await open(shell(script, { stdin: true, stderr: false, terminal: true }));
      await until(() => streams.stdout.text().includes('ready'), 'the program');
      streams.stdin?.send(Buffer.alloc(900 << 10, 'x'));
      streams.resize?.send(JSON.stringify({ Width: 71, Height: 33 }));
      const { stdout } = await finish(streams);
      assert.match(stdout, /33 71/);
    });

    it('tells why a command cannot start', async () => {
      const { error } = await finish(await open(execRequest(['/no/such/program'])));
      const status = JSON.parse(error) as { reason: string; message: string };
      assert.equal(status.reason, 'InternalError');
      assert.match(status.message, /ENOENT/);
    });

    it('carries much output to a slow client without losing any', async () => {
      const streams = await open(execRequest(['/bin/head', '-c', '30000000', '/dev/zero']));
      streams.client.socket.pause();
      await new Promise((resolve) => setTimeout(resolve, 300));
      assert.ok(await running('30000000'), 'the program waits for its reader');
      streams.client.socket.resume();
      await finish(streams);
      assert.equal(streams.stdout.bytes(), 30_000_000);
    });

    it('kills the command and its children when the client goes', async () => {
      const streams = await open(shell('sleep 4711 & sleep 4711; true'));
      await until(() => running('4711'), 'the command to run');
      streams.client.close();
      await until(async () => !(await running('4711')), 'the command to be killed');
    });
  });

  it('redeems a URL once, for what it was issued, and only for an upgrade', async () => {
    const url = server.urlFor(shell('true'));
    await finish(await open(shell('true')));
    const client = await spdyClient(url, everyVersion);
    client.close();
    await assert.rejects(spdyClient(url, everyVersion), /404/);
    await assert.rejects(spdyClient(server.urlFor(shell('true')).replace('/exec/', '/attach/'), everyVersion), /404/);
    await assert.rejects(spdyClient(server.urlFor(shell('true')), ['v9.channel.k8s.io']), /403/);
    const port = Number(new URL(url).port);
    assert.match(
      await rawRequest(port, 'GET /exec/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'),
      /^HTTP\/1.1 400/,
    );
  });

  it('gives up a client that opens no streams', async () => {
    const client = await spdyClient(server.urlFor(shell('true')), everyVersion);
    client.open({ streamtype: 'error' });
    await client.goodbye;
    client.close();
  });

  it('attaches to a container that goes on logging', async () => {
    const id = await start('while read line; do echo "got $line"; done; echo done', {
      stdin: true,
      stdinOnce: true,
    });
    const streams = await open({ kind: 'attach', containerId: id, ...flags, stdin: true });
    streams.stdin?.send('hello\n');
    await until(() => streams.stdout.text() === 'got hello\n', 'the answer');
    streams.stdin?.end();
    const { stdout } = await finish(streams);
    assert.equal(stdout, 'got hello\ndone\n');
    assert.ok(await host.parts.registry.waitForExit(id, 10_000));
    assert.equal(logText(host.runtime.containers.status(id).logPath), 'got hello\ndone\n');
  });

  it('never lets a client that reads nothing stop a container or its log', async () => {
    const id = await start('read line; head -c 20000000 /dev/zero | tr "\\0" x; echo; echo end', {
      stdin: true,
      stdinOnce: true,
    });
    const streams = await open({ kind: 'attach', containerId: id, ...flags, stdin: true });
    streams.client.socket.pause();
    streams.stdin?.send('\n');
    assert.ok(await host.parts.registry.waitForExit(id, 30_000));
    assert.equal(logText(host.runtime.containers.status(id).logPath).length, 20_000_005);
    streams.client.close();
  });

  /** An echo server of this process, and a pod on the host’s network that reaches it. */
  const echoOnHost = async () => {
    const echo = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => socket.destroy());
      socket.pipe(socket);
    });
    await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve));
    const config = podConfig(testHost.dir);
    const security = { ...config.security, namespaces: { ...config.security.namespaces, network: 'node' as const } };
    const sandboxId = await host.runtime.sandboxes.run({ config: { ...config, security }, runtimeHandler: '' }, call());
    return { sandboxId, port: (echo.address() as AddressInfo).port, close: () => void echo.close() };
  };

  describe('port-forward over SPDY', () => {
    const forward = async (client: SpdyClient, port: number, requestid: string) => {
      const headers = { port: String(port), requestid };
      const error = client.open({ ...headers, streamtype: 'error' });
      const data = client.open({ ...headers, streamtype: 'data' });
      error.end();
      return { data, error };
    };
    const portsOf = (sandboxId: string): StreamingRequest => ({ kind: 'portforward', sandboxId, ports: [] });

    it('reaches a server in the pod', async () => {
      await start('exec nc -l -p 7000 -e /bin/cat');
      const client = await spdyClient(server.urlFor(portsOf(pod)), ['portforward.k8s.io']);
      assert.equal(client.protocol, 'portforward.k8s.io');
      let answer = '';
      await until(async () => {
        const { data, error } = await forward(client, 7000, `try ${performance.now()}`);
        data.send('hello');
        data.end();
        await Promise.all([data.ended, error.ended]);
        answer = data.text();
        return error.text() === '';
      }, 'the server');
      assert.equal(answer, 'hello');
      client.close();
    });

    it('carries many connections at once, half-closed, also in a pod on the host’s network', async () => {
      const echo = await echoOnHost();
      const client = await spdyClient(server.urlFor(portsOf(echo.sandboxId)), ['portforward.k8s.io']);
      const connections = await Promise.all(
        Array.from({ length: 20 }, (_, i) => forward(client, echo.port, String(i))),
      );
      connections.forEach(({ data }, i) => {
        data.send(Buffer.alloc(300_000, i));
        data.end();
      });
      for (const { data, error } of connections) {
        assert.deepEqual(await Promise.all([data.ended, error.ended]), ['end', 'end']);
        assert.deepEqual([error.text(), data.bytes()], ['', 300_000]);
      }
      client.close();
      echo.close();
    });

    it('serves the others while a server takes nothing', async () => {
      const deaf = createServer((socket) => socket.pause()).listen(0, '127.0.0.1');
      const echo = await echoOnHost();
      const client = await spdyClient(server.urlFor(portsOf(echo.sandboxId)), ['portforward.k8s.io']);
      const stuck = await forward(client, (deaf.address() as AddressInfo).port, 'stuck');
      for (let i = 0; i < 24; i++) stuck.data.send(Buffer.alloc(256 << 10));
      const { data } = await forward(client, echo.port, 'quick');
      data.send('hello');
      data.end();
      assert.equal(await data.ended, 'end');
      assert.equal(data.text(), 'hello');
      client.close();
      echo.close();
      deaf.close();
    });

    it('tells when nobody listens, and goes on', async () => {
      const client = await spdyClient(server.urlFor(portsOf(pod)), ['portforward.k8s.io']);
      const { error } = await forward(client, 9, '1');
      assert.equal(await error.ended, 'end');
      assert.match(error.text(), /port 9.*ECONNREFUSED/);
      client.close();
    });
  });

  describe('over WebSocket', () => {
    const connect = async (request: StreamingRequest, protocol: string) => {
      const socket = new WebSocket(server.urlFor(request).replace('http', 'ws'), protocol);
      const channels = new Map<number, Buffer>();
      socket.on('message', (data: Buffer, binary: boolean) => {
        const number = binary ? (data[0] ?? -1) : Number(data.toString('latin1', 0, 1));
        const payload = binary ? data.subarray(1) : Buffer.from(data.toString('latin1', 1), 'base64');
        channels.set(number, Buffer.concat([channels.get(number) ?? Buffer.alloc(0), payload]));
      });
      const closed = new Promise<number>((resolve) => socket.once('close', resolve));
      await new Promise<void>((resolve, reject) => socket.once('open', resolve).once('error', reject));
      return { socket, closed, text: (number: number) => channels.get(number)?.toString() ?? '' };
    };

    it('knows the end of stdin since version 5', async () => {
      const session = await connect(execRequest(['/bin/cat'], { stdin: true }), 'v5.channel.k8s.io');
      assert.equal(session.socket.protocol, 'v5.channel.k8s.io');
      session.socket.send(Buffer.from('\0hello'));
      session.socket.send(Buffer.from([255, 0]));
      assert.equal(await session.closed, 1000);
      assert.equal(session.text(1), 'hello');
      assert.equal((JSON.parse(session.text(3)) as { status: string }).status, 'Success');
    });

    it('speaks version 4, plain and in base64', async () => {
      for (const protocol of ['v4.channel.k8s.io', 'v4.base64.channel.k8s.io']) {
        const session = await connect(shell('echo out; echo err >&2; exit 5'), protocol);
        assert.equal(await session.closed, 1000);
        assert.deepEqual([session.text(1), session.text(2)], ['out\n', 'err\n']);
        assert.match(session.text(3), /"NonZeroExitCode"/);
      }
    });

    it('kills the command when the client goes', async () => {
      const session = await connect(shell('sleep 4712'), 'v4.channel.k8s.io');
      await until(() => running('4712'), 'the command to run');
      session.socket.terminate();
      await until(async () => !(await running('4712')), 'the command to be killed');
    });

    it('forwards a port over channels of its own', async () => {
      const echo = await echoOnHost();
      const request: StreamingRequest = { kind: 'portforward', sandboxId: echo.sandboxId, ports: [echo.port] };
      const session = await connect(request, 'v4.channel.k8s.io');
      const head = Buffer.from([echo.port & 0xff, echo.port >> 8]).toString();
      session.socket.send(Buffer.from('\0hello'));
      await until(() => session.text(0) === `${head}hello`, 'the echo');
      assert.equal(session.text(1), head);
      session.socket.close();
      await session.closed;
      echo.close();
    });

    it('agrees to carry SPDY in a tunnel', async () => {
      const echo = await echoOnHost();
      const request: StreamingRequest = { kind: 'portforward', sandboxId: echo.sandboxId, ports: [] };
      assert.equal(await tunnelUpgrade(server.urlFor(request)), 'SPDY/3.1+portforward.k8s.io');
      echo.close();
    });

    it('refuses protocols it does not know', async () => {
      await assert.rejects(connect(shell('true'), 'v9.channel.k8s.io'), /403/);
    });
  });

  it('ends sessions in which nothing happens', async () => {
    const impatient = await serveStreaming({ ...options(), idleTimeoutMs: 300 });
    try {
      const url = (): string => impatient.urlFor(shell('sleep 4714'));
      const client = await spdyClient(url(), everyVersion);
      for (const streamtype of ['error', 'stdout', 'stderr']) client.open({ streamtype });
      const socket = new WebSocket(url().replace('http', 'ws'), 'v4.channel.k8s.io');
      await Promise.all([client.goodbye, new Promise((resolve) => socket.once('close', resolve))]);
      await until(async () => !(await running('4714')), 'the commands to be killed');
    } finally {
      await impatient.close();
    }
  });

  it('leaves nothing after 500 sessions, failed and abandoned ones among them', async () => {
    const shimPid = String(host.parts.registry.sandbox(pod).shim?.pid);
    const open500 = async (rounds: number): Promise<void> => {
      for (let round = 0; round < rounds; round++) {
        await Promise.all([
          open(shell('echo x')).then(finish),
          open(execRequest(['/no/such/program'])).then(finish),
          open(shell('sleep 4713')).then(({ client }) => client.close()),
          spdyClient(server.urlFor({ kind: 'portforward', sandboxId: pod, ports: [] }), ['portforward.k8s.io']).then(
            (client) => {
              client.open({ streamtype: 'error', port: '9', requestid: '1' });
              client.open({ streamtype: 'data', port: '9', requestid: '1' });
              client.close();
            },
          ),
          spdyClient(server.urlFor(shell('true')), everyVersion).then((client) => client.close()),
        ]);
      }
      await until(() => server.sessions === 0, 'every session to end');
      await until(async () => !(await running('4713')), 'abandoned commands to be killed');
    };
    const files = (pid: string): number => readdirSync(`/proc/${pid}/fd`).length;
    await open500(5);
    await until(() => files(shimPid) > 0, 'the shim');
    const before = [files('self'), files(shimPid)];
    await open500(100);
    const settled = (): boolean => files('self') <= (before[0] ?? 0) + 2 && files(shimPid) <= (before[1] ?? 0);
    await until(settled, `descriptors to be closed: ${before.join()} before, ${files('self')},${files(shimPid)} after`);
  });
});

/** The protocol that a server chooses for kubectl's tunnel. */
function tunnelUpgrade(url: string): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, {
      headers: {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': Buffer.alloc(16).toString('base64'),
        'sec-websocket-protocol': 'SPDY/3.1+portforward.k8s.io',
      },
    });
    request.on('error', reject);
    request.on('upgrade', (response, socket) => {
      socket.destroy();
      resolve(response.headers['sec-websocket-protocol']);
    });
    request.end();
  });
}
