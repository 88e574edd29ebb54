/** Progress of one layer, for progress bars and traces. Bytes are of the compressed layer. */
export interface PullProgress {
  readonly digest: string;
  readonly phase: 'waiting' | 'downloading' | 'unpacking' | 'done' | 'exists';
  readonly bytes: number;
  readonly total: number;
}

export type OnProgress = (progress: PullProgress) => void;
