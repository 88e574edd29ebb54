import type { InterfaceUsage } from '../facade.js';

/** Numbers of rtnetlink (linux/netlink.h, rtnetlink.h, if_link.h). */
const getLink = 18;
const newLink = 16;
const requestDump = 0x301;
const headerBytes = 16;
const linkBytes = 16;
const nameAttribute = 3;
const stats64Attribute = 23;
const loopbackFlag = 8;

/** Asks for every link of a namespace. */
export function linkRequest(): Uint8Array {
  const message = Buffer.alloc(headerBytes + linkBytes);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(getLink, 4);
  message.writeUInt16LE(requestDump, 6);
  message.writeUInt32LE(1, 8);
  return message;
}

/** The counters in the kernel's answer, loopback left out. What cannot be read is skipped. */
export function readLinks(answer: Uint8Array): readonly InterfaceUsage[] {
  const bytes = Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength);
  const links: InterfaceUsage[] = [];
  for (let at = 0; at + headerBytes <= bytes.length;) {
    const length = bytes.readUInt32LE(at);
    if (length < headerBytes || at + length > bytes.length) break;
    if (bytes.readUInt16LE(at + 4) === newLink && length >= headerBytes + linkBytes) {
      const link = readLink(bytes.subarray(at + headerBytes, at + length));
      if (link !== undefined) links.push(link);
    }
    at += (length + 3) & ~3;
  }
  return links;
}

function readLink(message: Buffer): InterfaceUsage | undefined {
  if ((message.readUInt32LE(8) & loopbackFlag) !== 0) return undefined;
  let name: string | undefined;
  let stats: Buffer | undefined;
  for (let at = linkBytes; at + 4 <= message.length;) {
    const length = message.readUInt16LE(at);
    if (length < 4 || at + length > message.length) break;
    const value = message.subarray(at + 4, at + length);
    const type = message.readUInt16LE(at + 2) & 0x3fff;
    if (type === nameAttribute) name = value.toString('latin1').replace(/\0.*$/, '');
    if (type === stats64Attribute) stats = value;
    at += (length + 3) & ~3;
  }
  return name === undefined || stats === undefined || stats.length < 64 ? undefined : { name, ...counters(stats) };
}

/** The order of struct rtnl_link_stats64. */
const counters = (stats: Buffer): Omit<InterfaceUsage, 'name'> => ({
  rxPackets: stats.readBigUInt64LE(0),
  txPackets: stats.readBigUInt64LE(8),
  rxBytes: stats.readBigUInt64LE(16),
  txBytes: stats.readBigUInt64LE(24),
  rxErrors: stats.readBigUInt64LE(32),
  txErrors: stats.readBigUInt64LE(40),
  rxDropped: stats.readBigUInt64LE(48),
  txDropped: stats.readBigUInt64LE(56),
});
