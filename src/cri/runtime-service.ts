/** RuntimeService: each RPC is a translation, one call of the runtime, and a translation back. */
import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import * as wire from '../../api/cri/v1/generated/api.js';
import { invalid } from '../kit/errors.js';
import type { ContainerView, ExecOutcome, Runtime, SandboxView } from '../runtime/facade.js';
import { ListEncoder, alreadyEncoded } from './encoded-list.js';
import { changes, reads, unimplemented } from './handler.js';
import type { MakeHandler, MakeStreamHandler } from './handler.js';
import { podStatsMethods } from './pod-stats.js';
import { streamedLists } from './streamed-lists.js';
import { streamingMethods } from './streaming/methods.js';
import type { StreamingServer } from './streaming/server.js';
import { containerConfig, containerFilter, objectId, statsFilter } from './translate/container.js';
import { wireContainer, wireContainerStatus } from './translate/container-status.js';
import { atLeast, copyMap, integer, line, texts } from './translate/fields.js';
import { linuxResources } from './translate/resources.js';
import { sandboxConfig, sandboxFilter, wireSandbox, wireSandboxStatus } from './translate/sandbox.js';
import { wireContainerStats } from './translate/stats.js';
import { wireCgroupDriver, wireInfo, wireObjectInfo, wireStatus } from './translate/status.js';

/** What these answers cannot know from the runtime itself. */
export interface RuntimeIdentity {
  readonly name: string;
  /** Semantic version. */
  readonly version: string;
}

const apiVersion = 'v1';

/** The generated definition, with the two lists that encode themselves. */
export const runtimeServiceDefinition = {
  ...wire.RuntimeServiceService,
  listPodSandbox: { ...wire.RuntimeServiceService.listPodSandbox, responseSerialize: alreadyEncoded },
  listContainers: { ...wire.RuntimeServiceService.listContainers, responseSerialize: alreadyEncoded },
};

type Methods = Record<keyof typeof runtimeServiceDefinition, UntypedServiceImplementation[string]>;

const sandboxId = (request: { readonly podSandboxId: string }) => objectId('pod_sandbox_id', request.podSandboxId);
const containerId = (request: { readonly containerId: string }) => objectId('container_id', request.containerId);

const ofSandbox = (request: { readonly podSandboxId: string }) => ({ sandbox: request.podSandboxId });
const ofContainer = (request: { readonly containerId: string }) => ({ container: request.containerId });

export interface HandlerMakers {
  readonly handle: MakeHandler;
  readonly stream: MakeStreamHandler;
}

export function runtimeService(
  runtime: Runtime,
  identity: RuntimeIdentity,
  { handle, stream }: HandlerMakers,
  streaming?: StreamingServer,
): Methods {
  return {
    ...aboutRuntime(runtime, identity, handle),
    ...aboutSandboxes(runtime, handle),
    ...aboutContainers(runtime, handle),
    ...aboutRunningContainers(runtime, handle),
    ...later(),
    ...podStatsMethods(runtime, handle, stream),
    ...streamedLists(runtime, stream),
    ...(streaming === undefined ? {} : streamingMethods(runtime, streaming, handle)),
  };
}

function aboutRuntime(runtime: Runtime, identity: RuntimeIdentity, handle: MakeHandler) {
  return {
    version: handle(reads<wire.VersionRequest>('Version'), (request): wire.VersionResponse => ({
      version: request.version === '' ? apiVersion : request.version,
      runtimeName: identity.name,
      runtimeVersion: identity.version,
      runtimeApiVersion: apiVersion,
    })),
    status: handle(reads<wire.StatusRequest>('Status'), (request): wire.StatusResponse => ({
      ...wireStatus(runtime.status()),
      info: request.verbose ? wireInfo(runtime.info()) : {},
    })),
    runtimeConfig: handle(reads<wire.RuntimeConfigRequest>('RuntimeConfig'), (): wire.RuntimeConfigResponse => ({
      linux: { cgroupDriver: wireCgroupDriver(runtime.runtimeConfig()) },
    })),
    updateRuntimeConfig: handle(
      changes<wire.UpdateRuntimeConfigRequest>('UpdateRuntimeConfig', (request) => ({ podCidr: podCidr(request) })),
      async (request): Promise<wire.UpdateRuntimeConfigResponse> => {
        await runtime.updateRuntimeConfig(line('runtime_config.network_config.pod_cidr', podCidr(request)));
        return {};
      },
    ),
  };
}

