/** One request that is being worked on; what /debug/inflight shows. */
export interface InflightRequest {
  readonly method: string;
  /** What it is about: ids and names, never secrets. */
  readonly subject: RequestSubject;
  /** Milliseconds of the monotonic clock. */
  readonly startedAt: number;
  /** Why nobody waits for it any more, if so: it is still taking itself back. */
  readonly abandoned: string | undefined;
}

export type RequestSubject = Readonly<Record<string, string | number | boolean | undefined>>;

/** Every request between its first and its last line of work, also when its caller has long gone. */
export class Inflight {
  readonly #requests = new Set<InflightRequest>();
  readonly #idle: (() => void)[] = [];

  add(request: InflightRequest): () => void {
    this.#requests.add(request);
    return () => {
      this.#requests.delete(request);
      if (this.#requests.size === 0) this.#idle.splice(0).forEach((resolve) => resolve());
    };
  }

  /** Oldest first. */
  list(): readonly InflightRequest[] {
    return [...this.#requests];
  }

  /** Resolves when nothing is being worked on. */
  idle(): Promise<void> {
    if (this.#requests.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }
}
