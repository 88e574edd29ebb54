import type { Key } from './key.js';
import { table } from './table.js';

type AnyKey = Key<unknown>;
type Node = AnyKey | { readonly [name: string]: Node };

/** One key of the table with the names it has outside. */
export interface NamedKey {
  /** Properties from the root of `Config`. */
  readonly path: readonly string[];
  /** `network.cni_conf_dir` */
  readonly name: string;
  /** `BERTH_NETWORK_CNI_CONF_DIR` */
  readonly env: string;
  /** `network-cni-conf-dir` */
  readonly flag: string;
  readonly key: AnyKey;
}

const isKey = (node: Node): node is AnyKey => typeof (node as { kind?: unknown }).kind === 'string';

/** `cniConfDir` → `cni_conf_dir`, `stallTimeoutMs` → `stall_timeout`. */
const snake = (property: string): string =>
  property.replace(/Ms$/, '').replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function walk(node: { readonly [name: string]: Node }, path: readonly string[]): NamedKey[] {
  return Object.entries(node).flatMap(([property, child]) => {
    const at = [...path, property];
    return isKey(child) ? [named(at, child)] : walk(child, at);
  });
}

function named(path: readonly string[], key: AnyKey): NamedKey {
  const names = path.map(snake);
  return {
    path,
    key,
    name: names.join('.'),
    env: `BERTH_${names.join('_').toUpperCase()}`,
    flag: names.join('-').replaceAll('_', '-'),
  };
}

/** Every key, in the order of the table. */
export const configKeys: readonly NamedKey[] = walk(table as unknown as { readonly [name: string]: Node }, []);
