/** Keeping the built-in network's nf_tables rules and kernel parameters as they must be. */
import { isErrno, messageOf } from '../../kit/errors.js';
import type { Call } from '../../kit/call.js';
import type { Netlink, NetlinkSocket } from '../../native/netlink/netlink.js';
import {
  type FirewallShape,
  type PublishedPort,
  findTable,
  installTable,
  portsOfFamily,
  publishPorts,
  removeTable,
  withdrawPorts,
} from './firewall.js';
import type { IpFamily, Prefix } from './ip.js';

export interface HostRules {
  /** Rules are in place afterwards, with every published port, also when something removed them meanwhile. */
  ensure(): Promise<void>;
  publish(ports: readonly PublishedPort[]): Promise<void>;
  /** Ports that are not published are success. */
  withdraw(ports: readonly PublishedPort[]): Promise<void>;
  remove(): Promise<void>;
  close(): void;
}

export interface HostRulesDeps {
  readonly netlink: Netlink;
  readonly openNetlink: (protocol: number) => NetlinkSocket;
  readonly writeSysctl: (path: string, value: string) => void;
  readonly note: Call['observer']['note'];
  /** Every port that ought to be published now. */
  readonly published: () => readonly PublishedPort[];
}

const UDP = 17;

export function createHostRules(
  shape: Omit<FirewallShape, 'subnet'> & { readonly subnets: readonly Prefix[] },
  deps: HostRulesDeps,
): HostRules {
  const { netlink, writeSysctl } = deps;
  const nft = netlink.nftables;
  const socket = deps.openNetlink(nft.NETLINK_NETFILTER);
  const { table, bridge, masquerade } = shape;
  const families: FirewallShape[] = shape.subnets.map((subnet) => ({ table, bridge, masquerade, subnet }));
  let installed = false;
  let loopbackRouted = false;

  const install = async (): Promise<void> => {
    for (const family of families) {
      writeSysctl(family.subnet.family === 4 ? 'net/ipv4/ip_forward' : 'net/ipv6/conf/all/forwarding', '1');
      const ports = portsOfFamily(deps.published(), family.subnet.family);
      await netlink.exchange(socket.send, installTable(nft, family, ports));
    }
    loopbackRouted = false;
    if (deps.published().length > 0) routeLoopback();
    installed = true;
  };

  /** Lets connections to a host port on 127.0.0.1 leave by the bridge; the guard chain keeps pods from using it. */
  const routeLoopback = (): void => {
    if (loopbackRouted || !families.some(({ subnet }) => subnet.family === 4)) return;
    writeSysctl(`net/ipv4/conf/${shape.bridge}/route_localnet`, '1');
    loopbackRouted = true;
  };

  const tablesAreThere = async (): Promise<boolean> => {
    try {
      for (const family of families) await netlink.exchange(socket.send, [findTable(nft, family)]);
      return true;
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
      deps.note('warn', `nf_tables table ${shape.table} was gone and is made again`);
      return false;
    }
  };

  /**
   * A UDP flow keeps the rewriting (or the lack of it) of its first packet for as long as the sender goes on: one that
   * began before the port was published, or with its last pod, would never reach the new one.
   */
  const forgetFlows = async (port: PublishedPort, ip: IpFamily): Promise<void> => {
    if (port.protocol !== 'udp') return;
    const { dumpFlows, decodeFlows, deleteFlow } = netlink.conntrack;
    const family = ip === 4 ? nft.NFPROTO.ipv4 : nft.NFPROTO.ipv6;
    try {
      const dump = { doing: 'list flows', message: dumpFlows(family, UDP, port.hostPort) };
      const flows = decodeFlows(await netlink.exchange(socket.send, [dump])).filter(
        (flow) => flow.protocol === UDP && flow.destinationPort === port.hostPort,
      );
      for (const flow of flows) {
        const message = deleteFlow(family, flow);
        await netlink.exchange(socket.send, [{ doing: 'forget flow', message, tolerate: ['ENOENT'] }]);
      }
    } catch (error) {
      deps.note('warn', `flows to UDP port ${port.hostPort} are not forgotten: ${messageOf(error)}`);
    }
  };

  return {
    async ensure() {
      if (!installed || !(await tablesAreThere())) await install();
    },
    async publish(ports) {
      if (ports.length === 0) return;
      routeLoopback();
      for (const family of families) {
        const mine = portsOfFamily(ports, family.subnet.family);
        if (mine.length > 0) await netlink.exchange(socket.send, publishPorts(nft, family, mine));
        for (const port of mine) await forgetFlows(port, family.subnet.family);
      }
    },
    async withdraw(ports) {
      for (const family of families) {
        // A batch with one failing removal removes nothing, so each port gets its own.
        for (const port of portsOfFamily(ports, family.subnet.family)) {
          await netlink.exchange(socket.send, withdrawPorts(nft, family, [port]));
          await forgetFlows(port, family.subnet.family);
        }
      }
    },
    async remove() {
      installed = false;
      for (const family of families) await netlink.exchange(socket.send, removeTable(nft, family));
    },
    close: () => socket.close(),
  };
}
