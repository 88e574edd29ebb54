import { closeSync, openSync } from 'node:fs';
import { isErrno } from '../../kit/errors.js';
import { cgroupError, isGone, isUnreadable, readOpenCgroupFile } from './files.js';

/** Descriptors kept at most; files beyond are opened and closed for each read. */
const mostKept = 16_384;
/** Milliseconds after which what nobody reads is closed, and between looks for it. */
const idleMs = 5 * 60_000;
const sweepMs = 60_000;

interface Group {
  /** Descriptor by path; undefined for a file that is not there. */
  readonly files: Map<string, number | undefined>;
  usedAt: number;
}

/**
 * Statistics files of cgroups, read through descriptors that stay open: opening one costs five to twenty times as much
 * as reading it. An open file does not keep a cgroup from being removed, it answers ENODEV from then on.
 */
export class KeptFiles {
  readonly #groups = new Map<string, Group>();
  readonly #now: () => number;
  #kept = 0;
  #sweptAt: number;

  /** `now` in milliseconds of a monotonic clock. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#sweptAt = now();
  }

  /** Descriptors that are open. */
  get kept(): number {
    return this.#kept;
  }

  /** Undefined when the file or its cgroup is not there, or cannot be read. `group` is the cgroup's path. */
  read(root: string, group: string, file: string): string | undefined {
    const path = `${root}${group}/${file}`;
    try {
      const { files } = this.#group(group);
      const known = files.get(path);
      if (known !== undefined) return readOpenCgroupFile(known);
      if (files.has(path)) return undefined;
      return this.#first(path, group, files);
    } catch (error) {
      if (isErrno(error, 'ENODEV')) this.drop(group);
      if (isUnreadable(error)) return undefined;
      throw cgroupError('read', path, undefined, error);
    }
  }

  /** Closes what is open of a cgroup and those below it. */
  drop(group: string): void {
    for (const [name, entry] of this.#groups) {
      if (name === group || name.startsWith(`${group}/`)) this.#close(name, entry);
    }
  }

  close(): void {
    for (const [name, entry] of this.#groups) this.#close(name, entry);
  }

  #first(path: string, group: string, files: Group['files']): string | undefined {
    const fd = this.#open(path);
    let keep = false;
    try {
      if (fd === undefined) return undefined;
      const text = readOpenCgroupFile(fd);
      // Opening it may have cost us everything kept, this group too.
      keep = this.#kept < mostKept && this.#groups.get(group)?.files === files;
      return text;
    } finally {
      if (keep) this.#kept++;
      else if (fd !== undefined) closeSync(fd);
      if (keep || fd === undefined) files.set(path, fd);
    }
  }

  /** Everything kept is given up before the process is without descriptors. */
  #open(path: string): number | undefined {
    try {
      return openSync(path, 'r');
    } catch (error) {
      if (isGone(error)) return undefined;
      if (!isErrno(error, 'EMFILE') && !isErrno(error, 'ENFILE')) throw error;
      this.close();
      return openSync(path, 'r');
    }
  }

  #group(name: string): Group {
    const now = this.#now();
    if (now - this.#sweptAt > sweepMs) this.#sweep(now);
    const known = this.#groups.get(name);
    if (known !== undefined) {
      known.usedAt = now;
      return known;
    }
    const group = { files: new Map<string, number | undefined>(), usedAt: now };
    this.#groups.set(name, group);
    return group;
  }

  /** A file that was not there may come with a controller that is switched on later. */
  #sweep(now: number): void {
    this.#sweptAt = now;
    for (const [name, group] of this.#groups) {
      if (now - group.usedAt > idleMs) this.#close(name, group);
      else for (const [path, fd] of group.files) if (fd === undefined) group.files.delete(path);
    }
  }

  #close(name: string, { files }: Group): void {
    this.#groups.delete(name);
    for (const fd of files.values()) {
      if (fd === undefined) continue;
      closeSync(fd);
      this.#kept--;
    }
  }
}
