import assert from 'node:assert/strict';
import { connect, createServer, type AddressInfo } from 'node:net';
import { isKind } from '../../kit/errors.js';
import { silentObserver } from '../../kit/observer.js';
import type { PortMapping } from '../model.js';
import type { NetworkRequest, PodNetwork } from './pod-network.js';
import { withPublishedPorts } from './published-ports.js';

const call = { signal: new AbortController().signal, observer: silentObserver };
const port = (hostPort: number, protocol: PortMapping['protocol'] = 'tcp'): PortMapping => ({
  protocol,
  hostPort,
  containerPort: 80,
  hostIp: '127.0.0.1',
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port: found } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return found;
}

/** What a client gets that says `hello` and then closes its side. */
const talk = (hostPort: number): Promise<string> =>
  new Promise((resolve, reject) => {
    const client = connect(hostPort, '127.0.0.1', () => client.end('hello'));
    let said = '';
    client.on('data', (data) => (said += data.toString()));
    client.on('error', reject).on('end', () => resolve(said));
  });

describe('host ports that the agent publishes', () => {
  const told: PortMapping[] = [];
  const inner = {
    attach: ({ portMappings }: NetworkRequest) => {
      told.push(...portMappings);
      return Promise.resolve({ ips: [], interfaceName: 'eth0', mac: '' });
    },
    detach: () => Promise.resolve(),
    reconcile: () => Promise.resolve(),
    close: () => Promise.resolve(),
  } as unknown as PodNetwork;
  const echo = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
  let network: PodNetwork;
  let wanted: readonly PortMapping[] = [];
  const dialled: string[] = [];

  before(async () => {
    await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve));
    network = withPublishedPorts(inner, {
      dial: (sandboxId, containerPort) => {
        dialled.push(`${sandboxId} ${containerPort}`);
        return Promise.resolve(connect({ port: (echo.address() as AddressInfo).port, allowHalfOpen: true }));
      },
      portsOf: () => wanted,
      note: () => undefined,
    });
  });
  after(() => void echo.close());
  afterEach(() => network.close());

  const attach = (...portMappings: PortMapping[]): Promise<unknown> =>
    network.attach({ sandboxId: 'pod', portMappings } as unknown as NetworkRequest, call);

  it('carry connections into the pod, half-closed ones too', async () => {
    const hostPort = await freePort();
    await attach(port(hostPort), port(0));
    assert.equal(await talk(hostPort), 'hello');
    assert.deepEqual(dialled.splice(0), ['pod 80']);
    assert.deepEqual(told, []);
  });

  it('go with the pod', async () => {
    const hostPort = await freePort();
    await attach(port(hostPort));
    await network.detach({ sandboxId: 'pod', netnsPath: '', pod: { name: '', namespace: '', uid: '' } }, call);
    await assert.rejects(talk(hostPort), /ECONNREFUSED/);
  });

  it('come back with a pod that outlived an agent', async () => {
    const hostPort = await freePort();
    wanted = [port(hostPort)];
    await network.reconcile(new Set(['old']), call);
    assert.equal(await talk(hostPort), 'hello');
    assert.deepEqual(dialled.splice(0), ['old 80']);
  });

  it('are refused when taken, and when they are not TCP, and leave nothing', async () => {
    const taken = (echo.address() as AddressInfo).port;
    const other = await freePort();
    await assert.rejects(attach(port(other), port(taken)), (error) => isKind(error, 'unavailable'));
    await assert.rejects(talk(other), /ECONNREFUSED/);
    await assert.rejects(attach(port(other, 'udp')), (error) => isKind(error, 'unimplemented'));
  });
});
