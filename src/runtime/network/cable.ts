/** The cable between a pod and the bridge: a veth pair, and the pod's end of it made ready. */
import { closeSync, openSync } from 'node:fs';
import { RuntimeError } from '../../kit/errors.js';
import type { Netlink, NetlinkSend } from '../../native/netlink/netlink.js';
import type { AddressPool } from './addresses.js';
import type { Attachment } from './attachment.js';
import { type Bridge, macFor } from './bridge.js';
import { parseIp } from './ip.js';
import { podSideSteps } from './pod-side.js';
import { interfaceName } from './pod-network.js';

/** The MAC address of a pod follows from its primary address. */
export const podMac = (attachment: Attachment): Uint8Array =>
  macFor(parseIp(attachment.ips[0] ?? '') ?? new Uint8Array(4));

/**
 * Makes the pair, one end a port of the bridge, the other born in the pod's namespace. Resolves with the index of the
 * pod's end in its namespace.
 */
export async function plugCable(
  netlink: Netlink,
  send: NetlinkSend,
  to: { readonly netnsPath: string; readonly attachment: Attachment; readonly bridge: Bridge },
): Promise<number> {
  const { rtnetlink } = netlink;
  const name = to.attachment.link;
  const fd = openSync(to.netnsPath, 'r');
  try {
    const peer = { name: interfaceName, netnsFd: fd, mac: podMac(to.attachment) };
    const pair = { name, masterIndex: to.bridge.index, mtu: to.bridge.mtu, peer };
    const answers = await netlink.exchange(send, [
      { doing: `create veth pair ${name}`, message: rtnetlink.newVeth(pair) },
      // A pod that calls its own host port gets the frame back on the port it came from, where bridges are filtered.
      ...(to.attachment.ports.length === 0
        ? []
        : [{ doing: `set hairpin mode of ${name}`, message: rtnetlink.setHairpin({ name }) }]),
      { doing: `look for ${name}`, message: rtnetlink.getLink({ name }) },
    ]);
    const index = rtnetlink.decodeLinks(answers)[0]?.peer;
    if (index === undefined) throw new RuntimeError('internal', `create veth pair ${name}: the kernel names no peer`);
    return index;
  } finally {
    closeSync(fd);
  }
}

/** Brings up the pod's end and `lo`, with addresses and default routes. `send` speaks in the pod's namespace. */
export async function configurePod(
  netlink: Netlink,
  send: NetlinkSend,
  of: { readonly attachment: Attachment; readonly pools: readonly AddressPool[]; readonly index: number },
): Promise<void> {
  const addresses = of.attachment.ips.flatMap((ip) => {
    const address = parseIp(ip);
    const pool = of.pools.find(({ prefix }) => prefix.family === (address?.length === 4 ? 4 : 6));
    if (address === undefined || pool === undefined) return [];
    return [{ address, prefixLength: pool.prefix.length, gateway: pool.gateway }];
  });
  await netlink.exchange(send, podSideSteps(netlink, of.index, addresses));
}
