/** The built-in network's bridge and the cables from it to the pods, on the host's side. */
import { RuntimeError, isErrno } from '../../kit/errors.js';
import type { Netlink, NetlinkSend } from '../../native/netlink/netlink.js';
import { type Prefix, formatIp, formatPrefix, overlap, prefixOf } from './ip.js';

export interface BridgeShape {
  readonly name: string;
  readonly subnets: readonly { readonly prefix: Prefix; readonly gateway: Uint8Array }[];
  /** Bytes; absent: the smallest of the node's network cards, so that pods never send what the node cannot. */
  readonly mtu?: number;
}

export interface Bridge {
  readonly index: number;
  readonly mtu: number;
}

type Link = ReturnType<Netlink['rtnetlink']['decodeLinks']>[number];

const defaultMtu = 1500;

/**
 * Makes sure that the bridge exists, is up and has its addresses. Throws `unavailable` when another interface is in
 * its place or already serves an overlapping subnet.
 */
export async function ensureBridge(netlink: Netlink, send: NetlinkSend, shape: BridgeShape): Promise<Bridge> {
  const { rtnetlink, exchange } = netlink;
  const links = await dump(netlink, send);
  const mtu = shape.mtu ?? smallestMtu(links);
  await refuseOverlap(netlink, send, shape, links);
  if (!links.some((link) => link.name === shape.name)) {
    const message = rtnetlink.newBridge(shape.name, macFor(shape.subnets[0]?.gateway ?? new Uint8Array(4)), mtu);
    await exchange(send, [{ doing: `create bridge ${shape.name}`, message, tolerate: ['EEXIST'] }]);
  }
  const bridge = await findBridge(netlink, send, shape.name);
  if (bridge === undefined) throw new RuntimeError('unavailable', `bridge ${shape.name} vanished while it was made`);
  await exchange(send, [
    { doing: `raise bridge ${shape.name}`, message: rtnetlink.setLinkUp({ index: bridge.index }) },
    ...shape.subnets.map(({ prefix, gateway }) => ({
      doing: `add address ${formatIp(gateway)} to ${shape.name}`,
      message: rtnetlink.newAddress(bridge.index, gateway, prefix.length),
      tolerate: ['EEXIST'],
    })),
  ]);
  return { index: bridge.index, mtu };
}

/** The bridge when it exists; throws `unavailable` when its name belongs to another kind of interface. */
export async function findBridge(netlink: Netlink, send: NetlinkSend, name: string): Promise<Link | undefined> {
  const link = await findLink(netlink, send, name);
  if (link !== undefined && link.kind !== 'bridge') {
    throw new RuntimeError('unavailable', `interface ${name} is no bridge (${link.kind || 'a network card'})`);
  }
  return link;
}

/** Removes the bridge. A missing one is success; so is another interface of that name, which stays. */
export async function removeBridge(netlink: Netlink, send: NetlinkSend, name: string): Promise<void> {
  const link = await findLink(netlink, send, name);
  if (link === undefined || link.kind !== 'bridge') return;
  const message = netlink.rtnetlink.deleteLink({ index: link.index });
  await netlink.exchange(send, [{ doing: `remove bridge ${name}`, message, tolerate: ['ENODEV'] }]);
}

/** Names of the veth ends that are ports of the bridge. */
export async function listPorts(netlink: Netlink, send: NetlinkSend, name: string): Promise<string[]> {
  const links = await dump(netlink, send);
  const bridge = links.find((link) => link.name === name && link.kind === 'bridge');
  if (bridge === undefined) return [];
  return links.filter((link) => link.master === bridge.index && link.kind === 'veth').map((link) => link.name);
}

export async function findLink(netlink: Netlink, send: NetlinkSend, name: string): Promise<Link | undefined> {
  try {
    const step = { doing: `look for ${name}`, message: netlink.rtnetlink.getLink({ name }) };
    return netlink.rtnetlink.decodeLinks(await netlink.exchange(send, [step]))[0];
  } catch (error) {
    if (isErrno(error, 'ENODEV')) return undefined;
    throw error;
  }
}

export async function removeLink(netlink: Netlink, send: NetlinkSend, name: string): Promise<void> {
  const message = netlink.rtnetlink.deleteLink({ name });
  await netlink.exchange(send, [{ doing: `remove interface ${name}`, message, tolerate: ['ENODEV'] }]);
}

/**
 * A MAC address made of an IP address: an address that is given again comes with the same MAC, so no neighbour's ARP
 * cache is ever wrong. 0a:58 is in the locally administered range.
 */
export const macFor = (address: Uint8Array): Uint8Array => Uint8Array.of(0x0a, 0x58, ...address.slice(-4));

async function dump(netlink: Netlink, send: NetlinkSend): Promise<Link[]> {
  const step = { doing: 'list interfaces', message: netlink.rtnetlink.dumpLinks() };
  return netlink.rtnetlink.decodeLinks(await netlink.exchange(send, [step]));
}

function smallestMtu(links: readonly Link[]): number {
  const cards = links.filter((link) => link.up && link.kind === '' && link.name !== 'lo');
  return Math.min(defaultMtu, ...cards.map((link) => link.mtu));
}

async function refuseOverlap(
  netlink: Netlink,
  send: NetlinkSend,
  shape: BridgeShape,
  links: readonly Link[],
): Promise<void> {
  const step = { doing: 'list addresses', message: netlink.rtnetlink.dumpAddresses() };
  const addresses = netlink.rtnetlink.decodeAddresses(await netlink.exchange(send, [step]));
  for (const { linkIndex, address, prefixLength } of addresses) {
    const owner = links.find((link) => link.index === linkIndex)?.name ?? `interface ${linkIndex}`;
    if (owner === shape.name) continue;
    const clash = shape.subnets.find(({ prefix }) => overlap(prefix, prefixOf(address, prefixLength)));
    if (clash === undefined) continue;
    throw new RuntimeError(
      'unavailable',
      `pod subnet ${formatPrefix(clash.prefix)} overlaps with ${formatIp(address)}/${prefixLength} on ${owner}; ` +
        'configure another subnet',
    );
  }
}
