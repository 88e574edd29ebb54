import type { Event } from '../../api/nri/v1alpha1/generated/api.js';
import { RuntimeError } from '../kit/errors.js';
import { KeyedLock } from '../kit/keyed-lock.js';
import type { Plugin } from './plugin.js';

/** Everything that plugins are asked or told goes through one line, as the order of events is part of what they say. */
const line = 'plugins';

/**
 * The plugins that take part, in their order, and who may join when. A plugin that joins gets a list of what there is;
 * nothing may come to be between that list and its first event.
 */
export class Plugins {
  readonly #lock = new KeyedLock();
  #plugins: readonly Plugin[] = [];
  #joining = 0;
  #holders = 0;
  #lastHolderLeft: () => void = () => undefined;
  #joined: Promise<void> | undefined;

  /** False when nobody takes part and nobody is about to. */
  get active(): boolean {
    return this.#plugins.length > 0 || this.#joining > 0;
  }

  /** Nobody joins until it is disposed. Waits for who is joining now. */
  async keepOut(): Promise<Disposable> {
    while (this.#joined !== undefined) await this.#joined;
    this.#holders++;
    return {
      [Symbol.dispose]: () => {
        if (--this.#holders === 0) this.#lastHolderLeft();
      },
    };
  }

  /** Runs `work` once everything before it has been told. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    return this.#lock.hold(line, work);
  }

  /** Those that want an event, in the order in which they are asked. */
  wanting(event: Event): readonly Plugin[] {
    return this.#plugins.filter((plugin) => plugin.wants(event));
  }

  all(): readonly Plugin[] {
    return this.#plugins;
  }

  /** Adds a plugin once `synchronize` has told it what there is. */
  async join(plugin: Plugin, synchronize: () => Promise<void>): Promise<void> {
    this.#joining++;
    try {
      await this.#lock.hold('join', () =>
        this.#alone(() =>
          this.inTurn(async () => {
            await synchronize();
            if (plugin.closed) throw new RuntimeError('unavailable', `plugin ${plugin.fullName} has gone`);
            this.#plugins = [...this.#plugins, plugin].sort((a, b) => Number(a.index) - Number(b.index));
            plugin.onClose(() => (this.#plugins = this.#plugins.filter((each) => each !== plugin)));
          }),
        ),
      );
    } finally {
      this.#joining--;
    }
  }

  /** While `work` runs nobody new holds, and nobody holds who did. */
  async #alone(work: () => Promise<void>): Promise<void> {
    let done = (): void => undefined;
    this.#joined = new Promise((resolve) => (done = resolve));
    try {
      if (this.#holders > 0) await new Promise<void>((resolve) => (this.#lastHolderLeft = resolve));
      await work();
    } finally {
      this.#lastHolderLeft = () => undefined;
      this.#joined = undefined;
      done();
    }
  }
}