const podCidr = (request: wire.UpdateRuntimeConfigRequest): string =>
  request.runtimeConfig?.networkConfig?.podCidr ?? '';

function aboutSandboxes({ sandboxes, containers }: Runtime, handle: MakeHandler) {
  const list = new ListEncoder<SandboxView, wire.PodSandbox>(1, wire.PodSandbox, wireSandbox);
  return {
    runPodSandbox: handle(changes('RunPodSandbox', ofNewSandbox), async (request: wire.RunPodSandboxRequest, call) => {
      const config = sandboxConfig('config', request.config);
      const runtimeHandler = line('runtime_handler', request.runtimeHandler);
      return { podSandboxId: await sandboxes.run({ config, runtimeHandler }, call) };
    }),
    stopPodSandbox: handle(changes('StopPodSandbox', ofSandbox), async (request: wire.StopPodSandboxRequest, call) => {
      await sandboxes.stop(sandboxId(request), call);
      return {};
    }),
    removePodSandbox: handle(
      changes('RemovePodSandbox', ofSandbox),
      async (request: wire.RemovePodSandboxRequest, call) => {
        await sandboxes.remove(sandboxId(request), call);
        return {};
      },
    ),
    podSandboxStatus: handle(
      reads('PodSandboxStatus', ofSandbox),
      (request: wire.PodSandboxStatusRequest): wire.PodSandboxStatusResponse => ({
        status: wireSandboxStatus(sandboxes.status(sandboxId(request))),
        info: request.verbose ? wireObjectInfo(sandboxes.inspect(sandboxId(request))) : {},
        containersStatuses: containers
          .list({ sandboxId: sandboxes.status(sandboxId(request)).id })
          .map((view) => wireContainerStatus(view)),
        timestamp: BigInt(Date.now()) * 1_000_000n,
      }),
    ),
    updatePodSandboxResources: handle(
      changes('UpdatePodSandboxResources', ofSandbox),
      async (request: wire.UpdatePodSandboxResourcesRequest, call) => {
        const { overhead, resources } = request;
        const change = {
          ...(overhead === undefined ? {} : { overhead: linuxResources('overhead', overhead) }),
          ...(resources === undefined ? {} : { resources: linuxResources('resources', resources) }),
        };
        await sandboxes.updateResources(sandboxId(request), change, call);
        return {};
      },
    ),
    listPodSandbox: handle(reads('ListPodSandbox'), (request: wire.ListPodSandboxRequest) =>
      list.encode(sandboxes.list(sandboxFilter(request.filter))),
    ),
  };
}

function ofNewSandbox({ config, runtimeHandler }: wire.RunPodSandboxRequest) {
  const { name, namespace, uid, attempt } = config?.metadata ?? wire.PodSandboxMetadata.create();
  return { pod: `${namespace}/${name}`, uid, attempt, handler: runtimeHandler === '' ? undefined : runtimeHandler };
}

