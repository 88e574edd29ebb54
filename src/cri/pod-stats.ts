/** Usage of pods, and everything the kernel counts as metrics. */
import type * as wire from '../../api/cri/v1/generated/api.js';
import type { Runtime } from '../runtime/facade.js';
import { reads, type MakeHandler, type MakeStreamHandler } from './handler.js';
import { chunks } from './streamed-lists.js';
import { objectId } from './translate/container.js';
import { metricDescriptors, wirePodMetrics } from './translate/metrics.js';
import { sandboxFilter } from './translate/sandbox.js';
import { wireSandboxStats } from './translate/stats.js';

export function podStatsMethods({ sandboxes }: Runtime, handle: MakeHandler, stream: MakeStreamHandler) {
  const list = async (filter: wire.PodSandboxStatsFilter | undefined): Promise<wire.PodSandboxStats[]> => {
    const { id = '', labelSelector = {} } = filter ?? {};
    return (await sandboxes.listStats(sandboxFilter({ id, labelSelector, state: undefined }))).map(wireSandboxStats);
  };
  const metrics = async (): Promise<wire.PodSandboxMetrics[]> => (await sandboxes.listUsage()).map(wirePodMetrics);
  return {
    podSandboxStats: handle(
      reads('PodSandboxStats', ({ podSandboxId }: wire.PodSandboxStatsRequest) => ({ sandbox: podSandboxId })),
      async (request): Promise<wire.PodSandboxStatsResponse> => ({
        stats: wireSandboxStats(await sandboxes.stats(objectId('pod_sandbox_id', request.podSandboxId))),
      }),
    ),
    listPodSandboxStats: handle(
      reads('ListPodSandboxStats'),
      async (request: wire.ListPodSandboxStatsRequest): Promise<wire.ListPodSandboxStatsResponse> => ({
        stats: await list(request.filter),
      }),
    ),
    streamPodSandboxStats: stream(reads('StreamPodSandboxStats'), async (request: wire.StreamPodSandboxStatsRequest) =>
      chunks(await list(request.filter), (podSandboxStats) => ({ podSandboxStats })),
    ),
    listMetricDescriptors: handle(reads('ListMetricDescriptors'), (): wire.ListMetricDescriptorsResponse => ({
      descriptors: metricDescriptors(),
    })),
    listPodSandboxMetrics: handle(
      reads('ListPodSandboxMetrics'),
      async (): Promise<wire.ListPodSandboxMetricsResponse> => ({ podMetrics: await metrics() }),
    ),
    streamPodSandboxMetrics: stream(reads('StreamPodSandboxMetrics'), async () =>
      chunks(await metrics(), (podSandboxMetrics) => ({ podSandboxMetrics })),
    ),
  };
}
