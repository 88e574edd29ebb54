/**
 * nf_tables over netlink: tables, chains, maps, their elements, and rules as lists of expressions
 * (linux/netfilter/nf_tables.h). Knows the language of the kernel's little machine, not what anyone filters with it.
 *
 * Changes are only taken in batches, and a batch happens whole or not at all.
 */
import { NLM_F, attribute, be16, be32, cstring, message, nested } from './wire.js';

export const NETLINK_NETFILTER = 12;

/** nfproto numbers, also the family of a table. */
export const NFPROTO = { ipv4: 2, ipv6: 10 } as const;
export type TableFamily = (typeof NFPROTO)[keyof typeof NFPROTO];

const subsystem = 10 << 8;
const NFT_MSG = {
  newTable: 0,
  getTable: 1,
  delTable: 2,
  newChain: 3,
  newRule: 6,
  newSet: 9,
  newElement: 12,
  delElement: 14,
} as const;
const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;

/** Hook numbers of the IP families (linux/netfilter.h). */
export const HOOK = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;

/** Registers: `r1` is 16 bytes wide and the same memory as `r32(0)` to `r32(3)`. */
export const r1 = 1;
export const r32 = (index: number): number => 8 + index;

export const META = { oifname: 7, iifname: 6, l4proto: 16 } as const;
export const PAYLOAD_BASE = { network: 1, transport: 2 } as const;
export const CT_STATUS = 2;
export const IPS_DST_NAT = 1 << 5;

/** nft's numbers for data types: they only tell `nft list` how to print. A concatenation shifts by six bits. */
export const TYPE = { ipv4: 7, ipv6: 8, protocol: 12, service: 13 } as const;

export interface TableRef {
  readonly family: TableFamily;
  readonly table: string;
}

export interface BaseChain {
  readonly name: string;
  readonly type: 'nat' | 'filter';
  readonly hook: number;
  /** Lower runs earlier: raw -300, destination NAT -100, filter 0, source NAT 100. */
  readonly priority: number;
}

export interface MapShape {
  readonly name: string;
  /** Number of this map inside its batch, so that rules of the batch can refer to it. */
  readonly id: number;
  readonly keyType: number;
  readonly keyLength: number;
  readonly dataType: number;
  readonly dataLength: number;
}

export interface MapElement {
  readonly key: Uint8Array;
  /** Absent when an element is removed. */
  readonly data?: Uint8Array;
}

/** One encoded expression of a rule. */
export type Expression = Uint8Array;

const nfgenmsg = (family: number, resource = 0): Uint8Array =>
  Buffer.concat([Uint8Array.of(family, 0), be16(resource)]);

const nft = (type: number, flags: number, at: TableRef, attributes: readonly Uint8Array[]): Uint8Array =>
  message(subsystem | type, flags | NLM_F.ack, [nfgenmsg(at.family), ...attributes]);

export const batchBegin = (): Uint8Array => message(NFNL_MSG_BATCH_BEGIN, 0, [nfgenmsg(0, 10)]);
export const batchEnd = (): Uint8Array => message(NFNL_MSG_BATCH_END, 0, [nfgenmsg(0, 10)]);

/** Creates the table; one that exists is left as it is. */
export const newTable = (at: TableRef): Uint8Array =>
  nft(NFT_MSG.newTable, NLM_F.create, at, [attribute(1, cstring(at.table)), attribute(2, be32(0))]);

/** Asks for the table, outside a batch. ENOENT when there is none. */
export const getTable = (at: TableRef): Uint8Array => nft(NFT_MSG.getTable, 0, at, [attribute(1, cstring(at.table))]);

/** Removes the table and all it holds. ENOENT when there is none. */
export const deleteTable = (at: TableRef): Uint8Array =>
  nft(NFT_MSG.delTable, 0, at, [attribute(1, cstring(at.table))]);

export const newBaseChain = (at: TableRef, chain: BaseChain): Uint8Array =>
  nft(NFT_MSG.newChain, NLM_F.create, at, [
    attribute(1, cstring(at.table)),
    attribute(3, cstring(chain.name)),
    nested(4, [attribute(1, be32(chain.hook)), attribute(2, be32(chain.priority))]),
    attribute(7, cstring(chain.type)),
  ]);

/** A chain that other chains jump to. */
export const newChain = (at: TableRef, name: string): Uint8Array =>
  nft(NFT_MSG.newChain, NLM_F.create, at, [attribute(1, cstring(at.table)), attribute(3, cstring(name))]);

/** A map from fixed-length keys to fixed-length values. */
export const newMap = (at: TableRef, map: MapShape): Uint8Array =>
  nft(NFT_MSG.newSet, NLM_F.create, at, [
    attribute(1, cstring(at.table)),
    attribute(2, cstring(map.name)),
    attribute(3, be32(NFT_SET_MAP)),
    attribute(4, be32(map.keyType)),
    attribute(5, be32(map.keyLength)),
    attribute(6, be32(map.dataType)),
    attribute(7, be32(map.dataLength)),
    attribute(10, be32(map.id)),
  ]);