function aboutContainers({ containers }: Runtime, handle: MakeHandler) {
  const list = new ListEncoder<ContainerView, wire.Container>(1, wire.Container, wireContainer);
  return {
    createContainer: handle(
      changes('CreateContainer', ofNewContainer),
      async (request: wire.CreateContainerRequest, call) => {
        const input = { sandboxId: sandboxId(request), config: containerConfig('config', request.config) };
        if (request.sandboxConfig === undefined) return { containerId: await containers.create(input, call) };
        const ofPod = sandboxConfig('sandbox_config', request.sandboxConfig);
        return { containerId: await containers.create({ ...input, sandboxConfig: ofPod }, call) };
      },
    ),
    startContainer: handle(
      changes('StartContainer', ofContainer),
      async (request: wire.StartContainerRequest, call) => {
        await containers.start(containerId(request), call);
        return {};
      },
    ),
    stopContainer: handle(changes('StopContainer', ofStop), async (request: wire.StopContainerRequest, call) => {
      await containers.stop(containerId(request), integer('timeout', request.timeout), call);
      return {};
    }),
    removeContainer: handle(
      changes('RemoveContainer', ofContainer),
      async (request: wire.RemoveContainerRequest, call) => {
        await containers.remove(containerId(request), call);
        return {};
      },
    ),
    containerStatus: handle(
      reads('ContainerStatus', ofContainer),
      (request: wire.ContainerStatusRequest): wire.ContainerStatusResponse => ({
        status: wireContainerStatus(containers.status(containerId(request))),
        info: request.verbose ? wireObjectInfo(containers.inspect(containerId(request))) : {},
      }),
    ),
    listContainers: handle(reads('ListContainers'), (request: wire.ListContainersRequest) =>
      list.encode(containers.list(containerFilter(request.filter))),
    ),
  };
}

function ofNewContainer({ podSandboxId, config }: wire.CreateContainerRequest) {
  const { name, attempt } = config?.metadata ?? wire.ContainerMetadata.create();
  return { sandbox: podSandboxId, name, attempt, image: config?.image?.image };
}

const ofStop = (request: wire.StopContainerRequest) => ({
  container: request.containerId,
  timeout: String(request.timeout),
});

const ofCheckpoint = (request: wire.CheckpointContainerRequest) => ({
  container: request.containerId,
  location: request.location,
});

function aboutRunningContainers({ containers }: Runtime, handle: MakeHandler) {
  return {
    updateContainerResources: handle(
      changes('UpdateContainerResources', ofContainer),
      async (request: wire.UpdateContainerResourcesRequest, call) => {
        const resources = linuxResources('linux', request.linux);
        await containers.updateResources(containerId(request), resources, copyMap(request.annotations), call);
        return {};
      },
    ),
    reopenContainerLog: handle(
      changes('ReopenContainerLog', ofContainer),
      async (request: wire.ReopenContainerLogRequest, call) => {
        await containers.reopenLog(containerId(request), call);
        return {};
      },
    ),
    checkpointContainer: handle(
      changes('CheckpointContainer', ofCheckpoint),
      async (request: wire.CheckpointContainerRequest, call) => {
        const timeoutSeconds = atLeast('timeout', integer('timeout', request.timeout), 0);
        const { location } = request;
        await containers.checkpoint(containerId(request), { location, timeoutSeconds }, call);
        return {};
      },
    ),
    execSync: handle(changes('ExecSync', ofContainer), async (request: wire.ExecSyncRequest, call) => {
      if (request.cmd.length === 0) throw invalid('cmd', 'must not be empty');
      const timeout = atLeast('timeout', integer('timeout', request.timeout), 0);
      return asExecResponse(await containers.execSync(containerId(request), texts('cmd', request.cmd), timeout, call));
    }),
    containerStats: handle(
      reads('ContainerStats', ofContainer),
      async (request: wire.ContainerStatsRequest): Promise<wire.ContainerStatsResponse> => ({
        stats: wireContainerStats(await containers.stats(containerId(request))),
      }),
    ),
    listContainerStats: handle(
      reads('ListContainerStats'),
      async (request: wire.ListContainerStatsRequest): Promise<wire.ListContainerStatsResponse> => ({
        stats: (await containers.listStats(statsFilter(request.filter))).map(wireContainerStats),
      }),
    ),
  };
}

/** The generated encoder writes any Uint8Array; its type asks for Buffers. */
const asExecResponse = ({ stdout, stderr, exitCode }: ExecOutcome): wire.ExecSyncResponse => ({
  stdout: asBuffer(stdout),
  stderr: asBuffer(stderr),
  exitCode,
});

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Known to the contract, offered by a later release, or by an agent with a streaming server. */
function later() {
  return {
    exec: unimplemented('Exec'),
    attach: unimplemented('Attach'),
    portForward: unimplemented('PortForward'),
    checkpointPod: unimplemented('CheckpointPod'),
    restorePod: unimplemented('RestorePod'),
  };
}
