/** Tracked connections over netlink: finding those to one port, and forgetting them (nfnetlink_conntrack.h). */
import { NLM_F, attribute, be16, message, nested, parseAttributes, parseMessages, u32 } from './wire.js';

const subsystem = 1 << 8;
const IPCTNL_MSG = { new: 0, get: 1, delete: 2 } as const;
const CTA = { tupleOrig: 1, filter: 25 } as const;
const CTA_TUPLE_PROTO = 2;
const CTA_PROTO = { number: 1, destinationPort: 3 } as const;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
/** Compare protocol number and destination port. */
const filterFlags = (1 << 3) | (1 << 5);

/** A flow as its first packet came: `tuple` is what the kernel knows it by. */
export interface Flow {
  readonly protocol: number;
  readonly destinationPort: number;
  readonly tuple: Uint8Array;
}

/** Asks for the flows to a port. Kernels before 5.8 ignore the filter, so the answer has to be filtered again. */
export const dumpFlows = (family: number, protocol: number, destinationPort: number): Uint8Array =>
  message(subsystem | IPCTNL_MSG.get, NLM_F.dump, [
    Uint8Array.of(family, 0, 0, 0),
    nested(CTA.tupleOrig, [
      nested(CTA_TUPLE_PROTO, [
        attribute(CTA_PROTO.number, Uint8Array.of(protocol)),
        attribute(CTA_PROTO.destinationPort, be16(destinationPort)),
      ]),
    ]),
    nested(CTA.filter, [attribute(CTA_FILTER_ORIG_FLAGS, u32(filterFlags)), attribute(CTA_FILTER_REPLY_FLAGS, u32(0))]),
  ]);

/** Forgets a flow; ENOENT when it has ended meanwhile. */
export const deleteFlow = (family: number, flow: Flow): Uint8Array =>
  message(subsystem | IPCTNL_MSG.delete, NLM_F.ack, [
    Uint8Array.of(family, 0, 0, 0),
    attribute(CTA.tupleOrig | 0x8000, flow.tuple),
  ]);

/** The flows in the answers to `dumpFlows`. */
export function decodeFlows(answers: readonly Uint8Array[]): Flow[] {
  return answers
    .flatMap(parseMessages)
    .filter((answer) => answer.type === (subsystem | IPCTNL_MSG.new))
    .flatMap((answer) => {
      const tuple = parseAttributes(answer.payload.subarray(4)).get(CTA.tupleOrig);
      const protocol = parseAttributes(
        parseAttributes(tuple ?? new Uint8Array()).get(CTA_TUPLE_PROTO) ?? new Uint8Array(),
      );
      const port = protocol.get(CTA_PROTO.destinationPort);
      const number = protocol.get(CTA_PROTO.number)?.[0];
      if (tuple === undefined || port === undefined || number === undefined) return [];
      return [{ protocol: number, destinationPort: ((port[0] ?? 0) << 8) | (port[1] ?? 0), tuple }];
    });
}
