import type { EnvVar } from '../model.js';

export const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * A process environment under construction: one value per key, the last writer wins, the place of the first stays.
 * Values are bytes, because CRI 1.37 allows ones that are not UTF-8.
 */
export class Environment {
  readonly #values = new Map<string, Uint8Array>();

  /** Adds `KEY=value` strings, as image configurations hold them; one without `=` sets an empty value. */
  addStrings(entries: readonly string[]): this {
    for (const entry of entries) {
      const equals = entry.indexOf('=');
      const key = equals < 0 ? entry : entry.slice(0, equals);
      this.set(key, equals < 0 ? '' : entry.slice(equals + 1));
    }
    return this;
  }

  addVars(vars: readonly EnvVar[]): this {
    for (const { key, value } of vars) this.#values.set(key, value);
    return this;
  }

  set(key: string, value: string): this {
    this.#values.set(key, Buffer.from(value, 'utf8'));
    return this;
  }

  setDefault(key: string, value: string): this {
    return this.#values.has(key) ? this : this.set(key, value);
  }

  get(key: string): string | undefined {
    const value = this.#values.get(key);
    return value === undefined ? undefined : Buffer.from(value).toString('utf8');
  }

  /** The entries as `KEY=value` byte strings. */
  entries(): Uint8Array[] {
    return [...this.#values].map(([key, value]) => Buffer.concat([Buffer.from(`${key}=`, 'utf8'), value]));
  }
}
