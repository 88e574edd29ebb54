/**
 * The built-in network's nf_tables rules, as batches of messages; pure. One table per IP family:
 *
 * ```
 * table ip berth {
 *   map ports         { type inet_proto . inet_service : ipv4_addr . inet_service }
 *   map address_ports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
 *   chain guard       { type filter hook prerouting priority raw
 *                       iifname BRIDGE ip daddr 127.0.0.0/8 drop; iifname BRIDGE ip saddr 127.0.0.0/8 drop }
 *   chain prerouting  { type nat hook prerouting priority dstnat; fib daddr type local jump host_ports }
 *   chain output      { type nat hook output priority dstnat; fib daddr type local jump host_ports }
 *   chain host_ports  { dnat ip daddr . meta l4proto . th dport map @address_ports
 *                       dnat meta l4proto . th dport map @ports }
 *   chain postrouting { type nat hook postrouting priority srcnat
 *                       ip saddr SUBNET ip daddr 224.0.0.0/4 accept
 *                       ip saddr SUBNET ip daddr != SUBNET masquerade
 *                       ip saddr SUBNET oifname BRIDGE ct status dnat masquerade
 *                       ip saddr 127.0.0.0/8 oifname BRIDGE masquerade }
 * }
 * ```
 *
 * Publishing a port is one map element, whatever the number of pods. The third masquerade rule is for a pod that calls
 * a published port of a neighbour: the answer must come back through the host. The guard makes route_localnet on the
 * bridge harmless (CVE-2020-8558): no pod can speak to, or as, the host's loopback.
 */
import type { Netlink, NetlinkStep } from '../../native/netlink/netlink.js';
import { type IpFamily, type Prefix, familyOf, fromNumber, maskOf, parseIp, parsePrefix } from './ip.js';

/** One published port of one pod, in one family. */
export interface PublishedPort {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  /** '' means every local address. */
  readonly hostIp: string;
  readonly hostPort: number;
  readonly podIp: string;
  readonly containerPort: number;
}

export interface FirewallShape {
  readonly table: string;
  readonly bridge: string;
  readonly subnet: Prefix;
  /** Whether pods leave the node with its address. */
  readonly masquerade: boolean;
}

type Nft = Netlink['nftables'];

const protocolNumbers = { tcp: 6, udp: 17, sctp: 132 } as const;
const priority = { raw: -300, destinationNat: -100, sourceNat: 100 } as const;
const RTN_LOCAL = 2;

interface FamilyShape {
  readonly addressLength: number;
  readonly addressType: number;
  readonly sourceOffset: number;
  readonly destinationOffset: number;
  readonly loopback: Prefix;
  readonly multicast: Prefix;
}

const familyShapes: Readonly<Record<IpFamily, FamilyShape>> = {
  4: {
    addressLength: 4,
    addressType: 7,
    sourceOffset: 12,
    destinationOffset: 16,
    loopback: parsePrefix('127.0.0.0/8', 'loopback'),
    multicast: parsePrefix('224.0.0.0/4', 'multicast'),
  },
  6: {
    addressLength: 16,
    addressType: 8,
    sourceOffset: 8,
    destinationOffset: 24,
    loopback: parsePrefix('::1/128', 'loopback'),
    multicast: parsePrefix('ff00::/8', 'multicast'),
  },
};

/** Replaces the whole table, in one batch, by one that publishes `ports`. */
export function installTable(nft: Nft, shape: FirewallShape, ports: readonly PublishedPort[]): NetlinkStep[] {
  const at = tableOf(nft, shape);
  const maps = mapsOf(nft, shape.subnet.family);
  const doing = (what: string, message: Uint8Array): NetlinkStep => ({
    doing: `nf_tables ${shape.table}: ${what}`,
    message,
  });
  const chain = (name: string, type: 'nat' | 'filter', hook: number, order: number): NetlinkStep =>
    doing(`add chain ${name}`, nft.newBaseChain(at, { name, type, hook, priority: order }));
  const rules = rulesOf(nft, shape);
  return batch(nft, [
    // Adding first makes the removal succeed whether or not an older table is there.
    doing('add table', nft.newTable(at)),
    doing('remove the old table', nft.deleteTable(at)),
    doing('add table', nft.newTable(at)),
    doing('add map ports', nft.newMap(at, maps.ports)),
    doing('add map address_ports', nft.newMap(at, maps.addressPorts)),
    doing('add chain host_ports', nft.newChain(at, 'host_ports')),
    chain('guard', 'filter', nft.HOOK.prerouting, priority.raw),
    chain('prerouting', 'nat', nft.HOOK.prerouting, priority.destinationNat),
    chain('output', 'nat', nft.HOOK.output, priority.destinationNat),
    chain('postrouting', 'nat', nft.HOOK.postrouting, priority.sourceNat),
    ...rules.map(([name, expressions]) => doing(`add rule to ${name}`, nft.newRule(at, name, expressions))),
    ...elementSteps(nft, shape, ports, 'publish'),
  ]);
}

