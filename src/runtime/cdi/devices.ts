import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { invalid, isErrno, messageOf } from '../../kit/errors.js';
import type { Observer } from '../../kit/observer.js';
import type { AskedDevice } from '../spec/adjust.js';
import { qualifiedName, type CdiSpec, type DeviceEdits } from '../spec/cdi.js';
import { readCdiSpec } from './read-spec.js';

/** Bytes of a spec file; vendors' own have some hundred thousand. */
const maxBytes = 4 * 2 ** 20;

export interface CdiProblem {
  readonly path: string;
  readonly reason: string;
}

/** The CDI devices this node's spec files describe. Files are looked at again when devices are asked for. */
export interface CdiDevices {
  /**
   * The edits of devices, each spec's own before those of its first device. Errors: invalid-argument naming the field
   * for what no spec has, and for what two files of the same directory have.
   */
  edits(asked: readonly AskedDevice[]): Promise<readonly DeviceEdits[]>;
  /** Files that are no specs, as of the last look; has them looked at again. */
  problems(): readonly CdiProblem[];
}

interface SpecFile {
  readonly path: string;
  /** What tells that the file was changed. */
  readonly version: string;
  readonly spec?: CdiSpec;
  readonly reason?: string;
}

interface Found {
  readonly file: Required<Pick<SpecFile, 'path' | 'spec'>>;
  readonly index: number;
}

/**
 * @param directories a device in a later one hides that of an earlier one
 */
export function openCdiDevices(directories: readonly string[], note: Observer['note']): CdiDevices {
  let files: readonly (readonly SpecFile[])[] = directories.map(() => []);
  let looking: Promise<void> | undefined;
  const look = async (): Promise<void> => {
    const known = new Map(files.flat().map((file) => [file.path, file]));
    files = await Promise.all(directories.map((directory) => readDirectory(directory, known)));
    for (const { path, reason } of files.flat())
      if (reason !== undefined && known.get(path)?.reason !== reason) note('warn', `CDI spec ${path}: ${reason}`);
  };
  /** What a request has written before it asks must be seen: one that is under way may have begun too early. */
  const refresh = (): Promise<void> => {
    const next = (looking ?? Promise.resolve()).then(look);
    const done = (): void => {
      if (looking === settled) looking = undefined;
    };
    const settled = next.then(done, done);
    looking = settled;
    return next;
  };
  // Whoever broke a file shall hear of it before a container does.
  void refresh();
  return {
    async edits(asked) {
      await refresh();
      return withSpecEdits(asked.map((device) => [device, find(device, files, directories)]));
    },
    problems() {
      void (looking ?? refresh());
      return problemsOf(files);
    },
  };
}

const problemsOf = (files: readonly (readonly SpecFile[])[]): readonly CdiProblem[] =>
  files.flat().flatMap(({ path, reason }) => (reason === undefined ? [] : [{ path, reason }]));

/** Missing is empty; one that cannot be read is a problem of its own. */
async function readDirectory(directory: string, known: ReadonlyMap<string, SpecFile>): Promise<SpecFile[]> {
  try {
    const names = (await readdir(directory)).filter((name) => /\.(json|yaml)$/.test(name)).sort();
    return (await Promise.all(names.map((name) => readFile(join(directory, name), known)))).flat();
  } catch (error) {
    return isErrno(error, 'ENOENT') ? [] : [{ path: directory, version: '', reason: messageOf(error) }];
  }
}

/** Opened without waiting: what is no regular file is no spec. Gone meanwhile is fine. */
async function readFile(path: string, known: ReadonlyMap<string, SpecFile>): Promise<SpecFile[]> {
  let version = '';
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const facts = await file.stat({ bigint: true });
    if (facts.isDirectory()) return [];
    version = [facts.dev, facts.ino, facts.size, facts.mtimeNs, facts.ctimeNs].join(' ');
    const before = known.get(path);
    if (before?.version === version) return [before];
    if (!facts.isFile() || facts.size > maxBytes)
      throw invalid('file', `is no regular file of at most ${maxBytes} bytes`);
    const spec = readCdiSpec(await file.readFile('utf8'), extname(path) === '.json' ? 'json' : 'yaml');
    return [{ path, version, spec }];
  } catch (error) {
    return isErrno(error, 'ENOENT') ? [] : [{ path, version, reason: messageOf(error) }];
  }
}

function find(
  { name, field }: AskedDevice,
  files: readonly (readonly SpecFile[])[],
  directories: readonly string[],
): Found {
  const { kind, device } = qualifiedName(name, field);
  for (const directory of files.toReversed()) {
    const found = directory.flatMap(({ path, spec }) => {
      const index = spec?.kind === kind ? spec.devices.findIndex((each) => each.name === device) : -1;
      return spec === undefined || index < 0 ? [] : [{ file: { path, spec }, index }];
    });
    const [first, second] = found;
    if (first !== undefined && second !== undefined)
      throw invalid(field, `both ${first.file.path} and ${second.file.path} describe the CDI device ${name}`);
    if (first !== undefined) return first;
  }
  const unread = problemsOf(files).map(({ path, reason }) => `; ${path}: ${reason}`);
  throw invalid(field, `no spec in ${directories.join(', ')} describes the CDI device ${name}${unread.join('')}`);
}

function withSpecEdits(devices: readonly (readonly [AskedDevice, Found])[]): DeviceEdits[] {
  const specs = new Set<CdiSpec>();
  return devices.flatMap(([{ name }, { file, index }]) => {
    const { path, spec } = file;
    const edits = spec.devices[index]?.containerEdits ?? spec.containerEdits;
    const own = { device: name, origin: `devices[${index}].containerEdits of ${path}`, edits };
    if (specs.has(spec)) return [own];
    specs.add(spec);
    return [{ device: name, origin: `containerEdits of ${path}`, edits: spec.containerEdits }, own];
  });
}
