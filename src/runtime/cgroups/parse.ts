import type { IoDeviceStats, PsiLine, PsiStats } from './types.js';

/** Pure readers of cgroup file formats (kernel Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst). */

/** `key value` lines. Values beyond 2^53 lose precision, which only "unlimited" has. */
export function parseFlat(text: string): Map<string, number> {
  const values = new Map<string, number>();
  let start = 0;
  while (start < text.length) {
    let end = text.indexOf('\n', start);
    if (end < 0) end = text.length;
    const space = text.indexOf(' ', start);
    if (space > start && space < end) values.set(text.slice(start, space), Number(text.slice(space + 1, end)));
    start = end + 1;
  }
  return values;
}

/** A number, or undefined for `max`, for the huge number by which v1 says so, and for no text at all. */
export function parseLimit(text: string | undefined): number | undefined {
  const value = Number(text ?? 'max');
  return Number.isNaN(value) || value > Number.MAX_SAFE_INTEGER ? undefined : value;
}

export const parseCount = (text: string | undefined): number => Number(text ?? 0);

export const parseBig = (text: string | undefined): bigint => BigInt(text?.trim() || 0);

/** Two lines, `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and `full …`; cpu.pressure of old kernels has one. */
export function parsePsi(text: string | undefined): PsiStats | undefined {
  if (text === undefined) return undefined;
  const lines = text.split('\n');
  const some = psiLine(lines.find((line) => line.startsWith('some ')));
  const full = psiLine(lines.find((line) => line.startsWith('full ')));
  if (some === undefined) return undefined;
  return { some, full: full ?? { avg10: 0, avg60: 0, avg300: 0, total: 0n } };
}

function psiLine(line: string | undefined): PsiLine | undefined {
  const [, avg10, avg60, avg300, total] =
    /^\w+ avg10=([\d.]+) avg60=([\d.]+) avg300=([\d.]+) total=(\d+)/.exec(line ?? '') ?? [];
  if (total === undefined) return undefined;
  return { avg10: Number(avg10), avg60: Number(avg60), avg300: Number(avg300), total: BigInt(total) };
}

/** v2 io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`. */
export function parseIoStat(text: string): IoDeviceStats[] {
  return text.split('\n').flatMap((line) => {
    const [device, ...pairs] = line.split(' ');
    if (device === undefined || !device.includes(':') || pairs.length === 0) return [];
    const values = new Map(pairs.map((pair) => pair.split('=') as [string, string]));
    const count = (key: string): number => Number(values.get(key) ?? 0);
    const [readBytes, writeBytes] = [count('rbytes'), count('wbytes')];
    return [{ device, readBytes, writeBytes, reads: count('rios'), writes: count('wios') }];
  });
}

/** v1 blkio.throttle.io_service_bytes_recursive and io_serviced_recursive: `8:0 Read 1`. */
export function parseBlkio(bytes: string, counts: string): IoDeviceStats[] {
  const devices = new Map<string, { -readonly [K in keyof IoDeviceStats]: IoDeviceStats[K] }>();
  const read = (text: string, fields: Readonly<Record<string, keyof Omit<IoDeviceStats, 'device'>>>): void => {
    for (const [device = '', word = '', value] of text.split('\n').map((line) => line.split(' '))) {
      const field = fields[word];
      if (field === undefined || value === undefined) continue;
      const entry = devices.get(device) ?? { device, readBytes: 0, writeBytes: 0, reads: 0, writes: 0 };
      entry[field] = Number(value);
      devices.set(device, entry);
    }
  };
  read(bytes, { Read: 'readBytes', Write: 'writeBytes' });
  read(counts, { Read: 'reads', Write: 'writes' });
  return [...devices.values()];
}
