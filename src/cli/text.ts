/** Small helpers for what people read. */

/** Columns as wide as their widest cell; the last one is not padded. */
export function renderTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)));
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

/** `1.5 MiB`; bytes below 1024 as they are. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit] ?? ''}`;
}

/** `3 minutes ago` for nanoseconds since the epoch. */
export function formatAge(since: bigint, now = BigInt(Date.now()) * 1_000_000n): string {
  const seconds = Number((now - since) / 1_000_000_000n);
  const [size, unit] = (
    [
      [86_400, 'day'],
      [3600, 'hour'],
      [60, 'minute'],
    ] as const
  ).find(([each]) => seconds >= each) ?? [1, 'second'];
  const count = Math.max(0, Math.floor(seconds / size));
  return `${count} ${unit}${count === 1 ? '' : 's'} ago`;
}

export const shortId = (id: string): string => id.replace(/^sha256:/, '').slice(0, 13);

/** JSON for people and scripts: bigint as a number where it fits, bytes as text. */
export const formatJson = (value: unknown): string =>
  `${JSON.stringify(
    value,
    function (this: Readonly<Record<string, unknown>>, name, plain: unknown) {
      const raw = this[name];
      if (typeof raw === 'bigint') return raw <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(raw) : raw.toString();
      return raw instanceof Uint8Array ? Buffer.from(raw).toString('utf8') : plain;
    },
    2,
  )}\n`;
