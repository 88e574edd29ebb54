import { RuntimeError } from '../../kit/errors.js';

/**
 * Names of pods and containers. A name belongs to one object at a time; a request that comes again while the first is
 * under way joins it, and one that comes after it gets its result.
 */
export class Names {
  readonly #owners = new Map<string, string>();

  /** The id that holds a name. */
  owner(name: string): string | undefined {
    return this.#owners.get(name);
  }

  /** Throws `already-exists` naming the holder. */
  reserve(name: string, id: string): void {
    const owner = this.#owners.get(name);
    if (owner !== undefined && owner !== id) {
      throw new RuntimeError('already-exists', `the name ${name} is held by ${owner}`, { facts: { name, owner } });
    }
    this.#owners.set(name, id);
  }

  /** Frees a name, if `id` still holds it. */
  release(name: string, id: string): void {
    if (this.#owners.get(name) === id) this.#owners.delete(name);
  }
}

/** Kubernetes' identity of a pod attempt. Parts cannot hold a slash. */
export const sandboxName = (metadata: { name: string; namespace: string; uid: string; attempt: number }): string =>
  [metadata.namespace, metadata.name, metadata.uid, metadata.attempt].join('/');

export const containerName = (sandboxId: string, metadata: { name: string; attempt: number }): string =>
  [sandboxId, metadata.name, metadata.attempt].join('/');