/** Asks whether the table is there; ENOENT when something (a firewall's reload) has removed it. */
export const findTable = (nft: Nft, shape: FirewallShape): NetlinkStep => ({
  doing: `nf_tables ${shape.table}: look for the table`,
  message: nft.getTable(tableOf(nft, shape)),
});

/** Removes the table. ENOENT, when there is none, is success. */
export const removeTable = (nft: Nft, shape: FirewallShape): NetlinkStep[] =>
  batch(nft, [
    {
      doing: `nf_tables ${shape.table}: remove table`,
      message: nft.deleteTable(tableOf(nft, shape)),
      tolerate: ['ENOENT'],
    },
  ]);

/** Publishes ports; EEXIST when one of them leads elsewhere. */
export const publishPorts = (nft: Nft, shape: FirewallShape, ports: readonly PublishedPort[]): NetlinkStep[] =>
  batch(nft, elementSteps(nft, shape, ports, 'publish'));

/** Withdraws ports; nothing is withdrawn, and ENOENT tolerated, when one of them is not published. */
export const withdrawPorts = (nft: Nft, shape: FirewallShape, ports: readonly PublishedPort[]): NetlinkStep[] =>
  batch(nft, elementSteps(nft, shape, ports, 'withdraw'));

function batch(nft: Nft, steps: readonly NetlinkStep[]): NetlinkStep[] {
  const frame = (message: Uint8Array): NetlinkStep => ({ doing: 'nf_tables: batch', message });
  return [frame(nft.batchBegin()), ...steps, frame(nft.batchEnd())];
}

function elementSteps(
  nft: Nft,
  shape: FirewallShape,
  ports: readonly PublishedPort[],
  how: 'publish' | 'withdraw',
): NetlinkStep[] {
  const at = tableOf(nft, shape);
  return ports.map((port) => {
    const map = port.hostIp === '' ? 'ports' : 'address_ports';
    const doing = `${how} host port ${port.hostIp === '' ? '' : `${port.hostIp} `}${port.hostPort}/${port.protocol}`;
    const key = keyOf(port);
    if (how === 'withdraw') return { doing, message: nft.deleteElements(at, map, [{ key }]), tolerate: ['ENOENT'] };
    return { doing, message: nft.addElements(at, map, [{ key, data: valueOf(port) }]) };
  });
}

/** Parts of a concatenated key are padded to four bytes each. */
function keyOf(port: PublishedPort): Uint8Array {
  const key = Buffer.alloc(8);
  key.writeUInt8(protocolNumbers[port.protocol], 0);
  key.writeUInt16BE(port.hostPort, 4);
  return Buffer.concat([port.hostIp === '' ? Buffer.alloc(0) : addressBytes(port.hostIp), key]);
}

function valueOf(port: PublishedPort): Uint8Array {
  const value = Buffer.alloc(4);
  value.writeUInt16BE(port.containerPort, 0);
  return Buffer.concat([addressBytes(port.podIp), value]);
}

function addressBytes(text: string): Uint8Array {
  const bytes = parseIp(text);
  if (bytes === undefined) throw new TypeError(`"${text}" is no IP address`);
  return bytes;
}

