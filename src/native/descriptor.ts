import type { Library } from './library.js';

/**
 * An open file descriptor with one owner. `using fd = …` closes it at the end of the block; `take()` hands the number
 * over and leaves nothing to close. Closing never throws: during another error it would bury the real one.
 */
export class Descriptor implements Disposable {
  readonly #library: Library;
  #fd: number;

  constructor(library: Library, fd: number) {
    this.#library = library;
    this.#fd = fd;
  }

  /** The number, while this object owns it. Throws when it was closed or taken. */
  get fd(): number {
    if (this.#fd < 0) throw new Error('the descriptor is closed');
    return this.#fd;
  }

  get isOpen(): boolean {
    return this.#fd >= 0;
  }

  /** Gives ownership to the caller. */
  take(): number {
    const fd = this.fd;
    this.#fd = -1;
    return fd;
  }

  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    try {
      this.#library.now('close', undefined, fd);
    } catch {
      // Linux frees the descriptor whatever close(2) answers.
    }
  }
}
