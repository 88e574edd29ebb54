/**
 * The network pods get when no CNI configuration exists: a bridge with the pods' veth cables, addresses from a subnet
 * of the node, masquerading to the outside and host ports, all made with netlink messages. Nothing is executed.
 *
 * The agent sends what is meant for the host's network namespace; what is meant for the pod's is sent by the pod's
 * shim (`NetworkRequest.netlink`), because entering a namespace would change a thread of the agent.
 *
 * Invariant: what a sandbox holds is on record before the kernel hears of it, so no crash leaks an address.
 */
import { closeSync, openSync } from 'node:fs';
import { RuntimeError, asRuntimeError, isErrno, messageOf } from '../../kit/errors.js';
import { throwIfCancelled } from '../../kit/deadline.js';
import { KeyedLock } from '../../kit/keyed-lock.js';
import type { Call } from '../../kit/call.js';
import type { Netlink, NetlinkSocket } from '../../native/netlink/netlink.js';
import { type AddressPool, createAddressPool } from './addresses.js';
import { type Attachment, checkAttachment, linkName, linkPrefix } from './attachment.js';
import {
  type Bridge,
  ensureBridge,
  findBridge,
  findLink,
  listPorts,
  macFor,
  removeBridge,
  removeLink,
} from './bridge.js';
import { type HostRules, createHostRules } from './host-rules.js';
import { formatIp, formatPrefix, parseIp, parsePrefix } from './ip.js';
import { podSideSteps } from './pod-side.js';
import { publishedPorts, refuseTakenPorts } from './port-table.js';
import {
  type NetworkRequest,
  type NetworkResult,
  type NetworkStatus,
  type PodNetwork,
  interfaceName,
  networkReady,
} from './pod-network.js';
import { openRecords } from './records.js';

export interface BuiltinOptions {
  /** Name of the bridge and of the nf_tables tables. */
  readonly bridge: string;
  readonly table: string;
  /** One per IP family; the first is the family of a pod's primary address. */
  readonly subnets: readonly string[];
  /** Whether pods leave the node with its address; false where the network routes the subnets. */
  readonly masquerade: boolean;
  /** Bytes; absent: the smallest of the node's network cards. */
  readonly mtu?: number;
  /** Where attachments are on record; below /run, as pods do not survive a reboot. */
  readonly stateDirectory: string;
  /** Milliseconds that bridge and rules stay after the last pod, so that a node with one pod at a time is not slow. */
  readonly lingerMs: number;
  /**
   * Milliseconds that a detached pod's interface has to go with its namespace before it is removed by hand. Removal
   * holds the kernel's one lock for all interfaces for 15 ms; namespaces that end do it in bulk.
   */
  readonly settleMs: number;
}

export const builtinDefaults = {
  bridge: 'berth0',
  table: 'berth',
  subnets: ['10.199.0.0/16'],
  masquerade: true,
  lingerMs: 5_000,
  settleMs: 1_000,
} as const;

export interface BuiltinDeps {
  readonly netlink: Netlink;
  /** A socket in the network namespace of the host. */
  readonly openNetlink: (protocol: number) => NetlinkSocket;
  /** Sets a kernel parameter by its path below /proc/sys. */
  readonly writeSysctl: (path: string, value: string) => void;
  readonly note: Call['observer']['note'];
}

export interface BuiltinNetwork extends PodNetwork {
  /** True when the sandbox's network is this one's to detach. */
  has(sandboxId: string): boolean;
  /** Removes bridge, rules and whatever pods still hold. */
  teardown(): Promise<void>;
}

