/**
 * Links, addresses and routes: encoders and decoders for NETLINK_ROUTE (linux/rtnetlink.h, linux/if_link.h). Every
 * encoder returns one message that asks for an acknowledgement. Nothing here sends anything.
 */
import {
  NLM_F,
  attribute,
  cstring,
  message,
  nested,
  parseAttributes,
  parseMessages,
  stringOf,
  u16,
  u32,
  u32Of,
  u8,
} from './wire.js';

export const NETLINK_ROUTE = 0;

export const AF_INET = 2;
export const AF_INET6 = 10;
const AF_UNSPEC = 0;

const RTM = { newLink: 16, delLink: 17, getLink: 18, newAddress: 20, getAddress: 22, newRoute: 24 } as const;
const IFF_UP = 1;

const IFLA = {
  address: 1,
  ifname: 3,
  mtu: 4,
  txqlen: 13,
  link: 5,
  master: 10,
  linkinfo: 18,
  netNsFd: 28,
} as const;
const IFLA_INFO = { kind: 1, data: 2, slaveKind: 4, slaveData: 5 } as const;
const IFLA_BRPORT_MODE = 4;
const VETH_INFO_PEER = 1;

const IFA = { address: 1, local: 2, broadcast: 4, flags: 8 } as const;
const IFA_F_NODAD = 0x02;
const RTA = { destination: 1, gateway: 5, oif: 4 } as const;
const RT_TABLE_MAIN = 254;
const RTPROT_STATIC = 4;
const RT_SCOPE_UNIVERSE = 0;
const RTN_UNICAST = 1;

const changing = NLM_F.ack;
const creating = NLM_F.ack | NLM_F.create | NLM_F.excl;

/** A link is named by its index or by its name; the kernel looks at the name only when the index is 0. */
export type LinkRef = { readonly index: number } | { readonly name: string };

export interface VethPeer {
  readonly name: string;
  /** Descriptor of the namespace the peer is born in. Resolved in the sending process. */
  readonly netnsFd: number;
  readonly mac: Uint8Array;
}

export interface VethPair {
  readonly name: string;
  /** Index of the bridge the near end joins. */
  readonly masterIndex: number;
  readonly mtu: number;
  readonly peer: VethPeer;
}

/** A bridge, up. With a fixed MAC address it does not take over that of its lowest port. */
export const newBridge = (name: string, mac: Uint8Array, mtu: number): Uint8Array =>
  message(RTM.newLink, creating, [
    interfaceInfo({ index: 0, up: true }),
    attribute(IFLA.ifname, cstring(name)),
    attribute(IFLA.address, mac),
    attribute(IFLA.mtu, u32(mtu)),
    nested(IFLA.linkinfo, [attribute(IFLA_INFO.kind, cstring('bridge'))]),
  ]);

/**
 * A veth pair, the near end up and a port of a bridge, the far end in another network namespace. The far end stays
 * down: the kernel refuses to raise it before its peer exists (ENOTCONN).
 */
export const newVeth = (pair: VethPair): Uint8Array =>
  message(RTM.newLink, creating, [
    interfaceInfo({ index: 0, up: true }),
    attribute(IFLA.ifname, cstring(pair.name)),
    attribute(IFLA.mtu, u32(pair.mtu)),
    attribute(IFLA.master, u32(pair.masterIndex)),
    nested(IFLA.linkinfo, [
      attribute(IFLA_INFO.kind, cstring('veth')),
      nested(IFLA_INFO.data, [attribute(VETH_INFO_PEER | 0x8000, vethPeer(pair.peer, pair.mtu))]),
    ]),
  ]);

const vethPeer = (peer: VethPeer, mtu: number): Uint8Array =>
  Buffer.concat([
    interfaceInfo({ index: 0 }),
    attribute(IFLA.ifname, cstring(peer.name)),
    attribute(IFLA.mtu, u32(mtu)),
    attribute(IFLA.address, peer.mac),
    attribute(IFLA.netNsFd, u32(peer.netnsFd)),
  ]);

/** Lets a bridge send a frame back through the port it came from. */
export const setHairpin = (link: LinkRef): Uint8Array =>
  message(RTM.newLink, changing, [
    interfaceInfo({ index: indexOf(link) }),
    ...nameOf(link),
    nested(IFLA.linkinfo, [
      attribute(IFLA_INFO.slaveKind, cstring('bridge')),
      nested(IFLA_INFO.slaveData, [attribute(IFLA_BRPORT_MODE, u8(1))]),
    ]),
  ]);

export const setLinkUp = (link: LinkRef): Uint8Array =>
  message(RTM.newLink, changing, [interfaceInfo({ index: indexOf(link), up: true }), ...nameOf(link)]);

/** Removes a link; its veth peer, wherever it is, goes with it. */
export const deleteLink = (link: LinkRef): Uint8Array =>
  message(RTM.delLink, changing, [interfaceInfo({ index: indexOf(link) }), ...nameOf(link)]);

