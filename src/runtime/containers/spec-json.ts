import { Buffer, isUtf8 } from 'node:buffer';
import type { OciSpec } from '../spec/oci.js';

/**
 * config.json of a bundle, and back. Environment entries that are not UTF-8 cannot be JSON strings; they stand as
 * `{"$b": base64}`, which only Berth reads back.
 */
export function encodeSpec(spec: OciSpec): string {
  const { process } = spec;
  return JSON.stringify({
    ...spec,
    ...(process === undefined ? {} : { process: { ...process, env: process.env.map(encodeEntry) } }),
  });
}

export function decodeSpec(text: string): OciSpec {
  const spec = JSON.parse(text) as OciSpec & { process?: { env: readonly (string | { $b: string })[] } };
  if (spec.process === undefined) return spec;
  return { ...spec, process: { ...spec.process, env: spec.process.env.map(decodeEntry) } };
}

const encodeEntry = (entry: Uint8Array): string | { $b: string } =>
  isUtf8(entry) ? Buffer.from(entry).toString('utf8') : { $b: Buffer.from(entry).toString('base64') };

const decodeEntry = (entry: string | Uint8Array | { $b: string }): Uint8Array => {
  if (typeof entry === 'string') return Buffer.from(entry, 'utf8');
  if ('$b' in entry) return Buffer.from(entry.$b, 'base64');
  return entry;
};