/** Throws `invalid-argument` for subnets that cannot be used. Touches the kernel only when a pod comes. */
export function createBuiltinNetwork(options: BuiltinOptions, deps: BuiltinDeps): BuiltinNetwork {
  const { netlink, note } = deps;
  const pools = poolsOf(options.subnets);
  const records = openRecords(options.stateDirectory, checkAttachment, (message) => note('error', message));
  const attachments = new Map<string, Attachment>();
  for (const id of records.ids()) {
    const record = records.get(id);
    if (record !== undefined) attachments.set(id, record);
  }
  for (const { ips } of attachments.values())
    for (const ip of ips) eachPool(pools, ip, (pool, bytes) => pool.reserve(bytes));

  const route = deps.openNetlink(netlink.rtnetlink.NETLINK_ROUTE);
  const rules: HostRules = createHostRules(
    { ...options, subnets: pools.map((pool) => pool.prefix) },
    { ...deps, published: () => [...attachments.values()].filter((a) => !a.leaving).flatMap((a) => a.ports) },
  );
  const sandboxLock = new KeyedLock();
  const bridgeLock = new KeyedLock();
  const timers = new Set<NodeJS.Timeout>();
  let bridge: Bridge | undefined;
  let trouble: NetworkStatus = networkReady;

  /** Makes bridge and rules unless they are there, and keeps them from being removed by putting a pod on record. */
  const admit = (request: NetworkRequest): Promise<{ attachment: Attachment; bridge: Bridge }> =>
    bridgeLock.hold('bridge', async () => {
      try {
        const shape = {
          name: options.bridge,
          subnets: pools,
          ...(options.mtu === undefined ? {} : { mtu: options.mtu }),
        };
        const ready = (bridge ??= await ensureBridge(netlink, route.send, shape));
        await rules.ensure();
        trouble = networkReady;
        return { attachment: reserve(request), bridge: ready };
      } catch (error) {
        if (error instanceof RuntimeError && error.kind !== 'unavailable') throw error;
        trouble = { ready: false, reason: 'BuiltinNetworkFailed', message: messageOf(error) };
        throw error;
      }
    });

  const reserve = (request: NetworkRequest): Attachment => {
    const addresses: Uint8Array[] = [];
    try {
      for (const pool of pools) addresses.push(pool.allocate());
      const ips = addresses.map(formatIp);
      const ports = publishedPorts(request.portMappings, ips);
      refuseTakenPorts(
        ports,
        [...attachments.values()].filter((a) => !a.leaving),
      );
      const { sandboxId, pod } = request;
      const mac = netlink.rtnetlink.formatMac(macFor(addresses[0] ?? new Uint8Array(4)));
      const link = linkName(options.bridge, sandboxId);
      const attachment = { version: 1, sandboxId, pod, link, ips, mac, ports, leaving: false } as const;
      save(attachment);
      return attachment;
    } catch (error) {
      for (const address of addresses) eachPool(pools, formatIp(address), (pool) => pool.free(address));
      throw error;
    }
  };

  const save = (attachment: Attachment): void => {
    records.put(attachment.sandboxId, attachment);
    attachments.set(attachment.sandboxId, attachment);
  };

  /** Resolves with the index of `eth0` in the pod. */
  const plugCable = async (
    request: NetworkRequest,
    attachment: Attachment,
    index: number,
    mtu: number,
  ): Promise<number> => {
    const fd = openSync(request.netnsPath, 'r');
    try {
      const mac = macFor(parseIp(attachment.ips[0] ?? '') ?? new Uint8Array(4));
      const peer = { name: interfaceName, netnsFd: fd, mac };
      const { link } = attachment;
      const message = netlink.rtnetlink.newVeth({ name: link, masterIndex: index, mtu, peer });
      const create = { doing: `create veth pair ${link}`, message };
      const find = { doing: `look for ${link}`, message: netlink.rtnetlink.getLink({ name: link }) };
      // A pod that calls its own host port gets its frame back on the port it came from, when bridges are filtered.
      const hairpin = { doing: `set hairpin mode of ${link}`, message: netlink.rtnetlink.setHairpin({ name: link }) };
      const steps = attachment.ports.length > 0 ? [create, hairpin, find] : [create, find];
      return netlink.rtnetlink.decodeLinks(await netlink.exchange(route.send, steps))[0]?.peer ?? 0;
    } finally {
      closeSync(fd);
    }
  };

  /** As `plugCable`; when the bridge was removed behind our back it is made again, once. */
  const plugCableSurely = async (request: NetworkRequest, attachment: Attachment, at: Bridge): Promise<number> => {
    try {
      return await plugCable(request, attachment, at.index, at.mtu);
    } catch (error) {
      const found = await findBridge(netlink, route.send, options.bridge);
      if (found?.index === at.index) throw error;
      const shape = { name: options.bridge, subnets: pools, mtu: at.mtu };
      const again = await bridgeLock.hold(
        'bridge',
        async () => (bridge = await ensureBridge(netlink, route.send, shape)),
      );
      note('warn', `bridge ${options.bridge} was gone and has been made again`);
      return plugCable(request, attachment, again.index, again.mtu);
    }
  };

  const configurePod = async (request: NetworkRequest, attachment: Attachment, index: number): Promise<void> => {
    const addresses = attachment.ips.flatMap((ip) => {
      const address = parseIp(ip);
      const pool = pools.find((candidate) => candidate.prefix.family === (ip.includes(':') ? 6 : 4));
      if (address === undefined || pool === undefined) return [];
      return [{ address, prefixLength: pool.prefix.length, gateway: pool.gateway }];
    });
    await netlink.exchange(request.netlink, podSideSteps(netlink, index, addresses));
  };

  /** Withdraws ports and marks the attachment; interface and address follow in `settle`. */
  const leave = async (attachment: Attachment): Promise<void> => {
    await rules.withdraw(attachment.ports);
    save({ ...attachment, ports: [], leaving: true });
  };

  /** Makes sure that the interface is gone; only then may another pod get the address. */
  const settle = (sandboxId: string): Promise<void> =>
    sandboxLock.hold(sandboxId, async () => {
      const attachment = attachments.get(sandboxId);
      if (attachment?.leaving !== true) return;
      await removeLink(netlink, route.send, attachment.link);
      for (const ip of attachment.ips) eachPool(pools, ip, (pool, bytes) => pool.free(bytes));
      records.delete(sandboxId);
      attachments.delete(sandboxId);
      if (attachments.size > 0) return;
      if (options.lingerMs === 0) return removeIfUnused();
      later(options.lingerMs, removeIfUnused);
    });

  const removeIfUnused = (): Promise<void> =>
    bridgeLock.hold('bridge', async () => {
      if (attachments.size === 0) await removeAll();
    });

  const removeAll = async (): Promise<void> => {
    bridge = undefined;
    await rules.remove();
    await removeBridge(netlink, route.send, options.bridge);
  };

  const later = (ms: number, work: () => Promise<void>): void => {
    const timer = setTimeout(() => {
      timers.delete(timer);
      work().catch((error: unknown) => note('warn', `built-in network: ${messageOf(error)}`));
    }, ms);
    timers.add(timer);
    timer.unref();
  };

  const settleAll = async (): Promise<void> => {
    for (const { sandboxId, leaving } of [...attachments.values()]) if (leaving) await settle(sandboxId);
  };

  const network: BuiltinNetwork = {
    async attach(request, call) {
      await network.detach(request, call);
      await settle(request.sandboxId);
      return sandboxLock.hold(request.sandboxId, async () => {
        const { step } = call.observer;
        const { attachment, bridge: at } = await step('reserve address', () => admit(request));
        throwIfCancelled(call.signal, 'attach network');
        const cable = step('create veth pair', () => plugCableSurely(request, attachment, at));
        const index = await inWords('create veth pair', cable);
        await inWords(
          'configure pod network',
          Promise.all([
            step('configure pod interface', () => configurePod(request, attachment, index)),
            step('publish host ports', () => rules.publish(attachment.ports)),
          ]),
        );
        return resultOf(attachment);
      });
    },
    async detach({ sandboxId }) {
      await sandboxLock.hold(sandboxId, async () => {
        const attachment = attachments.get(sandboxId);
        if (attachment !== undefined && !attachment.leaving) await inWords('detach network', leave(attachment));
      });
      if (options.settleMs === 0) await inWords('detach network', settle(sandboxId));
      else if (attachments.has(sandboxId)) later(options.settleMs, () => settle(sandboxId));
    },
    async check({ sandboxId }) {
      const attachment = attachments.get(sandboxId);
      if (attachment === undefined) throw new RuntimeError('not-found', `sandbox ${sandboxId} has no network`);
      const link = await findLink(netlink, route.send, attachment.link);
      if (link !== undefined && link.up && link.master !== 0) return;
      throw new RuntimeError(
        'unavailable',
        `interface ${attachment.link} of sandbox ${sandboxId} is gone or unplugged`,
      );
    },
    async reconcile(live, call) {
      for (const { sandboxId } of [...attachments.values()])
        if (!live.has(sandboxId)) await network.detach({ sandboxId, netnsPath: '', pod: noPod }, call);
      await settleAll();
      const known = new Set([...attachments.values()].map((attachment) => attachment.link));
      for (const port of await listPorts(netlink, route.send, options.bridge)) {
        if (port.startsWith(linkPrefix) && !known.has(port)) await removeLink(netlink, route.send, port);
      }
      await removeIfUnused();
    },
    status: () => trouble,
    info: () => ({
      kind: 'builtin',
      bridge: options.bridge,
      subnets: pools.map((pool) => formatPrefix(pool.prefix)),
      pods: attachments.size,
    }),
    has: (sandboxId) => attachments.get(sandboxId)?.leaving === false,
    async teardown() {
      for (const attachment of [...attachments.values()]) {
        if (!attachment.leaving) await sandboxLock.hold(attachment.sandboxId, () => leave(attachment));
      }
      await settleAll();
      await bridgeLock.hold('bridge', removeAll);
    },
    async close() {
      for (const timer of timers) clearTimeout(timer);
      try {
        await settleAll();
        if (bridge !== undefined) await removeIfUnused();
      } catch (error) {
        note('warn', `built-in network: ${messageOf(error)}`);
      }
      route.close();
      rules.close();
    },
  };
  return network;
}

const noPod = { name: '', namespace: '', uid: '' };

const resultOf = ({ ips, mac, link }: Attachment): NetworkResult => ({
  ips,
  interfaceName,
  mac,
  raw: { hostInterface: link },
});

function poolsOf(subnets: readonly string[]): AddressPool[] {
  const pools = subnets.map((subnet) => createAddressPool(parsePrefix(subnet, 'subnet'), 'subnet'));
  const families = new Set(pools.map((pool) => pool.prefix.family));
  if (pools.length === 0 || families.size < pools.length) {
    throw new RuntimeError('invalid-argument', 'subnets: want one per IP family, and at least one');
  }
  return pools;
}

function eachPool(
  pools: readonly AddressPool[],
  ip: string,
  use: (pool: AddressPool, address: Uint8Array) => void,
): void {
  const address = parseIp(ip);
  if (address !== undefined) for (const pool of pools) use(pool, address);
}

/** Kernel refusals become `unavailable`: the pod may be tried again, and the words say which step it was. */
async function inWords<T>(doing: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof RuntimeError) throw error;
    if (isErrno(error, 'ENOENT'))
      throw new RuntimeError('unavailable', `${doing}: ${messageOf(error)}`, { cause: error });
    throw asRuntimeError(error, doing);
  }
}
