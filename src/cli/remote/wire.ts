import { errorKinds, messageOf, RuntimeError, type ErrorKind } from '../../kit/errors.js';

/**
 * The admin socket's private wire format: one JSON request, answered by JSON lines. The same release is on both
 * sides, so it needs no versions: the server refuses other releases' clients.
 *
 *   request  {"release":"0.1.0","method":"images.pull","args":[…]}
 *   lines    {"progress":…}* {"note":…}* then {"result":…} or {"error":{"kind","message"}}
 *
 * bigint travels as {"$n":"12"}, bytes as {"$b":"base64"}, the call as {"$call":true}, a progress function as
 * {"$progress":true}, an argument left out as {"$undefined":true}.
 */
export interface WireRequest {
  readonly release: string;
  readonly method: string;
  readonly args: readonly unknown[];
}

export interface WireLine {
  readonly progress?: unknown;
  readonly note?: { readonly level: 'debug' | 'info' | 'warn' | 'error'; readonly message: string };
  readonly result?: unknown;
  readonly error?: WireError;
}

export interface WireError {
  readonly kind: ErrorKind;
  readonly message: string;
}

export const callMark = { $call: true };
export const progressMark = { $progress: true };
export const undefinedMark = { $undefined: true };
export const isMark = (value: unknown, name: '$call' | '$progress' | '$undefined'): boolean =>
  typeof value === 'object' && value !== null && (value as Record<string, unknown>)[name] === true;

/** Functions of `this` see the value before toJSON, which Buffer has. */
function replace(this: Readonly<Record<string, unknown>>, name: string, value: unknown): unknown {
  const raw = this[name];
  if (typeof raw === 'bigint') return { $n: raw.toString() };
  if (raw instanceof Uint8Array)
    return { $b: Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('base64') };
  if (raw instanceof Map) return Object.fromEntries(raw);
  return value;
}

function revive(_name: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const { $n, $b } = value as { $n?: unknown; $b?: unknown };
  if (typeof $n === 'string') return BigInt($n);
  if (typeof $b === 'string') return new Uint8Array(Buffer.from($b, 'base64'));
  return value;
}

export const encode = (value: unknown): string => JSON.stringify(value, replace);
export const decode = (text: string): unknown => JSON.parse(text, revive);

export const encodeError = (error: unknown): WireError => ({
  kind: error instanceof RuntimeError ? error.kind : 'internal',
  message: messageOf(error),
});

export function decodeError({ kind, message }: WireError): RuntimeError {
  return new RuntimeError(errorKinds.includes(kind) ? kind : 'internal', message);
}
