import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import type { ClientHttp2Session, OutgoingHttpHeaders } from 'node:http2';
import { connect } from 'node:net';
import { join } from 'node:path';
import { status as grpc } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';
import { VersionRequest, VersionResponse } from '../../api/cri/v1/generated/api.js';
import type { Call } from '../../src/kit/call.js';
import { RuntimeError, isKind } from '../../src/kit/errors.js';
import type { RequestOutcome, WatchRequest } from '../../src/cri/handler.js';
import { serveCri } from '../../src/cri/server.js';
import type { CriServer } from '../../src/cri/server.js';
import { containerView, fakeRuntime, scratchDirectory, serveFake } from './cri-fixtures.js';
import type { Served } from './cri-fixtures.js';

const identity = { name: 'berth', version: '0.1.0' };
const serveOn = (socketPath: string): Promise<CriServer> =>
  serveCri({ runtime: fakeRuntime().runtime, socketPath, identity });

const codeOf = async (work: Promise<unknown>): Promise<number> =>
  work.then(
    () => grpc.OK,
    (error: ServiceError) => error.code,
  );

/** Resolves when the caller's signal aborts, with its reason. */
const aborted = ({ signal }: Call): Promise<unknown> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve(signal.reason);
    else signal.addEventListener('abort', () => resolve(signal.reason), { once: true });
  });

describe('CRI server: socket', () => {
  let directory: ReturnType<typeof scratchDirectory>;
  const servers: CriServer[] = [];
  beforeEach(() => (directory = scratchDirectory()));
  afterEach(async () => {
    for (const server of servers.splice(0)) await server.close(100);
    directory.remove();
  });

  const path = (name = 'berth.sock'): string => join(directory.path, name);
  const serve = async (socketPath: string): Promise<CriServer> => {
    const server = await serveOn(socketPath);
    servers.push(server);
    return server;
  };
  const mode = (file: string): number => statSync(file).mode & 0o7777;

  it('is made 0600 in a directory made 0700', async () => {
    await serve(path('new/run/berth.sock'));
    assert.equal(mode(path('new/run')), 0o700);
    assert.equal(mode(path('new/run/berth.sock')), 0o600);
  });

  it('is refused in a directory that others can enter', async () => {
    chmodSync(directory.path, 0o755);
    await assert.rejects(serve(path()), /has mode 0755; others could reach the socket/);
  });

  it('replaces one that a killed process left behind', async () => {
    const leave = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
    assert.throws(() => execFileSync(process.execPath, ['-e', leave, path()]));
    assert.ok(existsSync(path()));
    await serve(path());
  });

  it('leaves a live one alone', async () => {
    await serve(path());
    await assert.rejects(
      serve(path()),
      (error) => isKind(error, 'already-exists') && /another process/.test(error.message),
    );
  });

  it('leaves a file alone', async () => {
    writeFileSync(path(), 'precious');
    await assert.rejects(serve(path()), /exists and is not a socket/);
  });

  it('needs an absolute path that fits into an address', async () => {
    await assert.rejects(serve('berth.sock'), /must be an absolute path/);
    await assert.rejects(serve(path('x'.repeat(110))), /is longer than 107 bytes/);
  });

  it('says why it cannot be had', async () => {
    mkdirSync(path('dir'), { mode: 0o700 });
    writeFileSync(path('dir/file'), '');
    await assert.rejects(serve(path('dir/file/berth.sock')), /prepare directory .*dir\/file: .*(ENOTDIR|EEXIST)/);
  });

  it('is gone after close', async () => {
    const server = await serveOn(path());
    await server.close(100);
    assert.ok(!existsSync(path()));
  });
});

