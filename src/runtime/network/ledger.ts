/**
 * Who holds which address and host port of the built-in network, on record in a directory. A sandbox enters before the
 * kernel hears of it and leaves after the kernel has forgotten it, so no crash gives an address or port to two pods.
 */
import { RuntimeError } from '../../kit/errors.js';
import { type AddressPool, createAddressPool } from './addresses.js';
import { type Attachment, checkAttachment, linkName } from './attachment.js';
import type { PublishedPort } from './firewall.js';
import { formatIp, parseIp, parsePrefix } from './ip.js';
import type { NetworkRequest } from './pod-network.js';
import { publishedPorts, refuseTakenPorts } from './port-table.js';
import { openRecords } from './records.js';

export interface Ledger {
  readonly pools: readonly AddressPool[];
  /** Throws `exhausted` without a free address, `already-exists` when another pod has one of the host ports. */
  enter(request: NetworkRequest): Attachment;
  /** The sandbox's ports are free again; its addresses only with `strike`. */
  markLeaving(attachment: Attachment): void;
  strike(sandboxId: string): void;
  get(sandboxId: string): Attachment | undefined;
  all(): Attachment[];
  /** Ports of the pods that are not leaving. */
  published(): PublishedPort[];
}

export interface LedgerOptions {
  readonly bridge: string;
  readonly subnets: readonly string[];
  readonly stateDirectory: string;
}

/** Reads what an earlier agent recorded. Throws `invalid-argument` for subnets that cannot be used. */
export function openLedger(options: LedgerOptions, report: (message: string) => void): Ledger {
  const pools = poolsOf(options.subnets);
  const records = openRecords(options.stateDirectory, checkAttachment, report);
  const attachments = new Map<string, Attachment>();
  for (const id of records.ids()) {
    const record = records.get(id);
    if (record !== undefined) attachments.set(id, record);
  }
  const each = (ips: readonly string[], use: (pool: AddressPool, address: Uint8Array) => void): void => {
    for (const address of ips.map(parseIp)) if (address !== undefined) for (const pool of pools) use(pool, address);
  };
  for (const { ips } of attachments.values()) each(ips, (pool, address) => pool.reserve(address));

  const save = (attachment: Attachment): void => {
    records.put(attachment.sandboxId, attachment);
    attachments.set(attachment.sandboxId, attachment);
  };
  const staying = (): Attachment[] => [...attachments.values()].filter((attachment) => !attachment.leaving);

  return {
    pools,
    enter({ sandboxId, pod, portMappings }) {
      const ips: string[] = [];
      try {
        for (const pool of pools) ips.push(formatIp(pool.allocate()));
        const ports = publishedPorts(portMappings, ips);
        refuseTakenPorts(ports, staying());
        const link = linkName(options.bridge, sandboxId);
        const attachment = { version: 1, sandboxId, pod, link, ips, ports, leaving: false } as const;
        save(attachment);
        return attachment;
      } catch (error) {
        each(ips, (pool, address) => pool.free(address));
        throw error;
      }
    },
    markLeaving: (attachment) => save({ ...attachment, ports: [], leaving: true }),
    strike(sandboxId) {
      each(attachments.get(sandboxId)?.ips ?? [], (pool, address) => pool.free(address));
      records.delete(sandboxId);
      attachments.delete(sandboxId);
    },
    get: (sandboxId) => attachments.get(sandboxId),
    all: () => [...attachments.values()],
    published: () => staying().flatMap((attachment) => attachment.ports),
  };
}

function poolsOf(subnets: readonly string[]): AddressPool[] {
  const pools = subnets.map((subnet) => createAddressPool(parsePrefix(subnet, 'subnet'), 'subnet'));
  const families = new Set(pools.map((pool) => pool.prefix.family));
  if (pools.length > 0 && families.size === pools.length) return pools;
  throw new RuntimeError('invalid-argument', 'subnets: want one per IP family, and at least one');
}
