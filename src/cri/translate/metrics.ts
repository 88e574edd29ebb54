/** Metrics of pods and containers under the names that cAdvisor gave them. */
import * as wire from '../../../api/cri/v1/generated/api.js';
import type { SandboxUsageView } from '../../runtime/facade.js';
import type { Family } from './metric-family.js';
import { containerFamilies } from './metrics-container.js';
import { groupFamilies } from './metrics-group.js';
import { podFamilies } from './metrics-pod.js';

const commonLabels = ['container', 'id', 'image', 'name', 'namespace', 'pod'] as const;

/** Every metric there can be; the same for the life of the agent. */
export function metricDescriptors(): wire.MetricDescriptor[] {
  const families: readonly Omit<Family<never>, 'read'>[] = [...groupFamilies, ...containerFamilies, ...podFamilies];
  return families.map(({ name, help, labels = [] }) => ({
    name: `container_${name}`,
    help,
    labelKeys: [...commonLabels, ...labels],
  }));
}

export function wirePodMetrics(usage: SandboxUsageView): wire.PodSandboxMetrics {
  const { sandbox, cgroupPath, group } = usage;
  const { namespace, name: pod } = sandbox.config.metadata;
  const podLabels = ['', cgroupPath, '', sandbox.id, namespace, pod];
  return {
    podSandboxId: sandbox.id,
    metrics: [
      ...podFamilies.flatMap((family) => samples(family, usage, podLabels)),
      ...(group === undefined ? [] : groupFamilies.flatMap((family) => samples(family, group, podLabels))),
    ],
    containerMetrics: usage.containers.map((of) => {
      const { id, config, imageName } = of.container;
      const labels = [config.metadata.name, of.cgroupPath, imageName, id, namespace, pod];
      return {
        containerId: id,
        metrics: [
          ...groupFamilies.flatMap((family) => samples(family, of.group, labels)),
          ...containerFamilies.flatMap((family) => samples(family, of, labels)),
        ],
      };
    }),
  };
}

const types = { counter: wire.MetricType.COUNTER, gauge: wire.MetricType.GAUGE } as const;

/** The timestamp 0 says that a sample is of now. */
function samples<Usage>({ name, type, read }: Family<Usage>, usage: Usage, common: readonly string[]): wire.Metric[] {
  return read(usage).map(([labels, value]) => ({
    name: `container_${name}`,
    timestamp: 0n,
    metricType: types[type],
    labelValues: [...common, ...labels],
    value: { value: whole(value) },
  }));
}

/** The wire has whole numbers only: what is without limit is the largest. */
const whole = (value: number | bigint): bigint => {
  if (typeof value === 'bigint') return value < 0n ? 0n : value;
  if (!Number.isFinite(value)) return 2n ** 64n - 1n;
  return BigInt(Math.max(0, Math.floor(value)));
};
