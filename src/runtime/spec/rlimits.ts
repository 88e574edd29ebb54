import { invalid } from '../../kit/errors.js';
import type { OciRlimit } from './oci.js';

const infinity = 2n ** 64n - 1n;

/** Resource limits from configuration: `nofile = "1024:524288"`, or one number for both. `unlimited` is 2^64 - 1. */
export function parseRlimits(rlimits: Readonly<Record<string, string>>): OciRlimit[] {
  return Object.entries(rlimits).map(([name, text]) => {
    const field = `runtime.rlimits.${name}`;
    const [soft = '', hard = soft] = text.split(':');
    const limit = { type: `RLIMIT_${name.toUpperCase()}`, soft: value(soft, field), hard: value(hard, field) };
    if (limit.soft > limit.hard) throw invalid(field, `soft limit ${soft} is above the hard one ${hard}`);
    return limit;
  });
}

function value(text: string, field: string): bigint {
  if (text === 'unlimited') return infinity;
  if (!/^[0-9]{1,19}$/.test(text)) throw invalid(field, `"${text}" is no limit`);
  return BigInt(text);
}
