/** A chain of plugins as one network: the configuration each of them gets, and their order (CNI spec, section 3). */
import { RuntimeError } from '../../kit/errors.js';
import { bandwidthOf } from './bandwidth.js';
import { type CniConfig, type CniPlugin, atLeast } from './cni-config.js';
import { type CniTarget, type PluginRunner, runPlugin } from './cni-plugin.js';
import { type CniResult, convertResult, parseResult } from './cni-result.js';
import type { NetworkRequest } from './pod-network.js';

/** Arguments for plugins by the capability that asks for them. */
export type CapabilityArgs = Readonly<Record<string, unknown>>;

export interface ChainCall {
  readonly config: CniConfig;
  readonly target: CniTarget;
  readonly capabilityArgs: CapabilityArgs;
  readonly runner: PluginRunner;
}

/** Runs ADD of every plugin, each with the result of the one before, and returns the last result. */
export async function addChain(call: ChainCall, signal: AbortSignal): Promise<CniResult> {
  let result: CniResult | undefined;
  for (const plugin of call.config.plugins) {
    const answer = await run('ADD', call, plugin, result, signal);
    result = convertResult(parseResult(answer, plugin.type), call.config.cniVersion);
  }
  return result ?? {};
}

/**
 * Runs DEL of every plugin, last first. With a namespace that is gone (`target.netns` is '') a failing plugin does not
 * keep the others from freeing what they hold, and is only reported.
 */
export async function deleteChain(
  call: ChainCall,
  result: CniResult | undefined,
  report: (message: string) => void,
  signal: AbortSignal,
): Promise<void> {
  // DEL knows prevResult since 0.4.0.
  const known = atLeast(call.config.cniVersion, '0.4.0') ? result : undefined;
  for (const plugin of [...call.config.plugins].reverse()) {
    try {
      await run('DEL', call, plugin, known, signal);
    } catch (error) {
      if (call.target.netns !== '' || signal.aborted) throw error;
      report(`network namespace is gone, so this is let pass: ${(error as Error).message}`);
    }
  }
}

/** Runs CHECK of every plugin; a chain older than 0.4.0 or with `disableCheck` has none. */
export async function checkChain(call: ChainCall, result: CniResult, signal: AbortSignal): Promise<void> {
  if (!atLeast(call.config.cniVersion, '0.4.0') || call.config.disableCheck) return;
  for (const plugin of call.config.plugins) await run('CHECK', call, plugin, result, signal);
}

/** Asks every plugin whether it could serve an ADD now (1.1.0); throws what the first one misses. */
export async function statusOfChain(config: CniConfig, runner: PluginRunner): Promise<void> {
  if (!atLeast(config.cniVersion, '1.1.0')) return;
  for (const plugin of config.plugins) {
    const { type } = plugin;
    await runPlugin({ command: 'STATUS', type, network: config.name, config: pluginConfig(config, plugin) }, runner);
  }
}

/** Tells every plugin which attachments are alive (1.1.0); all of them are asked, the first failure is thrown. */
export async function collectChain(config: CniConfig, runner: PluginRunner, alive: readonly object[]): Promise<void> {
  if (!atLeast(config.cniVersion, '1.1.0') || config.disableGc) return;
  const valid = { 'cni.dev/valid-attachments': alive, 'cni.dev/attachments': alive };
  const runs = config.plugins.map((plugin) => {
    const whole = { ...pluginConfig(config, plugin), ...valid };
    return runPlugin({ command: 'GC', type: plugin.type, network: config.name, config: whole }, runner);
  });
  const failed = (await Promise.allSettled(runs)).find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

function run(
  command: 'ADD' | 'DEL' | 'CHECK',
  { config, target, capabilityArgs, runner }: ChainCall,
  plugin: CniPlugin,
  prevResult: CniResult | undefined,
  signal: AbortSignal,
): Promise<unknown> {
  const wanted = plugin.capabilities.filter((name) => capabilityArgs[name] !== undefined);
  const runtimeConfig = Object.fromEntries(wanted.map((name) => [name, capabilityArgs[name]]));
  const whole = {
    ...pluginConfig(config, plugin),
    ...(wanted.length === 0 ? {} : { runtimeConfig }),
    ...(prevResult === undefined ? {} : { prevResult }),
  };
  return runPlugin({ command, type: plugin.type, network: config.name, config: whole, target }, runner, signal);
}

const pluginConfig = (config: CniConfig, plugin: CniPlugin): Record<string, unknown> => ({
  ...plugin.raw,
  name: config.name,
  cniVersion: config.cniVersion,
});

/** What the pod asks of plugins that offer these capabilities; the names are those of the CNI conventions. */
export function capabilityArgsOf(request: NetworkRequest): CapabilityArgs {
  const { dns } = request;
  const ports = request.portMappings.filter((mapping) => mapping.hostPort > 0);
  const rates = bandwidthOf(request.annotations);
  return {
    ...(ports.length === 0 ? {} : { portMappings: ports.map(portArg) }),
    ...(rates === undefined ? {} : { bandwidth: bandwidthArg(rates) }),
    ...(request.ips === undefined ? {} : { ips: request.ips }),
    ...(request.mac === undefined ? {} : { mac: request.mac }),
    ...(dns === undefined ? {} : { dns: { servers: dns.servers, searches: dns.searches, options: dns.options } }),
    ...(request.cgroupParent === '' ? {} : { cgroupPath: request.cgroupParent }),
    'io.kubernetes.cri.pod-annotations': request.annotations,
  };
}

const portArg = (mapping: NetworkRequest['portMappings'][number]) => ({
  hostPort: mapping.hostPort,
  containerPort: mapping.containerPort,
  protocol: mapping.protocol,
  hostIP: mapping.hostIp ?? '',
});

/** The plugin wants a burst with each rate: a tenth of a second's worth, within what it accepts. Bits. */
function bandwidthArg({ ingressRate, egressRate }: { ingressRate?: number; egressRate?: number }) {
  const burst = (rate: number): number => Math.min(0xffffffff, Math.max(256_000, Math.ceil(rate / 10)));
  return {
    ...(ingressRate === undefined ? {} : { ingressRate, ingressBurst: burst(ingressRate) }),
    ...(egressRate === undefined ? {} : { egressRate, egressBurst: burst(egressRate) }),
  };
}

/** CNI_ARGS of Kubernetes. Values that would break the list (none of Kubernetes' names can) are refused. */
export function cniArgsOf(request: {
  readonly sandboxId: string;
  readonly pod: NetworkRequest['pod'];
}): [string, string][] {
  const args: [string, string][] = [
    ['IgnoreUnknown', '1'],
    ['K8S_POD_NAMESPACE', request.pod.namespace],
    ['K8S_POD_NAME', request.pod.name],
    ['K8S_POD_INFRA_CONTAINER_ID', request.sandboxId],
    ['K8S_POD_UID', request.pod.uid],
  ];
  for (const [key, value] of args) {
    if (/[;=]/.test(value)) throw new RuntimeError('invalid-argument', `${key}: "${value}" holds a ; or =`);
  }
  return args;
}
