/** Order statistics of a series of milliseconds, and how two series compare. */
export interface Summary {
  readonly count: number;
  readonly median: number;
  readonly p90: number;
  readonly p99: number;
  readonly min: number;
  readonly max: number;
}

export function summarize(samples: readonly number[]): Summary {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? NaN;
  return {
    count: sorted.length,
    median: at(0.5),
    p90: at(0.9),
    p99: at(0.99),
    min: sorted[0] ?? NaN,
    max: sorted.at(-1) ?? NaN,
  };
}

/** Named series of one runtime. */
export class Series {
  readonly #samples = new Map<string, number[]>();

  add(name: string, value: number): void {
    const list = this.#samples.get(name) ?? [];
    list.push(value);
    this.#samples.set(name, list);
  }

  async time<T>(name: string, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    const result = await work();
    this.add(name, performance.now() - start);
    return result;
  }

  summaries(): Record<string, Summary> {
    return Object.fromEntries([...this.#samples].map(([name, samples]) => [name, summarize(samples)]));
  }
}

/** One line a measure: both medians, p90, p99, and how many times the first is better. */
export function compareTable(
  names: readonly [string, string],
  first: Record<string, Summary>,
  second: Record<string, Summary>,
): string {
  const figure = (summary: Summary | undefined): string =>
    summary === undefined
      ? '-'.padStart(26)
      : [summary.median, summary.p90, summary.p99].map((value) => value.toFixed(1).padStart(8)).join(' ');
  const keys = [...new Set([...Object.keys(first), ...Object.keys(second)])];
  const width = Math.max(...keys.map((key) => key.length));
  const head = `${'p50 p90 p99'.padEnd(width)} ${names[0].padStart(26)} ${names[1].padStart(26)}    ratio`;
  const lines = keys.map((key) => {
    const [a, b] = [first[key], second[key]];
    const ratio = a === undefined || b === undefined ? '-' : `${(b.median / a.median).toFixed(1)}x`;
    return `${key.padEnd(width)} ${figure(a)} ${figure(b)} ${ratio.padStart(8)}`;
  });
  return [head, ...lines].join('\n');
}