describe('CRI server: connections', () => {
  let served: Served;
  before(async () => (served = await serveFake()));
  after(() => served.stop());

  const withHttp2 = async <T>(work: (session: ClientHttp2Session) => Promise<T>): Promise<T> => {
    const session = connectHttp2('http://localhost', { createConnection: () => connect(served.server.socketPath) });
    try {
      return await work(session);
    } finally {
      session.destroy();
    }
  };

  /** One Version call with the headers of an old Go client; returns the runtime's name. */
  const versionAs = async (
    session: ClientHttp2Session,
    authority: string,
    more: OutgoingHttpHeaders = {},
  ): Promise<string> => {
    const stream = session.request({
      ':method': 'POST',
      ':scheme': 'http',
      ':path': '/runtime.v1.RuntimeService/Version',
      ':authority': authority,
      'content-type': 'application/grpc',
      'user-agent': 'grpc-go/1.27.1',
      te: 'trailers',
      ...more,
    });
    const message = VersionRequest.encode({ version: 'v1' }).finish();
    const header = Buffer.alloc(5);
    header.writeUInt32BE(message.length, 1);
    stream.end(Buffer.concat([header, message]));
    const chunks: Buffer[] = [];
    for await (const chunk of stream) chunks.push(chunk as Buffer);
    return VersionResponse.decode(Buffer.concat(chunks).subarray(5)).runtimeName;
  };

  for (const authority of [
    '/run/berth/berth.sock',
    '%2Frun%2Fberth%2Fberth.sock',
    'localhost',
    '/^{`|"~/x.sock',
    'a/'.repeat(50),
  ]) {
    const legal = !/[\^{`|"]/.test(authority);
    it(`${legal ? 'accepts' : 'refuses, as HTTP/2 does,'} :authority ${authority.slice(0, 40)}`, () =>
      withHttp2(async (session) => {
        for (let round = 0; round < 3; round++) {
          const answer = versionAs(session, authority);
          if (legal) assert.equal(await answer, 'berth');
          else return assert.rejects(answer);
        }
      }));
  }

  it('accepts a path authority in a header block of several frames', () =>
    withHttp2(async (session) => {
      for (let round = 0; round < 3; round++) {
        const more = { 'x-long': `${round}`.repeat(40_000) };
        assert.equal(await versionAs(session, `/run/${round}/berth.sock`, more), 'berth');
      }
    }));

  it('survives what is no HTTP/2, and connections that end at once', async () => {
    for (const text of ['GET / HTTP/1.1\r\n\r\n', '', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', '\0'.repeat(1000)]) {
      const socket = connect(served.server.socketPath);
      socket.on('error', () => undefined);
      socket.resume().end(text);
      await once(socket, 'close');
    }
    assert.equal((await served.client.runtime.version()).runtimeName, 'berth');
  });

  it('takes and gives messages of 70 MiB, and refuses 90', async () => {
    const { fake, client } = served;
    const annotations = { big: 'x'.repeat(70 << 20) };
    const view = containerView('big');
    fake.containers.set('big', { ...view, config: { ...view.config, annotations } });
    const { containers } = await client.runtime.listContainers();
    assert.equal(containers[0]?.annotations['big']?.length, 70 << 20);
    fake.containers.clear();
    const config = { metadata: { name: 'big' }, image: { image: 'x' }, annotations };
    await client.runtime.createContainer({ podSandboxId: 'p', config });
    assert.equal(fake.containers.get('container-1')?.config.annotations['big'], annotations.big);
    fake.containers.clear();
    const bigger = { ...config, annotations: { big: 'x'.repeat(90 << 20) } };
    const code = await codeOf(client.runtime.createContainer({ podSandboxId: 'p', config: bigger }));
    assert.ok(code === grpc.RESOURCE_EXHAUSTED || code === grpc.INTERNAL, String(code));
    assert.equal(fake.containers.size, 0);
  });
});

describe('CRI server: requests', () => {
  interface Logged {
    readonly level: string;
    readonly message: string;
    readonly facts: Readonly<Record<string, unknown>> | undefined;
  }
  const logged: Logged[] = [];
  const outcomes: (RequestOutcome & { readonly method: string })[] = [];
  const watch: WatchRequest = (method) => ({
    observer: {
      step: async (_name, work) => await work(),
      note: (level, message, facts) => void logged.push({ level, message, facts }),
    },
    end: (outcome) => void outcomes.push({ method, ...outcome }),
  });
  let served: Served;
  beforeEach(async () => {
    logged.length = 0;
    outcomes.length = 0;
    served = await serveFake({ watch });
  });
  afterEach(() => served.stop());

  it('tell the runtime when the client gives up', async () => {
    const { fake, client, server } = served;
    const giveUp = new AbortController();
    let reason: unknown;
    const told = new Promise<void>((resolve) => {
      fake.interfere = async (_what, call) => {
        giveUp.abort();
        reason = await aborted(call);
        assert.match(server.inflight.list()[0]?.abandoned ?? '', /the caller went away/);
        resolve();
        throw reason;
      };
    });
    assert.equal(
      await codeOf(client.runtime.stopContainer({ containerId: 'c' }, { signal: giveUp.signal })),
      grpc.CANCELLED,
    );
    await told;
    assert.ok(isKind(reason, 'cancelled'));
    await server.inflight.idle();
    assert.deepEqual(
      outcomes.map(({ method, codeName }) => [method, codeName]),
      [['StopContainer', 'CANCELLED']],
    );
  });

  it('tell the runtime when their time is up', async () => {
    const { fake, client, server } = served;
    let reason: unknown;
    fake.interfere = async (_what, call) => {
      reason = await aborted(call);
      throw reason;
    };
    const code = await codeOf(client.runtime.stopContainer({ containerId: 'c' }, { timeoutMs: 50 }));
    assert.equal(code, grpc.DEADLINE_EXCEEDED);
    await server.inflight.idle();
    assert.ok(isKind(reason, 'deadline'), String(reason));
  });

  it('are listed while they are worked on', async () => {
    const { fake, client, server } = served;
    let listed: unknown;
    fake.interfere = () => {
      listed = server.inflight.list().map(({ method, subject, abandoned }) => ({ method, subject, abandoned }));
    };
    await client.runtime.stopContainer({ containerId: 'c', timeout: 3n });
    assert.deepEqual(listed, [
      { method: 'StopContainer', subject: { container: 'c', timeout: '3' }, abandoned: undefined },
    ]);
    assert.deepEqual(server.inflight.list(), []);
  });

  it('leave one line each when they change something, without secrets', async () => {
    const { client, fake } = served;
    const auth = {
      username: 'me',
      password: 'hunter2',
      auth: 'aHVudGVyMg==',
      identityToken: 'hunter3',
      registryToken: 'hunter4',
    };
    await client.images.pullImage({ image: { image: 'example.org/x' }, auth });
    fake.interfere = () => {
      throw new RuntimeError('unavailable', 'GET https://me:hunter2@example.org/v2/?sig=hunter5: reset');
    };
    await codeOf(client.images.pullImage({ image: { image: 'example.org/x' }, auth }));
    await client.runtime.version();
    assert.deepEqual(
      logged.map(({ level, message, facts }) => [level, message, facts?.['image'], facts?.['code']]),
      [
        ['info', 'PullImage', 'example.org/x', 'OK'],
        ['warn', 'PullImage: GET https://redacted@example.org/v2/?redacted: reset', 'example.org/x', 'UNAVAILABLE'],
      ],
    );
    assert.doesNotMatch(JSON.stringify(logged), /hunter|aHVud/);
    assert.equal(outcomes.length, 3);
    assert.ok(outcomes.every(({ milliseconds }) => milliseconds >= 0));
  });

  it('finish before a graceful close does', async () => {
    const { fake, client, server } = served;
    let release = (): void => undefined;
    const begun = new Promise<void>((resolve) => {
      fake.interfere = () => {
        resolve();
        return new Promise((done) => (release = done));
      };
    });
    const answer = codeOf(client.runtime.stopContainer({ containerId: 'c' }));
    await begun;
    const closed = server.close(60_000);
    release();
    assert.equal(await answer, grpc.OK);
    client.close();
    await closed;
  });

  it('are told to stop when the grace time is over, and can say so', async () => {
    const { fake, client, server } = served;
    const begun = new Promise<void>((resolve) => {
      fake.interfere = async (_what, call) => {
        resolve();
        throw await aborted(call);
      };
    });
    const answer = codeOf(client.runtime.stopContainer({ containerId: 'c' }));
    await begun;
    await server.close(20);
    assert.equal(await answer, grpc.UNAVAILABLE);
  });

  it('that do not stop lose their connection', async () => {
    const { fake, client, server } = served;
    let release = (): void => undefined;
    const begun = new Promise<void>((resolve) => {
      fake.interfere = () => {
        resolve();
        return new Promise((done) => (release = done));
      };
    });
    const answer = codeOf(client.runtime.stopContainer({ containerId: 'c' }));
    await begun;
    await server.close(20);
    assert.notEqual(await answer, grpc.OK);
    assert.equal(server.inflight.list().length, 1);
    release();
    await server.inflight.idle();
  });

  it('of two servers do not meet', async () => {
    const other = await serveFake();
    await other.client.runtime.stopContainer({ containerId: 'c' });
    assert.equal(logged.length, 0);
    await other.stop();
  });
});
