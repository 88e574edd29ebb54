import type { NetlinkSend } from '../../native/netlink/socket.js';
import type { Call } from '../../kit/call.js';
import type { DnsConfig, PortMapping, StringMap } from '../model.js';

/**
 * A pod's network, whoever makes it: CNI plugins (`cni.ts`) or Berth itself (`builtin.ts`).
 *
 * The caller creates the network namespace and pins it, registers `detach` as undo, and then calls `attach`, because
 * an attach that fails may leave things behind. `detach` converges: it may be called any number of times, after a
 * restart of the agent, and when the namespace is already gone.
 */
export interface PodNetwork {
  /** Gives the namespace its `eth0`, its addresses and routes, and publishes the pod's host ports. Brings `lo` up. */
  attach(pod: NetworkRequest, call: Call): Promise<NetworkResult>;
  /** Frees everything `attach` made, from what was recorded then; a sandbox never seen is success. */
  detach(pod: DetachRequest, call: Call): Promise<void>;
  /** Asks whether the network is still as `attach` left it; throws when it is not. */
  check(pod: NetworkRequest, call: Call): Promise<void>;
  /** Frees what belongs to sandboxes that are not in the set: addresses, interfaces, port rules, cached results. */
  reconcile(liveSandboxIds: ReadonlySet<string>, call: Call): Promise<void>;
  status(): NetworkStatus;
  /** Facts for verbose status. */
  info(): Readonly<Record<string, unknown>>;
  close(): Promise<void>;
}

/** What is known of a sandbox whose network goes; enough even when the request that made it is long forgotten. */
export interface DetachRequest {
  readonly sandboxId: string;
  /** Where the namespace was pinned; need not exist any more. */
  readonly netnsPath: string;
  readonly pod: PodIdentity;
}

export interface PodIdentity {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
}

export interface NetworkRequest extends DetachRequest {
  readonly portMappings: readonly PortMapping[];
  readonly annotations: StringMap;
  readonly labels: StringMap;
  readonly dns?: DnsConfig;
  readonly cgroupParent: string;
  /** Addresses and MAC address to ask CNI plugins for, when the pod must have certain ones. */
  readonly ips?: readonly string[];
  readonly mac?: string;
  /** Speaks NETLINK_ROUTE inside the pod's network namespace; the pod's shim does it. */
  readonly netlink: NetlinkSend;
}

export interface NetworkResult {
  /** The pod's addresses without prefix length, the primary one first. */
  readonly ips: readonly string[];
  readonly interfaceName: 'eth0';
  readonly mac: string;
  /** What the plugins answered, for verbose status. */
  readonly raw?: unknown;
}

export interface NetworkStatus {
  readonly ready: boolean;
  /** A CamelCase word, '' when ready. */
  readonly reason: string;
  /** A sentence that says what is missing and where, '' when ready. */
  readonly message: string;
}

export const interfaceName = 'eth0';
export const networkReady: NetworkStatus = { ready: true, reason: '', message: '' };
