/** What the built-in network has given to one sandbox; enough to take it back after a restart. */
import { createHash } from 'node:crypto';
import { RuntimeError } from '../../kit/errors.js';
import type { PublishedPort } from './firewall.js';
import type { PodIdentity } from './pod-network.js';

export interface Attachment {
  readonly version: 1;
  readonly sandboxId: string;
  readonly pod: PodIdentity;
  /** The host's end of the cable. */
  readonly link: string;
  readonly ips: readonly string[];
  readonly ports: readonly PublishedPort[];
  /** Given back by the pod; only its interface may still be on its way out. */
  readonly leaving: boolean;
}

/** Throws `corrupt` for what is no attachment. */
export function checkAttachment(value: unknown): Attachment {
  const record = value as Partial<Attachment> | null;
  const sound =
    typeof record === 'object' &&
    record?.version === 1 &&
    typeof record.sandboxId === 'string' &&
    typeof record.link === 'string' &&
    Array.isArray(record.ips) &&
    Array.isArray(record.ports);
  if (!sound) throw new RuntimeError('corrupt', 'no attachment of the built-in network');
  return record as Attachment;
}

/** Starts every interface of ours; with the hash 14 characters, one below the kernel's limit. */
export const linkPrefix = 'vb';

/** The same for one sandbox and bridge whenever it is asked, and different for all others. */
export const linkName = (bridge: string, sandboxId: string): string =>
  linkPrefix + createHash('sha256').update(`${bridge}/${sandboxId}`).digest('hex').slice(0, 12);
