/**
 * Host ports without rights over the host's network: the agent itself listens on them and carries each connection into
 * the pod. They rest while no agent runs.
 */
import { createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { asRuntimeError, messageOf, RuntimeError } from '../../kit/errors.js';
import type { Observer } from '../../kit/observer.js';
import type { PortMapping } from '../model.js';
import type { PodNetwork } from './pod-network.js';

export interface PublishedPortsDeps {
  /** A connection to a port of the pod, as its own loopback has it. */
  readonly dial: (sandboxId: string, port: number) => Promise<Duplex>;
  /** Of a pod that outlived an agent. */
  readonly portsOf: (sandboxId: string) => readonly PortMapping[];
  readonly note: Observer['note'];
}

/** A network whose host ports are published by this process; it is never told of any itself. */
export function withPublishedPorts(network: PodNetwork, { dial, portsOf, note }: PublishedPortsDeps): PodNetwork {
  const servers = new Map<string, readonly Server[]>();
  const withdraw = (sandboxId: string): void => {
    for (const server of servers.get(sandboxId) ?? []) server.close();
    servers.delete(sandboxId);
  };
  const publish = async (sandboxId: string, ports: readonly PortMapping[]): Promise<void> => {
    withdraw(sandboxId);
    const made: Server[] = [];
    servers.set(sandboxId, made);
    try {
      for (const port of ports.filter(({ hostPort }) => hostPort > 0)) {
        made.push(await listen(port, (client) => void carry(client, () => dial(sandboxId, port.containerPort))));
      }
    } catch (error) {
      withdraw(sandboxId);
      throw asRuntimeError(error, 'publish host ports');
    }
  };
  return {
    ...network,
    async attach(pod, call) {
      const result = await network.attach({ ...pod, portMappings: [] }, call);
      await publish(pod.sandboxId, pod.portMappings);
      return result;
    },
    async detach(pod, call) {
      withdraw(pod.sandboxId);
      await network.detach(pod, call);
    },
    async reconcile(live, call) {
      await network.reconcile(live, call);
      for (const id of servers.keys()) if (!live.has(id)) withdraw(id);
      for (const id of live) {
        if (servers.has(id)) continue;
        await publish(id, portsOf(id)).catch((error: unknown) => note('error', messageOf(error), { sandbox: id }));
      }
    },
    async close() {
      for (const id of [...servers.keys()]) withdraw(id);
      await network.close();
    },
  };
}

function listen(port: PortMapping, onClient: (client: Socket) => void): Promise<Server> {
  const { protocol, hostPort, hostIp } = port;
  if (protocol !== 'tcp') {
    const reason = `host port ${hostPort}/${protocol}: only TCP ports can be published without root`;
    return Promise.reject(new RuntimeError('unimplemented', reason));
  }
  const server = createServer({ allowHalfOpen: true }, onClient);
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(new RuntimeError('unavailable', `listen on host port ${hostPort}: ${messageOf(error)}`, { cause: error })),
    );
    server.listen(hostPort, hostIp === undefined || hostIp === '' ? undefined : hostIp, () => {
      // A port keeps the process alive no more than its pod does.
      server.unref();
      server.on('error', () => undefined);
      resolve(server);
    });
  });
}

async function carry(client: Socket, dial: () => Promise<Duplex>): Promise<void> {
  client.on('error', () => client.destroy());
  try {
    const pod = await dial();
    pod.on('error', () => client.destroy());
    if (client.destroyed) return void pod.destroy();
    client.on('close', () => pod.destroy());
    client.pipe(pod).pipe(client);
  } catch {
    client.resetAndDestroy(); // nobody listens in the pod
  }
}
