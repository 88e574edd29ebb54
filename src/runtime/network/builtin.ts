/**
 * The network pods get when no CNI configuration exists: a bridge with the pods' veth cables, addresses from a subnet
 * of the node, masquerading to the outside and host ports, all made with netlink messages. Nothing is executed.
 *
 * The agent sends what is meant for the host's network namespace; what is meant for the pod's is sent by the pod's
 * shim (`NetworkRequest.netlink`), because entering a namespace would change a thread of the agent.
 *
 * Changes to the host: the bridge, one nf_tables table per IP family, net.ipv4.ip_forward (and
 * net.ipv6.conf.all.forwarding with an IPv6 subnet), and net.ipv4.conf.BRIDGE.route_localnet with the first host port.
 * Forwarding stays on when the rest is removed: others may rely on it by then.
 */
import { RuntimeError, asRuntimeError, messageOf } from '../../kit/errors.js';
import { throwIfCancelled } from '../../kit/deadline.js';
import { KeyedLock } from '../../kit/keyed-lock.js';
import type { Call } from '../../kit/call.js';
import type { Netlink, NetlinkSocket } from '../../native/netlink/netlink.js';
import { type Attachment, linkPrefix } from './attachment.js';
import { bandwidthOf } from './bandwidth.js';
import { type Bridge, ensureBridge, findBridge, findLink, listPorts, removeBridge, removeLink } from './bridge.js';
import { configurePod, plugCable, podMac } from './cable.js';
import { createHostRules } from './host-rules.js';
import { formatPrefix } from './ip.js';
import { openLedger } from './ledger.js';
import {
  type NetworkRequest,
  type NetworkStatus,
  type PodNetwork,
  interfaceName,
  networkReady,
} from './pod-network.js';

export interface BuiltinOptions {
  readonly bridge: string;
  /** Name of the nf_tables tables; not shared with another bridge. */
  readonly table: string;
  /** One per IP family; the first is the family of a pod's primary address. */
  readonly subnets: readonly string[];
  /** Whether pods leave the node with its address; false where the network routes the subnets. */
  readonly masquerade: boolean;
  /** Bytes; absent: the smallest of the node's network cards. */
  readonly mtu?: number;
  /** Where attachments are on record; need not survive a reboot, as pods do not. */
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
  const ledger = openLedger(options, (message) => note('error', message));
  const subnets = ledger.pools.map((pool) => pool.prefix);
  const openNetlink = (protocol: number): NetlinkSocket => atFirstUse(() => deps.openNetlink(protocol));
  const route = openNetlink(netlink.rtnetlink.NETLINK_ROUTE);
  const rules = createHostRules({ ...options, subnets }, { ...deps, openNetlink, published: () => ledger.published() });
  const perSandbox = new KeyedLock();
  const hostSide = new KeyedLock();
  const later = createAlarms((error) => note('warn', `built-in network: ${messageOf(error)}`));
  let bridge: Bridge | undefined;
  let status: NetworkStatus = networkReady;

  const makeBridge = async (): Promise<Bridge> => {
    const { mtu } = options;
    const shape = { name: options.bridge, subnets: ledger.pools, ...(mtu === undefined ? {} : { mtu }) };
    return (bridge = await ensureBridge(netlink, route.send, shape));
  };

  /** Makes bridge and rules unless they are there; the entry in the ledger then keeps them from being removed. */
  const admit = (request: NetworkRequest): Promise<{ attachment: Attachment; bridge: Bridge }> =>
    hostSide.hold('host', async () => {
      try {
        const ready = bridge ?? (await makeBridge());
        await rules.ensure();
        status = networkReady;
        return { attachment: ledger.enter(request), bridge: ready };
      } catch (error) {
        if (error instanceof RuntimeError && error.kind !== 'unavailable') throw error;
        status = { ready: false, reason: 'BuiltinNetworkFailed', message: messageOf(error) };
        throw error;
      }
    });

  /** A bridge that was removed behind our back is made again, once. */
  const plug = async (netnsPath: string, attachment: Attachment, to: Bridge): Promise<number> => {
    try {
      return await plugCable(netlink, route.send, { netnsPath, attachment, bridge: to });
    } catch (error) {
      const found = await findBridge(netlink, route.send, options.bridge);
      if (found?.index === to.index) throw error;
      const again = await hostSide.hold('host', makeBridge);
      note('warn', `bridge ${options.bridge} was gone and has been made again`);
      return plugCable(netlink, route.send, { netnsPath, attachment, bridge: again });
    }
  };

  /** Withdraws the pod's ports; interface and addresses follow in `settle`. */
  const leave = (sandboxId: string): Promise<void> =>
    perSandbox.hold(sandboxId, async () => {
      const attachment = ledger.get(sandboxId);
      if (attachment === undefined || attachment.leaving) return;
      await rules.withdraw(attachment.ports);
      ledger.markLeaving(attachment);
    });

  /** Makes sure that the interface of a pod that has left is gone; only then may another pod get its addresses. */
  const settle = (sandboxId: string): Promise<void> =>
    perSandbox.hold(sandboxId, async () => {
      const attachment = ledger.get(sandboxId);
      if (attachment?.leaving !== true) return;
      await removeLink(netlink, route.send, attachment.link);
      ledger.strike(sandboxId);
      if (ledger.all().length > 0) return;
      if (options.lingerMs === 0) await removeIfUnused();
      else later.after(options.lingerMs, removeIfUnused);
    });

