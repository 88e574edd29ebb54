/**
 * Writes deploy/helm/berth/values.schema.json from the configuration's table. With --check it writes nothing and
 * exits 1 when the file is stale.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { configJsonSchema } from '../src/config/json-schema.js';

const file = new URL('../deploy/helm/berth/values.schema.json', import.meta.url);
const schema = {
  $schema: 'http://json-schema.org/draft-07/schema#',
  title: 'Values of the berth chart',
  type: 'object',
  properties: {
    nameOverride: { type: 'string', description: 'Replaces the chart’s name in object names.' },
    runtimeClass: {
      type: 'object',
      additionalProperties: false,
      description: 'The RuntimeClass that sends pods to Berth’s nodes.',
      properties: {
        create: { type: 'boolean' },
        name: { type: 'string', minLength: 1 },
        handler: { type: 'string', minLength: 1 },
        nodeSelector: { type: 'object', additionalProperties: { type: 'string' } },
      },
    },
    config: { ...configJsonSchema(), description: 'Content of /etc/berth/config.toml.' },
  },
};
const text = `${JSON.stringify(schema, null, 2)}\n`;

if (!process.argv.includes('--check')) writeFileSync(file, text);
else if (readFileSync(file, 'utf8') !== text) {
  console.error('deploy/helm/berth/values.schema.json is stale: run "npm run generate"');
  process.exitCode = 1;
}
