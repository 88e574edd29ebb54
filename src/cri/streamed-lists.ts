/** The lists as streams of chunks, and the events. */
import * as wire from '../../api/cri/v1/generated/api.js';
import type { Runtime, RuntimeEvent } from '../runtime/facade.js';
import { reads, type MakeStreamHandler } from './handler.js';
import { containerFilter, statsFilter } from './translate/container.js';
import { wireContainer, wireContainerStatus } from './translate/container-status.js';
import { sandboxFilter, wireSandbox, wireSandboxStatus } from './translate/sandbox.js';
import { wireContainerStats } from './translate/stats.js';

/** Items in one message: some hundred KiB at most. */
const chunkItems = 100;

/** Every item once, none in an empty message. */
export function* chunks<T, Response>(items: readonly T[], response: (chunk: T[]) => Response): Generator<Response> {
  for (let at = 0; at < items.length; at += chunkItems) yield response(items.slice(at, at + chunkItems));
}

export function streamedLists(runtime: Runtime, stream: MakeStreamHandler) {
  const { sandboxes, containers } = runtime;
  return {
    streamPodSandboxes: stream(reads('StreamPodSandboxes'), (request: wire.StreamPodSandboxesRequest) =>
      chunks(sandboxes.list(sandboxFilter(request.filter)), (chunk) => ({ podSandboxes: chunk.map(wireSandbox) })),
    ),
    streamContainers: stream(reads('StreamContainers'), (request: wire.StreamContainersRequest) =>
      chunks(containers.list(containerFilter(request.filter)), (chunk) => ({ containers: chunk.map(wireContainer) })),
    ),
    streamContainerStats: stream(reads('StreamContainerStats'), async (request: wire.StreamContainerStatsRequest) =>
      chunks(await containers.listStats(statsFilter(request.filter)), (chunk) => ({
        containerStats: chunk.map(wireContainerStats),
      })),
    ),
    getContainerEvents: stream(reads('GetContainerEvents'), (_request: wire.GetEventsRequest, call) =>
      wireEvents(runtime.events(call.signal)),
    ),
  };
}

const eventTypes = {
  created: wire.ContainerEventType.CONTAINER_CREATED_EVENT,
  started: wire.ContainerEventType.CONTAINER_STARTED_EVENT,
  stopped: wire.ContainerEventType.CONTAINER_STOPPED_EVENT,
  deleted: wire.ContainerEventType.CONTAINER_DELETED_EVENT,
} as const;

async function* wireEvents(events: AsyncIterable<RuntimeEvent>): AsyncGenerator<wire.ContainerEventResponse> {
  for await (const { type, objectId, timestamp, sandbox, containers } of events) {
    yield {
      containerId: objectId,
      containerEventType: eventTypes[type],
      createdAt: timestamp,
      podSandboxStatus: sandbox && wireSandboxStatus(sandbox),
      containersStatuses: containers.map((view) => wireContainerStatus(view)),
    };
  }
}
