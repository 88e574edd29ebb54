import { Buffer, isUtf8 } from 'node:buffer';
import type { OciProcess, OciRlimit, OciSpec } from '../spec/oci.js';

/**
 * config.json of a bundle, and back. Environment entries that are not UTF-8 cannot be JSON strings; they stand as
 * `{"$b": base64}`, which only Berth reads back. So do limits that are no exact numbers in JavaScript, as strings.
 */
export function encodeSpec(spec: OciSpec): string {
  const { process } = spec;
  return JSON.stringify({
    ...spec,
    ...(process === undefined ? {} : { process: encodeProcess(process) }),
  });
}

export function decodeSpec(text: string): OciSpec {
  const { process, ...spec } = JSON.parse(text) as Omit<OciSpec, 'process'> & { process?: EncodedProcess };
  return process === undefined ? spec : { ...spec, process: decodeProcess(process) };
}

type EncodedEntry = string | { readonly $b: string };
type EncodedRlimit = { readonly type: string; readonly soft: number | string; readonly hard: number | string };
type EncodedProcess = Omit<OciProcess, 'env' | 'rlimits'> & {
  readonly env: readonly EncodedEntry[];
  readonly rlimits?: readonly EncodedRlimit[];
};

function encodeProcess({ rlimits, env, ...process }: OciProcess): EncodedProcess {
  const limits = rlimits?.map(({ type, soft, hard }) => ({ type, soft: encodeLimit(soft), hard: encodeLimit(hard) }));
  return { ...process, env: env.map(encodeEntry), ...(limits === undefined ? {} : { rlimits: limits }) };
}

function decodeProcess({ rlimits, env, ...process }: EncodedProcess): OciProcess {
  const limits = rlimits?.map(({ type, soft, hard }): OciRlimit => ({ type, soft: BigInt(soft), hard: BigInt(hard) }));
  return { ...process, env: env.map(decodeEntry), ...(limits === undefined ? {} : { rlimits: limits }) };
}

const encodeLimit = (limit: bigint): number | string =>
  limit <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(limit) : `${limit}`;

const encodeEntry = (entry: Uint8Array): EncodedEntry =>
  isUtf8(entry) ? Buffer.from(entry).toString('utf8') : { $b: Buffer.from(entry).toString('base64') };

const decodeEntry = (entry: EncodedEntry): Uint8Array =>
  typeof entry === 'string' ? Buffer.from(entry, 'utf8') : Buffer.from(entry.$b, 'base64');