  const settleAll = async (): Promise<void> => {
    for (const { sandboxId } of ledger.all()) await settle(sandboxId);
  };

  const removeHostSide = async (): Promise<void> => {
    bridge = undefined;
    await rules.remove();
    await removeBridge(netlink, route.send, options.bridge);
  };

  const removeIfUnused = (): Promise<void> =>
    hostSide.hold('host', async () => {
      if (ledger.all().length === 0) await removeHostSide();
    });

  /** Interfaces on the bridge that no record explains. */
  const removeStrangers = async (): Promise<void> => {
    const known = new Set(ledger.all().map((attachment) => attachment.link));
    for (const port of await listPorts(netlink, route.send, options.bridge)) {
      if (port.startsWith(linkPrefix) && !known.has(port)) await removeLink(netlink, route.send, port);
    }
  };

  /** For pods that outlived an agent: rules of this release, with their ports, whatever happened meanwhile. */
  const mendHostSide = (): Promise<void> =>
    hostSide.hold('host', async () => {
      if (ledger.all().length === 0) return;
      bridge ??= await makeBridge();
      await rules.ensure();
    });

  return {
    async attach(request, { observer, signal }) {
      const { sandboxId, netnsPath } = request;
      // An earlier attempt may have left things behind.
      await inWords('detach network', leave(sandboxId));
      await inWords('detach network', settle(sandboxId));
      if (bandwidthOf(request.annotations) !== undefined) {
        observer.note('warn', 'the built-in network does not limit bandwidth', { sandboxId });
      }
      return perSandbox.hold(sandboxId, async () => {
        const { attachment, bridge: to } = await inWords(
          'prepare built-in network',
          observer.step('reserve address', () => admit(request)),
        );
        throwIfCancelled(signal, 'attach network');
        const index = await inWords(
          'connect pod',
          observer.step('create veth pair', () => plug(netnsPath, attachment, to)),
        );
        const pod = { attachment, pools: ledger.pools, index };
        await inWords(
          'connect pod',
          allOf([
            observer.step('configure pod interface', () => configurePod(netlink, request.netlink, pod)),
            observer.step('publish host ports', () => rules.publish(attachment.ports)),
          ]),
        );
        const mac = netlink.rtnetlink.formatMac(podMac(attachment));
        return { ips: attachment.ips, interfaceName, mac, raw: { hostInterface: attachment.link } };
      });
    },
    async detach({ sandboxId }) {
      await inWords('detach network', leave(sandboxId));
      if (options.settleMs === 0) await inWords('detach network', settle(sandboxId));
      else if (ledger.get(sandboxId) !== undefined) later.after(options.settleMs, () => settle(sandboxId));
    },
    async check({ sandboxId }) {
      const attachment = ledger.get(sandboxId);
      if (attachment === undefined) throw new RuntimeError('not-found', `sandbox ${sandboxId} has no network`);
      const link = await findLink(netlink, route.send, attachment.link);
      if (link !== undefined && link.up && link.master !== 0) return;
      throw new RuntimeError(
        'unavailable',
        `interface ${attachment.link} of sandbox ${sandboxId} is gone or unplugged`,
      );
    },
    async reconcile(live) {
      for (const { sandboxId } of ledger.all()) if (!live.has(sandboxId)) await leave(sandboxId);
      await settleAll();
      await removeStrangers();
      await removeIfUnused();
      await mendHostSide();
    },
    status: () => status,
    info: () => ({
      kind: 'builtin',
      bridge: options.bridge,
      subnets: subnets.map(formatPrefix),
      pods: ledger.all().length,
    }),
    has: (sandboxId) => ledger.get(sandboxId)?.leaving === false,
    async teardown() {
      for (const { sandboxId } of ledger.all()) await leave(sandboxId);
      await settleAll();
      await hostSide.hold('host', removeHostSide);
    },
    async close() {
      later.cancel();
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
}

/** A node that never uses this network need not be able to: a kernel without nf_tables refuses the socket. */
function atFirstUse(open: () => NetlinkSocket): NetlinkSocket {
  let opened: NetlinkSocket | undefined;
  const socket = (): NetlinkSocket => (opened ??= open());
  return {
    request: (messages) => socket().request(messages),
    send: async (messages) => socket().send(messages),
    close: () => opened?.close(),
  };
}

/** Work for later that does not keep the process alive and whose failure is only reported. */
function createAlarms(report: (error: unknown) => void) {
  const timers = new Set<NodeJS.Timeout>();
  return {
    after(ms: number, work: () => Promise<void>): void {
      const timer = setTimeout(() => {
        timers.delete(timer);
        work().catch(report);
      }, ms);
      timer.unref();
      timers.add(timer);
    },
    cancel(): void {
      for (const timer of timers) clearTimeout(timer);
      timers.clear();
    },
  };
}

/** Waits for all, also when one fails: what comes next may undo them. */
async function allOf(work: readonly Promise<unknown>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

async function inWords<T>(doing: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw asRuntimeError(error, doing);
  }
}
