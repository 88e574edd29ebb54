/** Small JSON records in a directory, one file per sandbox, replaced atomically. */
import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isErrno, messageOf } from '../../kit/errors.js';

export interface RecordDirectory<T> {
  put(id: string, record: T): void;
  get(id: string): T | undefined;
  delete(id: string): void;
  ids(): string[];
}

const suffix = '.json';
/** Written beside the record and then put in its place; one that lies there was interrupted. */
const newSuffix = `${suffix}.new`;

/**
 * A record that cannot be read is set aside as `ID.json.unreadable` and reported once; it never stops the caller. Not
 * flushed to disk: a power failure takes the pods with it.
 */
export function openRecords<T>(
  directory: string,
  check: (value: unknown) => T,
  report: (message: string) => void,
): RecordDirectory<T> {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  for (const name of readdirSync(directory)) if (name.endsWith(newSuffix)) rmSync(join(directory, name));
  const pathOf = (id: string): string => join(directory, `${id}${suffix}`);
  return {
    put(id, record) {
      const path = pathOf(id);
      const written = join(directory, `${id}${newSuffix}`);
      writeFileSync(written, JSON.stringify(record), { mode: 0o600 });
      renameSync(written, path);
    },
    get(id) {
      const path = pathOf(id);
      try {
        return check(JSON.parse(readFileSync(path, 'utf8')));
      } catch (error) {
        if (isErrno(error, 'ENOENT')) return undefined;
        renameSync(path, `${path}.unreadable`);
        report(`network record ${path} set aside: ${messageOf(error)}`);
        return undefined;
      }
    },
    delete(id) {
      rmSync(pathOf(id), { force: true });
    },
    ids() {
      return readdirSync(directory)
        .filter((name) => name.endsWith(suffix))
        .map((name) => name.slice(0, -suffix.length));
    },
  };
}
