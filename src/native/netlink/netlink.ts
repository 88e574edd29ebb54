/** The whole netlink vocabulary as one value, so that it can be handed to those who may not import native code. */
import * as conntrack from './conntrack.js';
import { exchange } from './exchange.js';
import * as nftables from './nftables.js';
import * as rtnetlink from './rtnetlink.js';

export type { NetlinkSend, NetlinkSocket } from './socket.js';
export type { NetlinkStep } from './exchange.js';

export const netlink = { exchange, rtnetlink, nftables, conntrack } as const;

export type Netlink = typeof netlink;
