import type { MetadataStore, Table } from '../../src/runtime/images/store.js';

/** A table that forgets everything with its process. Values are copied, as a real store does. */
export function memoryTable<T>(): Table<T> {
  const values = new Map<string, string>();
  const decode = (text: string): T => JSON.parse(text) as T;
  return {
    get(key) {
      const text = values.get(key);
      return text === undefined ? undefined : decode(text);
    },
    put: (key, value) => void values.set(key, JSON.stringify(value)),
    delete: (key) => void values.delete(key),
    *entries() {
      for (const [key, text] of values) yield [key, decode(text)];
    },
  };
}

export const memoryMetadata = (): MetadataStore => ({ images: memoryTable(), transaction: (work) => work() });