function rulesOf(nft: Nft, shape: FirewallShape): [string, Uint8Array[]][] {
  const { subnet, bridge } = shape;
  const family = familyShapes[subnet.family];
  const toLocal = [
    nft.destinationRouteType(nft.r1),
    nft.compare(nft.r1, 'equal', hostOrder32(RTN_LOCAL)),
    nft.jump('host_ports'),
  ];
  const toBridge = interfaceIs(nft, nft.META.oifname, bridge);
  const fromBridge = interfaceIs(nft, nft.META.iifname, bridge);
  const source = (prefix: Prefix, how: 'equal' | 'differs' = 'equal'): Uint8Array[] =>
    addressIn(nft, family.sourceOffset, prefix, how);
  const destination = (prefix: Prefix, how: 'equal' | 'differs' = 'equal'): Uint8Array[] =>
    addressIn(nft, family.destinationOffset, prefix, how);
  const leaving: [string, Uint8Array[]][] = [
    ['postrouting', [...source(subnet), ...destination(family.multicast), nft.accept()]],
    ['postrouting', [...source(subnet), ...destination(subnet, 'differs'), nft.masquerade()]],
  ];
  return [
    ['guard', [...fromBridge, ...destination(family.loopback), nft.drop()]],
    ['guard', [...fromBridge, ...source(family.loopback), nft.drop()]],
    ['prerouting', toLocal],
    ['output', toLocal],
    ['host_ports', addressPortRule(nft, subnet.family)],
    ['host_ports', portRule(nft, subnet.family)],
    ...(shape.masquerade ? leaving : []),
    ['postrouting', [...source(subnet), ...toBridge, ...wasRewritten(nft), nft.masquerade()]],
    ['postrouting', [...source(family.loopback), ...toBridge, nft.masquerade()]],
  ];
}

/** `dnat to ip daddr . meta l4proto . th dport map @address_ports` */
function addressPortRule(nft: Nft, ip: IpFamily): Uint8Array[] {
  const { addressLength, destinationOffset } = familyShapes[ip];
  const words = addressLength / 4;
  return [
    nft.payload(nft.PAYLOAD_BASE.network, destinationOffset, addressLength, nft.r32(0)),
    nft.meta(nft.META.l4proto, nft.r32(words)),
    nft.payload(nft.PAYLOAD_BASE.transport, 2, 2, nft.r32(words + 1)),
    nft.lookup(mapsOf(nft, ip).addressPorts, nft.r32(0), nft.r32(0)),
    nft.destinationNat(nftFamily(nft, ip), nft.r32(0), nft.r32(words)),
  ];
}

/** `dnat to meta l4proto . th dport map @ports` */
function portRule(nft: Nft, ip: IpFamily): Uint8Array[] {
  const words = familyShapes[ip].addressLength / 4;
  return [
    nft.meta(nft.META.l4proto, nft.r32(0)),
    nft.payload(nft.PAYLOAD_BASE.transport, 2, 2, nft.r32(1)),
    nft.lookup(mapsOf(nft, ip).ports, nft.r32(0), nft.r32(0)),
    nft.destinationNat(nftFamily(nft, ip), nft.r32(0), nft.r32(words)),
  ];
}

const interfaceIs = (nft: Nft, key: number, name: string): Uint8Array[] => [
  nft.meta(key, nft.r1),
  nft.compare(nft.r1, 'equal', nft.interfaceName(name)),
];

const addressIn = (nft: Nft, offset: number, prefix: Prefix, how: 'equal' | 'differs'): Uint8Array[] => [
  nft.payload(nft.PAYLOAD_BASE.network, offset, familyShapes[prefix.family].addressLength, nft.r1),
  nft.mask(nft.r1, maskOf(prefix)),
  nft.compare(nft.r1, how, fromNumber(prefix.base, prefix.family)),
];

const wasRewritten = (nft: Nft): Uint8Array[] => [
  nft.conntrack(nft.CT_STATUS, nft.r1),
  nft.mask(nft.r1, hostOrder32(nft.IPS_DST_NAT)),
  nft.compare(nft.r1, 'differs', hostOrder32(0)),
];

function mapsOf(nft: Nft, ip: IpFamily) {
  const { addressLength, addressType } = familyShapes[ip];
  const service = (nft.TYPE.protocol << 6) | nft.TYPE.service;
  const value = { dataType: (addressType << 6) | nft.TYPE.service, dataLength: addressLength + 4 };
  return {
    ports: { name: 'ports', id: 1, keyType: service, keyLength: 8, ...value },
    addressPorts: {
      name: 'address_ports',
      id: 2,
      keyType: (addressType << 12) | service,
      keyLength: addressLength + 8,
      ...value,
    },
  };
}

const nftFamily = (nft: Nft, ip: IpFamily): 2 | 10 => (ip === 4 ? nft.NFPROTO.ipv4 : nft.NFPROTO.ipv6);

const tableOf = (nft: Nft, shape: FirewallShape) => ({
  family: nftFamily(nft, shape.subnet.family),
  table: shape.table,
});

function hostOrder32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** Of a pod's published ports those that its address of this family serves. */
export function portsOfFamily(ports: readonly PublishedPort[], ip: IpFamily): PublishedPort[] {
  return ports.filter((port) => familyOf(addressBytes(port.podIp)) === ip);
}
