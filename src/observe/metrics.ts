import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Measured, Observer } from '../kit/observer.js';

/** What the gauges show, read when they are asked for. */
export interface MetricSources {
  readonly shims?: () => number;
  readonly pods?: () => Readonly<Record<string, number>>;
  readonly containers?: () => Readonly<Record<string, number>>;
  readonly residue?: () => number;
}

/** Milliseconds matter below a tenth of a second, minutes in pulls. */
const rpcBuckets = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];
const remapBuckets = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
const stepBuckets = [0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30, 120];

/** Every metric Berth has, in one place. Durations are seconds. */
export const metricTable = {
  requestSeconds: ['berth_request_seconds', 'Time from a request’s arrival to its answer, by method and status.'],
  requestsInFlight: ['berth_requests_in_flight', 'Requests that have arrived and are not answered, by method.'],
  stepSeconds: ['berth_step_seconds', 'Time taken by one step of a request.'],
  stepFailures: ['berth_step_failures_total', 'Steps that failed.'],
  pulls: ['berth_image_pulls_total', 'Image pulls by outcome.'],
  pullBytes: ['berth_image_pull_bytes_total', 'Bytes of compressed layers downloaded.'],
  snapshots: [
    'berth_snapshots_total',
    'Container root file systems prepared, by how their files get the pod’s ids and whether that had to be made.',
  ],
  remapSeconds: ['berth_remap_seconds', 'Time to remap an image’s files for a user namespace, by way.'],
  shims: ['berth_shims', 'Running shims.'],
  pods: ['berth_pods', 'Pod sandboxes by state.'],
  containers: ['berth_containers', 'Containers by state.'],
  residue: ['berth_residue', 'Things that could not be cleaned up and are tried again.'],
  build: ['berth_build_info', 'Always 1; the label carries the release.'],
} as const;

const named = (metric: keyof typeof metricTable) => ({ name: metricTable[metric][0], help: metricTable[metric][1] });

export type Metrics = ReturnType<typeof createMetrics>;

/** A registry of its own, so that two agents in one process (tests) do not share counts. */
export function createMetrics(version: string, sources: MetricSources = {}) {
  const registry = new Registry();
  const on = { registers: [registry] };
  collectDefaultMetrics({ register: registry });
  new Gauge({ ...named('build'), labelNames: ['version'], ...on }).set({ version }, 1);
  addGauges(registry, sources);
  return {
    registry,
    measure: measuring(registry),
    requestSeconds: new Histogram({
      ...named('requestSeconds'),
      labelNames: ['method', 'status'],
      buckets: rpcBuckets,
      ...on,
    }),
    requestsInFlight: new Gauge({ ...named('requestsInFlight'), labelNames: ['method'], ...on }),
    stepSeconds: new Histogram({
      ...named('stepSeconds'),
      labelNames: ['method', 'step'],
      buckets: stepBuckets,
      ...on,
    }),
    stepFailures: new Counter({ ...named('stepFailures'), labelNames: ['method', 'step'], ...on }),
    pulls: new Counter({ ...named('pulls'), labelNames: ['outcome'], ...on }),
    pullBytes: new Counter({ ...named('pullBytes'), ...on }),
  };
}

function measuring(registry: Registry): NonNullable<Observer['measure']> {
  const on = { registers: [registry] };
  const snapshots = new Counter({ ...named('snapshots'), labelNames: ['way', 'remap'], ...on });
  const remaps = new Histogram({ ...named('remapSeconds'), labelNames: ['way'], buckets: remapBuckets, ...on });
  const by: Readonly<Record<Measured, NonNullable<Observer['measure']>>> = {
    snapshot: (_what, labels) => snapshots.inc({ ...labels }),
    remap: (_what, labels, seconds = 0) => remaps.observe({ ...labels }, seconds),
  };
  return (what, labels, seconds) => by[what](what, labels, seconds);
}

function addGauges(registry: Registry, sources: MetricSources): void {
  addCount(registry, 'shims', sources.shims);
  addCount(registry, 'residue', sources.residue);
  addStates(registry, 'pods', sources.pods);
  addStates(registry, 'containers', sources.containers);
}

function addCount(registry: Registry, metric: 'shims' | 'residue', read: (() => number) | undefined): void {
  if (read === undefined) return;
  new Gauge({
    ...named(metric),
    registers: [registry],
    collect() {
      this.set(read());
    },
  });
}

function addStates(
  registry: Registry,
  metric: 'pods' | 'containers',
  read: (() => Readonly<Record<string, number>>) | undefined,
): void {
  if (read === undefined) return;
  new Gauge({
    ...named(metric),
    labelNames: ['state'],
    registers: [registry],
    collect() {
      this.reset();
      for (const [state, count] of Object.entries(read())) this.set({ state }, count);
    },
  });
}

/** A step's name without what differs between requests (ids, digests, quoted names), so that labels stay few. */
export const stepLabel = (name: string): string =>
  name
    .replace(/"[^"]*"/g, '…')
    .replace(/sha256:[0-9a-f]+|\b[0-9a-f]{12,}\b/g, '…')
    .replace(/(^|\s)\/\S+/g, '$1…');
