/** A pod's bandwidth limits, from its annotations; pure. */
import { invalid } from '../../kit/errors.js';
import type { StringMap } from '../model.js';

/** Bits per second. */
export interface Bandwidth {
  readonly ingressRate?: number;
  readonly egressRate?: number;
}

const annotation = { ingress: 'kubernetes.io/ingress-bandwidth', egress: 'kubernetes.io/egress-bandwidth' } as const;

const scale: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
};

/** The bounds Kubernetes sets to both rates: 1k to 1P. */
const smallest = 1e3;
const largest = 1e15;

/** Undefined when the pod has no limit. Throws `invalid-argument` naming the annotation. */
export function bandwidthOf(annotations: StringMap): Bandwidth | undefined {
  const ingressRate = rate(annotations, annotation.ingress);
  const egressRate = rate(annotations, annotation.egress);
  if (ingressRate === undefined && egressRate === undefined) return undefined;
  return {
    ...(ingressRate === undefined ? {} : { ingressRate }),
    ...(egressRate === undefined ? {} : { egressRate }),
  };
}

function rate(annotations: StringMap, name: string): number | undefined {
  const text = annotations[name];
  if (text === undefined) return undefined;
  const match = /^(\d+(?:\.\d+)?)([kMGTP]|[KMGTP]i)?$/.exec(text);
  const value = Math.ceil(Number(match?.[1]) * (scale[match?.[2] ?? ''] ?? Number.NaN));
  if (!(value >= smallest && value <= largest)) {
    throw invalid(`annotations["${name}"]`, `"${text}" is no rate between 1k and 1P bits per second`);
  }
  return value;
}
