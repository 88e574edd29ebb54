/**
 * Pod networks made by CNI plugins. One network per node: the first configuration of a directory, by name. What a pod
 * was attached with (configuration, arguments, result) is on record before the first plugin runs, and DEL works from
 * that record alone, whatever has become of the configuration, the agent or the namespace.
 */
import { existsSync } from 'node:fs';
import { RuntimeError, messageOf } from '../../kit/errors.js';
import { KeyedLock } from '../../kit/keyed-lock.js';
import type { Call } from '../../kit/call.js';
import type { Netlink } from '../../native/netlink/netlink.js';
import {
  type CapabilityArgs,
  type ChainCall,
  addChain,
  capabilityArgsOf,
  checkChain,
  cniArgsOf,
  collectChain,
  deleteChain,
} from './cni-chain.js';
import { type CniDirectoryState, cniDirectory, parseCniConfig } from './cni-config.js';
import type { PluginRunner, SpawnPlugin } from './cni-plugin.js';
import { type CniResult, podIps, podMac } from './cni-result.js';
import { cniReadiness } from './cni-status.js';
import { type NetworkResult, type PodNetwork, interfaceName } from './pod-network.js';
import { raiseLoopback } from './pod-side.js';
import { openRecords } from './records.js';

export interface CniOptions {
  readonly configDirectory: string;
  readonly binDirectories: readonly string[];
  /** Where attachments are on record. */
  readonly cacheDirectory: string;
  /** Milliseconds for each plugin. */
  readonly pluginTimeoutMs: number;
}

export const cniDefaults = {
  configDirectory: '/etc/cni/net.d',
  binDirectories: ['/opt/cni/bin', '/usr/lib/cni'],
  pluginTimeoutMs: 60_000,
} as const;

export interface CniDeps {
  readonly netlink: Netlink;
  readonly spawn: SpawnPlugin;
  /** Environment that plugins inherit. */
  readonly env: Readonly<Record<string, string>>;
  readonly note: Call['observer']['note'];
}

export interface CniNetwork extends PodNetwork {
  /** True when the sandbox's network is this one's to detach. */
  has(sandboxId: string): boolean;
  /** True when there is a file that is, or should be, a configuration. */
  populated(): boolean;
}

/** The record of one attachment; the fields are those of libcni's cache. */
interface CniAttachment {
  readonly kind: 'cniCacheV1';
  readonly containerId: string;
  readonly ifName: string;
  readonly networkName: string;
  /** The configuration's text. */
  readonly config: string;
  readonly cniArgs: readonly (readonly [string, string])[];
  readonly capabilityArgs: CapabilityArgs;
  /** Absent until every plugin has succeeded. */
  readonly result?: CniResult;
}

export function createCniNetwork(options: CniOptions, deps: CniDeps): CniNetwork {
  const runner: PluginRunner = {
    binDirectories: options.binDirectories,
    spawn: deps.spawn,
    timeoutMs: options.pluginTimeoutMs,
    env: deps.env,
  };
  const warn = (message: string): void => deps.note('warn', message);
  const directory = cniDirectory(options.configDirectory, warn);
  const readiness = cniReadiness(directory, runner);
  const records = openRecords(options.cacheDirectory, checkRecord, (message) => deps.note('error', message));
  const lock = new KeyedLock();

  const chainOf = (record: CniAttachment, netnsPath: string): ChainCall => ({
    config: parseCniConfig(record.config),
    target: { containerId: record.containerId, netns: netnsPath, interfaceName: record.ifName, args: record.cniArgs },
    capabilityArgs: record.capabilityArgs,
    runner,
  });

  const detachHeld = async (sandboxId: string, netnsPath: string, call: Call): Promise<void> => {
    const record = records.get(sandboxId);
    if (record === undefined) return;
    const netns = netnsPath !== '' && existsSync(netnsPath) ? netnsPath : '';
    await call.observer.step('run CNI DEL', () =>
      deleteChain(chainOf(record, netns), record.result, warn, call.signal),
    );
    records.delete(sandboxId);
  };

  return {
    attach: (request, call) =>
      lock.hold(request.sandboxId, async () => {
        const config = configured(directory());
        // An earlier attempt may have left things behind.
        await detachHeld(request.sandboxId, request.netnsPath, call);
        const record: CniAttachment = {
          kind: 'cniCacheV1',
          containerId: request.sandboxId,
          ifName: interfaceName,
          networkName: config.name,
          config: config.text,
          cniArgs: cniArgsOf(request),
          capabilityArgs: capabilityArgsOf(request),
        };
        records.put(request.sandboxId, record);
        await deps.netlink.exchange(request.netlink, [raiseLoopback(deps.netlink)]);
        const result = await call.observer.step('run CNI ADD', () =>
          addChain(chainOf(record, request.netnsPath), call.signal),
        );
        records.put(request.sandboxId, { ...record, result });
        return resultOf(result, config.name);
      }),
    detach: ({ sandboxId, netnsPath }, call) => lock.hold(sandboxId, () => detachHeld(sandboxId, netnsPath, call)),
    async check({ sandboxId, netnsPath }, call) {
      const record = records.get(sandboxId);
      if (record?.result === undefined) throw new RuntimeError('not-found', `sandbox ${sandboxId} has no network`);
      await checkChain(chainOf(record, netnsPath), record.result, call.signal);
    },
    async reconcile(live, call) {
      for (const id of records.ids().filter((known) => !live.has(known))) {
        try {
          await lock.hold(id, () => detachHeld(id, '', call));
        } catch (error) {
          warn(`CNI DEL of dead sandbox ${id}: ${messageOf(error)}`);
        }
      }
      const { config } = directory();
      if (config === undefined) return;
      const alive = records.ids().map((id) => ({ containerID: id, ifname: interfaceName }));
      await collectChain(config, runner, alive).catch((error: unknown) => warn(`CNI GC: ${messageOf(error)}`));
    },
    status: readiness.status,
    info: () => {
      const { config } = directory();
      return {
        kind: 'cni',
        configDirectory: options.configDirectory,
        binDirectories: options.binDirectories,
        network: config?.name ?? '',
        cniVersion: config?.cniVersion ?? '',
        plugins: config?.plugins.map((plugin) => plugin.type) ?? [],
      };
    },
    has: (sandboxId) => records.get(sandboxId) !== undefined,
    populated: () => directory().populated,
    close: () => Promise.resolve(),
  };
}

function configured(state: CniDirectoryState): NonNullable<CniDirectoryState['config']> {
  if (state.config === undefined) throw new RuntimeError('unavailable', state.message);
  return state.config;
}

function resultOf(result: CniResult, network: string): NetworkResult {
  const ips = podIps(result, interfaceName);
  if (ips.length === 0)
    throw new RuntimeError('unavailable', `CNI network "${network}" gave ${interfaceName} no address`);
  return { ips, interfaceName, mac: podMac(result, interfaceName), raw: result };
}

function checkRecord(value: unknown): CniAttachment {
  const record = value as Partial<CniAttachment> | null;
  if (record?.kind === 'cniCacheV1' && typeof record.config === 'string' && Array.isArray(record.cniArgs)) {
    return record as CniAttachment;
  }
  throw new RuntimeError('corrupt', 'no CNI attachment');
}