/** Asks for one link. */
export const getLink = (link: LinkRef): Uint8Array =>
  message(RTM.getLink, changing, [interfaceInfo({ index: indexOf(link) }), ...nameOf(link)]);

/** Asks for every link of the namespace. */
export const dumpLinks = (): Uint8Array => message(RTM.getLink, NLM_F.dump, [interfaceInfo({ index: 0 })]);

/** Asks for every address of the namespace, of both families. */
export const dumpAddresses = (): Uint8Array =>
  message(RTM.getAddress, NLM_F.dump, [Uint8Array.of(AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0)]);

/**
 * Gives a link an address with the prefix of its subnet. IPv6 addresses skip duplicate detection: the allocator knows
 * that they are unique, and a tentative address would refuse to be bound for a second.
 */
export function newAddress(linkIndex: number, address: Uint8Array, prefixLength: number): Uint8Array {
  const family = familyOf(address);
  return message(RTM.newAddress, creating, [
    Uint8Array.of(family, prefixLength, family === AF_INET6 ? IFA_F_NODAD : 0, RT_SCOPE_UNIVERSE),
    u32(linkIndex),
    attribute(IFA.local, address),
    attribute(IFA.address, address),
    ...(family === AF_INET ? [attribute(IFA.broadcast, broadcastOf(address, prefixLength))] : []),
  ]);
}

/** The default route of the gateway's family. */
export const newDefaultRoute = (gateway: Uint8Array, linkIndex: number): Uint8Array =>
  message(RTM.newRoute, creating, [
    Uint8Array.of(familyOf(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST),
    u32(0),
    attribute(RTA.gateway, gateway),
    attribute(RTA.oif, u32(linkIndex)),
  ]);

export interface Link {
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  /** Of a veth end: the index of the other end in its own namespace; 0 for none. */
  readonly peer: number;
  /** Index of the bridge it belongs to, 0 for none. */
  readonly master: number;
  /** `bridge`, `veth`, '' for physical devices. */
  readonly kind: string;
  readonly mac: string;
  readonly mtu: number;
}

export interface LinkAddress {
  readonly linkIndex: number;
  readonly address: Uint8Array;
  readonly prefixLength: number;
}

/** The links in the answers to `getLink` and `dumpLinks`. */
export function decodeLinks(answers: readonly Uint8Array[]): Link[] {
  return answers
    .flatMap(parseMessages)
    .filter((answer) => answer.type === RTM.newLink)
    .map((answer) => decodeLink(answer.payload));
}

function decodeLink(payload: Uint8Array): Link {
  const data = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const attributes = parseAttributes(payload.subarray(16));
  const info = parseAttributes(attributes.get(IFLA.linkinfo) ?? new Uint8Array());
  return {
    index: data.getInt32(4, true),
    up: (data.getUint32(8, true) & IFF_UP) !== 0,
    name: stringOf(attributes.get(IFLA.ifname) ?? new Uint8Array()),
    peer: u32Of(attributes.get(IFLA.link) ?? u32(0)),
    master: u32Of(attributes.get(IFLA.master) ?? u32(0)),
    kind: stringOf(info.get(IFLA_INFO.kind) ?? new Uint8Array()),
    mac: formatMac(attributes.get(IFLA.address) ?? new Uint8Array()),
    mtu: u32Of(attributes.get(IFLA.mtu) ?? u32(0)),
  };
}

/** The addresses in the answers to `dumpAddresses`. */
export function decodeAddresses(answers: readonly Uint8Array[]): LinkAddress[] {
  return answers
    .flatMap(parseMessages)
    .filter((answer) => answer.type === RTM.newAddress)
    .flatMap((answer) => {
      const attributes = parseAttributes(answer.payload.subarray(8));
      const address = attributes.get(IFA.local) ?? attributes.get(IFA.address);
      if (address === undefined) return [];
      return [{ linkIndex: u32Of(answer.payload.subarray(4)), address, prefixLength: answer.payload[1] ?? 0 }];
    });
}

export const formatMac = (mac: Uint8Array): string =>
  [...mac].map((byte) => byte.toString(16).padStart(2, '0')).join(':');

/** struct ifinfomsg. */
function interfaceInfo(of: { index: number; up?: boolean }): Uint8Array {
  const flags = of.up === true ? IFF_UP : 0;
  return Buffer.concat([Uint8Array.of(AF_UNSPEC, 0), u16(0), u32(of.index), u32(flags), u32(flags)]);
}

const indexOf = (link: LinkRef): number => ('index' in link ? link.index : 0);

const nameOf = (link: LinkRef): Uint8Array[] => ('name' in link ? [attribute(IFLA.ifname, cstring(link.name))] : []);

const familyOf = (address: Uint8Array): number => (address.length === 4 ? AF_INET : AF_INET6);

function broadcastOf(address: Uint8Array, prefixLength: number): Uint8Array {
  return address.map((byte, index) => {
    const hostBits = Math.min(8, Math.max(0, 8 * (index + 1) - prefixLength));
    return byte | ((1 << hostBits) - 1);
  });
}