const NFT_SET_MAP = 0x8;

/** Adds elements; a key that is there with other data is EEXIST, with the same data success. */
export const addElements = (at: TableRef, map: string, elements: readonly MapElement[]): Uint8Array =>
  nft(NFT_MSG.newElement, NLM_F.create, at, elementAttributes(at, map, elements));

/** Removes elements; a key that is not there is ENOENT. */
export const deleteElements = (at: TableRef, map: string, elements: readonly MapElement[]): Uint8Array =>
  nft(NFT_MSG.delElement, 0, at, elementAttributes(at, map, elements));

const elementAttributes = (at: TableRef, map: string, elements: readonly MapElement[]): Uint8Array[] => [
  attribute(1, cstring(at.table)),
  attribute(2, cstring(map)),
  nested(3, elements.map(element)),
];

const element = ({ key, data }: MapElement): Uint8Array =>
  nested(1, [nested(1, [attribute(1, key)]), ...(data === undefined ? [] : [nested(2, [attribute(1, data)])])]);

/** Appends a rule to a chain. */
export const newRule = (at: TableRef, chain: string, expressions: readonly Expression[]): Uint8Array =>
  nft(NFT_MSG.newRule, NLM_F.create | NLM_F.append, at, [
    attribute(1, cstring(at.table)),
    attribute(2, cstring(chain)),
    nested(4, expressions),
  ]);

const expression = (name: string, attributes: readonly Uint8Array[]): Expression =>
  nested(1, [attribute(1, cstring(name)), nested(2, attributes)]);

/** Loads packet metadata into a register. */
export const meta = (key: number, register: number): Expression =>
  expression('meta', [attribute(2, be32(key)), attribute(1, be32(register))]);

/** Loads bytes of a packet header into a register. */
export const payload = (base: number, offset: number, length: number, register: number): Expression =>
  expression('payload', [
    attribute(1, be32(register)),
    attribute(2, be32(base)),
    attribute(3, be32(offset)),
    attribute(4, be32(length)),
  ]);

/** Goes on with the rule when the register equals (or differs from) the value. */
export const compare = (register: number, how: 'equal' | 'differs', value: Uint8Array): Expression =>
  expression('cmp', [
    attribute(1, be32(register)),
    attribute(2, be32(how === 'equal' ? 0 : 1)),
    nested(3, [attribute(1, value)]),
  ]);

/** Keeps the bits of the register that are set in the mask. */
export const mask = (register: number, bits: Uint8Array): Expression =>
  expression('bitwise', [
    attribute(1, be32(register)),
    attribute(2, be32(register)),
    attribute(3, be32(bits.length)),
    nested(4, [attribute(1, bits)]),
    nested(5, [attribute(1, new Uint8Array(bits.length))]),
  ]);

/** Loads a connection tracking field into a register. */
export const conntrack = (key: number, register: number): Expression =>
  expression('ct', [attribute(2, be32(key)), attribute(1, be32(register))]);

/** Loads the route type of the destination address (RTN_LOCAL is 2) into a register. */
export const destinationRouteType = (register: number): Expression =>
  expression('fib', [attribute(1, be32(register)), attribute(2, be32(3)), attribute(3, be32(1 << 1))]);

/** Looks the key up in a map and loads its value; a key that is not there ends the rule. */
export const lookup = (map: MapShape, keyRegister: number, valueRegister: number): Expression =>
  expression('lookup', [
    attribute(1, cstring(map.name)),
    attribute(2, be32(keyRegister)),
    attribute(3, be32(valueRegister)),
    attribute(4, be32(map.id)),
  ]);

/** Rewrites destination address and port to what two registers hold. */
export const destinationNat = (family: TableFamily, addressRegister: number, portRegister: number): Expression =>
  expression('nat', [
    attribute(1, be32(1)),
    attribute(2, be32(family)),
    attribute(3, be32(addressRegister)),
    attribute(5, be32(portRegister)),
  ]);

/** Rewrites the source address to that of the interface the packet leaves by. */
export const masquerade = (): Expression => expression('masq', []);

export const jump = (chain: string): Expression => verdict(-3, chain);
export const accept = (): Expression => verdict(1);
export const drop = (): Expression => verdict(0);

const verdict = (code: number, chain?: string): Expression =>
  expression('immediate', [
    attribute(1, be32(0)),
    nested(2, [nested(2, [attribute(1, be32(code)), ...(chain === undefined ? [] : [attribute(2, cstring(chain))])])]),
  ]);

/** An interface name as meta compares it: 16 bytes, zero padded. */
export function interfaceName(name: string): Uint8Array {
  const bytes = Buffer.alloc(16);
  bytes.write(name, 0, 15);
  return bytes;
}
