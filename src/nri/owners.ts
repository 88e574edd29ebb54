import { Field, OwningPlugins } from '../../api/nri/v1alpha1/generated/api.js';
import { RuntimeError } from '../kit/errors.js';

/** A plugin took back what was set and has the first right to set it anew. */
interface Owner {
  readonly plugin: string;
  readonly cleared: boolean;
}

/**
 * Which plugin set which field of which container in one request. Two that set the same one contradict each other,
 * unless the later has first removed what the earlier set.
 */
export class Owners {
  /** By container, field and, for fields with entries, the entry's key; '' stands for the field itself. */
  readonly #owners = new Map<string, Map<Field, Map<string, Owner>>>();

  /** `wrong-state` naming both plugins when another one has set it. */
  claim(containerId: string, field: Field, plugin: string, key = ''): void {
    const entries = this.#entries(containerId, field);
    const owner = entries.get(key);
    if (owner !== undefined && !(owner.cleared && owner.plugin === plugin)) {
      const what = `${fieldNames.get(field) ?? `field ${field}`}${key === '' ? '' : ` ${key}`}`;
      throw new RuntimeError('wrong-state', `plugins ${owner.plugin} and ${plugin} both set ${what} of ${containerId}`);
    }
    entries.set(key, { plugin, cleared: false });
  }

  /** Of a field that several plugins may add to. */
  join(containerId: string, field: Field, plugin: string): void {
    const entries = this.#entries(containerId, field);
    const before = entries.get('');
    entries.set('', { plugin: before === undefined ? plugin : `${before.plugin},${plugin}`, cleared: false });
  }

  clear(containerId: string, field: Field, plugin: string, key = ''): void {
    this.#entries(containerId, field).set(key, { plugin, cleared: true });
  }

  /** '' when nobody set it. */
  of(containerId: string, field: Field, key = ''): string {
    return this.#owners.get(containerId)?.get(field)?.get(key)?.plugin ?? '';
  }

  /** A cleared owner has a '-' before its name. */
  message(): OwningPlugins {
    const message = OwningPlugins.create();
    for (const [id, fields] of this.#owners) {
      const owners = (message.owners[id] = { simple: {}, compound: {} } as OwningPlugins['owners'][string]);
      for (const [field, entries] of fields)
        for (const [key, { plugin, cleared }] of entries) {
          const name = `${cleared ? '-' : ''}${plugin}`;
          if (key === '') owners.simple[field] = name;
          else (owners.compound[field] ??= { owners: {} }).owners[key] = name;
        }
    }
    return message;
  }

  #entries(containerId: string, field: Field): Map<string, Owner> {
    let fields = this.#owners.get(containerId);
    if (fields === undefined) this.#owners.set(containerId, (fields = new Map()));
    let entries = fields.get(field);
    if (entries === undefined) fields.set(field, (entries = new Map()));
    return entries;
  }
}

/** `memory limit` for MEM_LIMIT and so on: as people read it. */
const fieldNames = new Map(
  Object.entries(Field)
    .filter((entry): entry is [string, Field] => typeof entry[1] === 'number')
    .map(([name, value]) => [value, name.toLowerCase().replaceAll('_', ' ').replace(/^mem /, 'memory ')]),
);
