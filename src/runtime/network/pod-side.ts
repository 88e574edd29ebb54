/** The messages that a pod's own network namespace gets; the pod's shim sends them. Pure. */
import type { Netlink, NetlinkStep } from '../../native/netlink/netlink.js';
import { interfaceName } from './pod-network.js';
import { formatIp } from './ip.js';

export interface PodAddress {
  readonly address: Uint8Array;
  readonly prefixLength: number;
  readonly gateway: Uint8Array;
}

/** `lo` has index 1 in every namespace. */
const loIndex = 1;

export const raiseLoopback = (netlink: Netlink): NetlinkStep => ({
  doing: 'raise lo',
  message: netlink.rtnetlink.setLinkUp({ index: loIndex }),
});

/** Everything from two interfaces that are down to a pod that can speak. `index` is that of `eth0` in the pod. */
export const podSideSteps = (netlink: Netlink, index: number, addresses: readonly PodAddress[]): NetlinkStep[] => [
  raiseLoopback(netlink),
  { doing: `raise ${interfaceName}`, message: netlink.rtnetlink.setLinkUp({ index: index }) },
  ...addresses.map(({ address, prefixLength }) => ({
    doing: `add address ${formatIp(address)} to ${interfaceName}`,
    message: netlink.rtnetlink.newAddress(index, address, prefixLength),
  })),
  ...addresses.map(({ gateway }) => ({
    doing: `add default route by ${formatIp(gateway)}`,
    message: netlink.rtnetlink.newDefaultRoute(gateway, index),
  })),
];
