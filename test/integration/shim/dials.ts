import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { isKind } from '../../../src/kit/errors.js';
import { containerPlan, joinPlan, newCall, openFiles, until, type Bench } from '../shim-harness.js';

/** Connections into the pod's network, and commands that somebody sits at. */
export function dialsSuite(current: () => Bench): void {
  let bench: Bench;
  beforeEach(() => (bench = current()));

  const listen = async (host: string, serve: (socket: Socket) => void): Promise<Server> => {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => socket.destroy());
      serve(socket);
    });
    server.listen(0, host);
    await once(server, 'listening');
    return server;
  };
  const portOf = (server: Server): number => (server.address() as AddressInfo).port;

  describe('dial', () => {
    it('carries bytes both ways, and each side’s end', async () => {
      for (const host of ['127.0.0.1', '::1']) {
        const server = await listen(host, (socket) => socket.pipe(socket));
        const socket = await bench.shim.dial(portOf(server), newCall());
        const sent = Buffer.alloc(3_000_000, 7);
        socket.end(sent);
        const chunks = (await socket.toArray()) as Buffer[];
        assert.ok(Buffer.concat(chunks).equals(sent));
        server.close();
      }
    });

    it('keeps what the server says at once', async () => {
      const server = await listen('127.0.0.1', (socket) => socket.end('220 ready'));
      for (let i = 0; i < 20; i++) {
        const socket = await bench.shim.dial(portOf(server), newCall());
        socket.end();
        assert.equal(Buffer.concat((await socket.toArray()) as Buffer[]).toString(), '220 ready');
      }
      server.close();
    });

    it('takes hundreds of connections at once', async () => {
      const server = await listen('127.0.0.1', (socket) => socket.end('x'));
      const sockets = await Promise.all(Array.from({ length: 300 }, () => bench.shim.dial(portOf(server), newCall())));
      for (const socket of sockets) {
        socket.end();
        assert.equal(Buffer.concat((await socket.toArray()) as Buffer[]).toString(), 'x');
      }
      server.close();
    });

    it('says why there is no connection', async () => {
      const server = await listen('127.0.0.1', () => undefined);
      const port = portOf(server);
      server.close();
      await once(server, 'close');
      await assert.rejects(
        bench.shim.dial(port, newCall()),
        (error) => isKind(error, 'unavailable') && /ECONNREFUSED/.test(String(error)),
      );
    });

    it('holds nothing after either side has gone, in whichever way', async () => {
      const ends: ((socket: Socket) => void)[] = [
        (socket) => socket.destroy(),
        (socket) => socket.resetAndDestroy(),
        (socket) => void socket.end(),
        (socket) => void socket.resume(),
      ];
      const before = openFiles(bench.shim.pid);
      for (const end of ends) {
        const accepted: Socket[] = [];
        const server = await listen('127.0.0.1', (socket) => {
          accepted.push(socket);
          end(socket);
        });
        // A reset may come before the connection was seen to stand: then it is the answer.
        const dials = Array.from({ length: 10 }, () =>
          bench.shim.dial(portOf(server), newCall()).catch((error: unknown) => {
            if (!/ECONNRESET/.test(String(error))) throw error;
            return undefined;
          }),
        );
        const sockets = (await Promise.all(dials)).filter((socket) => socket !== undefined);
        for (const socket of sockets) {
          socket.on('error', () => undefined);
          socket.write('x');
          socket.destroy();
        }
        await until(() => accepted.length === 10, 'the server to accept');
        for (const socket of accepted) socket.destroy();
        server.close();
        await until(() => openFiles(bench.shim.pid) <= before, 'descriptors to be closed');
      }
    });

    it('makes a fast sender wait for a slow reader', async () => {
      const server = await listen('127.0.0.1', (socket) => socket.resume());
      let sent = 0;
      server.on('connection', (socket) => {
        const more = (): void => {
          while (sent < 50_000_000 && socket.write(Buffer.alloc(100_000))) sent += 100_000;
        };
        socket.on('drain', more);
        more();
      });
      const socket = await bench.shim.dial(portOf(server), newCall());
      await until(() => sent > 0, 'the first bytes');
      await new Promise((resolve) => setTimeout(resolve, 200));
      assert.ok(sent < 50_000_000);
      socket.destroy();
      server.close();
    });
  });

  describe('streamed exec', () => {
    beforeEach(() => bench.start('c', containerPlan(['/bin/sleep', '1000'])));
    const open = (script: string, change: { stdin?: boolean; terminal?: boolean } = {}) =>
      bench.shim.exec(
        {
          containerId: 'c',
          plan: joinPlan(
            'c',
            ['/bin/sh', '-c', script],
            [{ op: 'session', terminal: change.terminal ?? false, console: false }],
          ),
          stdin: change.stdin ?? false,
          terminal: change.terminal ?? false,
          drainMs: 1000,
        },
        newCall(),
      );
    const collect = (streams: Awaited<ReturnType<typeof open>>): string[] => {
      const seen: string[] = [];
      streams.onOutput((stream, data) => seen.push(`${stream} ${Buffer.from(data).toString()}`));
      return seen;
    };

    it('takes input, passes output on and ends with the exit code', async () => {
      const streams = await open('cat; echo err >&2; exit 9', { stdin: true });
      const seen = collect(streams);
      await streams.write(Buffer.from('hello'));
      streams.end();
      assert.equal(await streams.exited, 9);
      assert.deepEqual(seen.sort(), ['stderr err\n', 'stdout hello']);
      streams.close();
    });

    it('has a terminal whose size may change', async () => {
      const streams = await open('read x; stty size', { stdin: true, terminal: true });
      const seen = collect(streams);
      await streams.resize(44, 111);
      await streams.write(Buffer.from('\n'));
      assert.equal(await streams.exited, 0);
      assert.match(seen.join(''), /44 111/);
      streams.close();
    });

    it('changes the size while input waits for the program', async () => {
      const streams = await open('trap "stty size; exit" WINCH; stty -icanon; echo on; while :; do sleep 0.05; done', {
        stdin: true,
        terminal: true,
      });
      const seen = collect(streams);
      await until(() => seen.join('').includes('on'), 'the program');
      void streams.write(Buffer.alloc(200_000, 'x')).catch(() => undefined);
      await streams.resize(45, 112);
      await streams.exited;
      assert.match(seen.join(''), /45 112/);
      streams.close();
    });

    it('keeps input in its order, and its end behind it', async () => {
      const streams = await open('sleep 0.1; wc -c', { stdin: true });
      const seen = collect(streams);
      const writes = [1, 2, 3].map(() => streams.write(Buffer.alloc(60_000)));
      streams.end();
      await Promise.all(writes);
      assert.equal(await streams.exited, 0);
      assert.match(seen.join(''), /180000/);
      streams.close();
    });

    it('waits while nobody reads, and loses nothing', async () => {
      const streams = await open('head -c 20000000 /dev/zero');
      let bytes = 0;
      streams.pause();
      streams.onOutput((_stream, data) => (bytes += data.length));
      await new Promise((resolve) => setTimeout(resolve, 200));
      const ended = await Promise.race([streams.exited.then(() => true), Promise.resolve(false)]);
      assert.equal(ended, false);
      streams.resume();
      assert.equal(await streams.exited, 0);
      assert.equal(bytes, 20_000_000);
      streams.close();
    });

    it('is killed with its tree when its connection ends, also while its input is stuck', async () => {
      const before = openFiles(bench.shim.pid);
      for (const stuck of [false, true]) {
        const streams = await open('echo $$; sleep 5001 & sleep 5002', { stdin: stuck });
        const seen = collect(streams);
        if (stuck) void streams.write(Buffer.alloc(1_000_000)).catch(() => undefined);
        await until(() => seen.length > 0, 'the program');
        streams.close();
        await assert.rejects(streams.exited, (error) => isKind(error, 'unavailable'));
        await until(() => openFiles(bench.shim.pid) <= before, 'descriptors to be closed');
      }
      const left = await bench.exec('c', ['/bin/sh', '-c', 'ps -eo args || true']);
      assert.doesNotMatch(Buffer.from(left.stdout).toString(), /sleep 500[12]/);
    });
  });
}
