/** One sample: the values of the labels that its family adds to the common ones, and the figure. */
export type Sample = readonly [labels: readonly string[], value: number | bigint];

/** A metric: its name without `container_`, what it says, and how it is read. */
export interface Family<Usage> {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge';
  /** Labels beside the common ones. */
  readonly labels?: readonly string[];
  readonly read: (usage: Usage) => readonly Sample[];
}
