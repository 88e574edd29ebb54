import type { Key } from './key.js';
import { configKeys } from './names.js';

type Json = { [name: string]: unknown };

/** JSON schema (draft 7, which Helm reads) of the TOML file's content. */
export function configJsonSchema(): Json {
  const root = object();
  for (const { name, key } of configKeys) {
    const names = name.split('.');
    let at = root;
    for (const section of names.slice(0, -1)) at = properties(at)[section] ??= object();
    properties(at)[names.at(-1) ?? ''] = schemaOf(key);
  }
  return root;
}

const object = (): Json => ({ type: 'object', additionalProperties: false, properties: {} });
const properties = (schema: Json): Record<string, Json> => schema['properties'] as Record<string, Json>;

function schemaOf(key: Key<unknown>): Json {
  const bounds = {
    ...(key.min !== undefined && { minimum: key.min }),
    ...(key.max !== undefined && { maximum: key.max }),
  };
  const shapes: Record<Key<unknown>['kind'], Json> = {
    string: { type: 'string', ...(key.choices && { enum: key.choices }) },
    path: { type: 'string', pattern: '^(/.*)?$' },
    integer: { type: 'integer', ...bounds },
    number: { type: 'number', ...bounds },
    boolean: { type: 'boolean' },
    bytes: { type: ['integer', 'string'], pattern: '^\\d+ ?([KMGT]iB|B|)$' },
    duration: { type: 'string', pattern: '^(0|\\d+(\\.\\d+)?(ms|s|m|h))$' },
    list: { type: 'array', items: { type: 'string' } },
    map: { type: 'object', additionalProperties: { type: 'string' } },
  };
  return { ...shapes[key.kind], description: key.about };
}
