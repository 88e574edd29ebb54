import { constants, statSync } from 'node:fs';
import { lstat, open, readFile, readdir, readlink, stat, writeFile } from 'node:fs/promises';
import { isAbsolute, join, normalize } from 'node:path';
import type { Call } from '../../kit/call.js';
import { sleep, throwIfCancelled, withDeadline } from '../../kit/deadline.js';
import { RuntimeError, invalid, isErrno, messageOf } from '../../kit/errors.js';
import { parseMountTable, type MountEntry } from '../../kit/mount-table.js';
import { openArchiveFile } from '../checkpoint/archive-file.js';
import { dumpLog } from '../checkpoint/criu.js';
import { checkpointDocuments, dumpedSpec, type BindMount } from '../checkpoint/documents.js';
import { dumpArguments, type DumpFacts } from '../checkpoint/dump-arguments.js';
import { writeRootfsDiff } from '../checkpoint/rootfs-diff.js';
import { TarWriter } from '../checkpoint/tar-writer.js';
import type { WorkDirectory } from '../checkpoint/workspace.js';
import type { CheckpointRequest } from '../facade.js';
import type { Parts } from '../parts.js';
import type { OciSpec } from '../spec/oci.js';
import type { ContainerRecord, SandboxRecord } from '../state/records.js';
import { bundleSpec } from './bundle.js';
import { encodeSpec } from './spec-json.js';

export type CheckpointDeps = Pick<
  Parts,
  'settings' | 'paths' | 'host' | 'registry' | 'cgroups' | 'snapshots' | 'checkpoints' | 'rootless'
>;

/** Milliseconds that an end may take longer than its deadline. */
const longestCleanupMs = 10_000;

interface Subject {
  readonly container: ContainerRecord;
  readonly sandbox: SandboxRecord;
  readonly spec: OciSpec;
}

/**
 * CheckpointContainer: what runs in a container, what it changed in its root and how it was configured go to one tar
 * archive (KEP-2008), in the form that the other runtimes and checkpointctl know. The container stands still for the
 * time its memory and its root are read, and then goes on. The archive is there whole or not at all.
 *
 * Errors: `wrong-state` when it does not run, `in-progress` while another checkpoint of it is made, `deadline`,
 * `unimplemented` or `unavailable` when CRIU is missing or cannot work here, `exhausted` when the disk is full.
 */
export async function checkpointContainer(
  idOrPrefix: string,
  { location, timeoutSeconds }: CheckpointRequest,
  deps: CheckpointDeps,
  call: Call,
): Promise<void> {
  await checkLocation(location);
  const { record: container, view } = deps.registry.container(idOrPrefix);
  if (deps.rootless !== undefined) {
    throw new RuntimeError(
      'unimplemented',
      'checkpointing needs the rights of the host’s root: CRIU attaches to processes',
    );
  }
  if (view.state !== 'running') throw new RuntimeError('wrong-state', `container ${container.id} is not running`);
  const timeoutMs = timeoutSeconds > 0 ? timeoutSeconds * 1000 : deps.settings.checkpointTimeoutMs;
  let work: Promise<void> = Promise.resolve();
  try {
    await withDeadline(
      `checkpoint container ${container.id}`,
      timeoutMs,
      (signal) => (work = checkpoint(container, location, deps, { ...call, signal })),
      call.signal,
    );
  } finally {
    // Whoever is told that it failed finds the container running and nothing left, unless a file system hangs.
    await Promise.race([work.catch(() => undefined), sleep(longestCleanupMs)]);
  }
}

/** After a start of the agent: containers in the middle of whose checkpoint the last one died must not stay frozen. */
export async function recoverCheckpoints(deps: Pick<Parts, 'registry' | 'cgroups' | 'checkpoints'>): Promise<void> {
  const { workspace } = deps.checkpoints;
  for (const id of await workspace.takeUp()) {
    const entry = deps.registry.findContainer(id);
    if (entry !== undefined) await deps.cgroups.thaw(entry.record.cgroupPath);
    await workspace.remove(id);
  }
}

async function checkLocation(location: string): Promise<void> {
  if (!isAbsolute(location) || location.includes('\0') || normalize(location) !== location || location.endsWith('/')) {
    throw invalid('location', 'must be the absolute path of a file');
  }
  const there = await lstat(location).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw invalid('location', messageOf(error));
  });
  if (there !== undefined && !there.isFile()) throw invalid('location', `${location} is there and is no regular file`);
}

async function checkpoint(
  container: ContainerRecord,
  location: string,
  deps: CheckpointDeps,
  call: Call,
): Promise<void> {
  const { checkpoints, registry, paths } = deps;
  const { signal, observer } = call;
  const sandbox = registry.sandbox(container.sandboxId).record;
  try {
    await observer.step('look for criu', () => checkpoints.criu.ready(signal));
    await using work = await checkpoints.workspace.open(container.id);
    await using archive = await openArchiveFile(location, checkpoints.files);
    const spec = bundleSpec(paths.bundle(sandbox.id, container.id));
    const subject: Subject = { container, sandbox, spec };
    const tar = new TarWriter(archive.file, signal);
    const deleted = await captureStill(subject, work, tar, deps, call);
    await observer.step('write archive', () => writeRest(subject, deleted, work, tar, deps, signal));
    await observer.step('publish archive', () => archive.publish());
  } catch (error) {
    throw explain(error, container.id, signal);
  }
}

function explain(error: unknown, id: string, signal: AbortSignal): unknown {
  if (signal.aborted && signal.reason instanceof RuntimeError) return signal.reason;
  if (error instanceof RuntimeError) return error;
  const kind = isErrno(error, 'ENOSPC') || isErrno(error, 'EDQUOT') ? 'exhausted' : 'internal';
  return new RuntimeError(kind, `checkpoint container ${id}: ${messageOf(error)}`, { cause: error });
}

/** Memory and root belong together: between the two nothing of the container may run. Answers what is deleted. */
async function captureStill(
  subject: Subject,
  work: WorkDirectory,
  tar: TarWriter,
  deps: CheckpointDeps,
  { signal, observer }: Call,
): Promise<readonly string[]> {
  const { container } = subject;
  try {
    await observer.step('freeze container', () => deps.cgroups.freeze(container.cgroupPath));
    throwIfCancelled(signal, 'checkpoint');
    const facts = await observer.step('look at processes', () => dumpFacts(subject, deps));
    await writeFile(join(work.imagesDir, 'descriptors.json'), JSON.stringify(await standardStreams(container.pid)));
    await observer.step('dump processes', () =>
      deps.checkpoints.criu.dump(
        { args: dumpArguments(facts), imagesDir: work.imagesDir, workDir: work.dir },
        signal,
        work.note,
      ),
    );
    return await observer.step('archive root file system', () => rootfsDiff(subject, facts.mounts, tar, deps, signal));
  } finally {
    await deps.cgroups.thaw(container.cgroupPath);
  }
}

async function dumpFacts({ container, sandbox }: Subject, deps: CheckpointDeps): Promise<DumpFacts> {
  const { pid, cgroupPath } = container;
  const { layout } = deps.cgroups;
  const freezer = layout.v2Root ?? layout.v1Roots.get('freezer');
  if (freezer === undefined) throw new RuntimeError('unavailable', 'checkpointing needs a cgroup freezer');
  const outside = [...(await mountTable('self')), ...(await mountTable(sandbox.shimPid))];
  const mounts = await mountTable(pid);
  const terminal = container.config.tty ? await terminalOf(pid) : undefined;
  return {
    pid,
    freezerDir: join(freezer, cgroupPath),
    sharedNamespaces: sharedNamespaces(pid, container),
    mounts,
    outsideFiles: await outsideFiles(pid, new Set(mounts.map(({ id }) => id))),
    outsideDevices: new Set(outside.map(({ device }) => device)),
    ...(terminal === undefined ? {} : { terminal }),
  };
}

/** Latin1, since paths need not be UTF-8. */
const mountTable = async (pid: number | 'self'): Promise<MountEntry[]> =>
  parseMountTable(await readFile(`/proc/${pid}/mountinfo`, 'latin1'));

/** Those a container shares with its pod; what it shares with the agent too is nothing CRIU would dump. */
function sharedNamespaces(pid: number, { config }: ContainerRecord): DumpFacts['sharedNamespaces'] {
  const inode = (of: number | 'self', name: 'net' | 'pid'): number => statSync(`/proc/${of}/ns/${name}`).ino;
  const own = config.security.namespaces.pid === 'container';
  const [net, pidns] = [inode(pid, 'net'), inode(pid, 'pid')];
  return {
    ...(net === inode('self', 'net') ? {} : { net }),
    ...(own || pidns === inode('self', 'pid') ? {} : { pid: pidns }),
  };
}

/** The shim's /dev/null, which a container without stdin reads. Its pipes are nothing that lies on a mount. */
async function outsideFiles(pid: number, mountIds: ReadonlySet<number>): Promise<DumpFacts['outsideFiles']> {
  const found = await Promise.all(
    [0, 1, 2].map(async (fd) => {
      const [target, info, st] = await Promise.all([
        readlink(`/proc/${pid}/fd/${fd}`),
        readFile(`/proc/${pid}/fdinfo/${fd}`, 'latin1'),
        stat(`/proc/${pid}/fd/${fd}`),
      ]).catch(() => []);
      const mountId = Number(/^mnt_id:\s*(\d+)$/m.exec(info ?? '')?.[1]);
      if (st === undefined || !target?.startsWith('/') || mountIds.has(mountId)) return [];
      return [{ mountId, inode: st.ino }];
    }),
  );
  return found.flat();
}

async function terminalOf(pid: number): Promise<DumpFacts['terminal']> {
  for (const fd of [0, 1, 2]) {
    const st = await stat(`/proc/${pid}/fd/${fd}`).catch(() => undefined);
    if (st?.isCharacterDevice() && unix98Majors.has(st.rdev >> 8)) return { rdev: st.rdev, dev: st.dev };
  }
  return undefined;
}

/** What its first three descriptors are; a restore gives CRIU others in their place, as runc does. */
const standardStreams = (pid: number): Promise<string[]> =>
  Promise.all([0, 1, 2].map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '/dev/null')));

/** Of pseudo terminals' slaves (Documentation/admin-guide/devices.txt). */
const unix98Majors: ReadonlySet<number> = new Set([136, 137, 138, 139, 140, 141, 142, 143]);

async function rootfsDiff(
  { container, sandbox }: Subject,
  mounts: readonly MountEntry[],
  tar: TarWriter,
  deps: CheckpointDeps,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const snapshot = deps.snapshots.snapshot(container.id);
  if (snapshot === undefined) return [];
  const input = {
    snapshot,
    mergedRoot: `/proc/${container.pid}/root`,
    mountPoints: new Set(mounts.map(({ point }) => point)),
    ...(sandbox.mappings === undefined ? {} : { mappings: sandbox.mappings }),
  };
  let deleted: readonly string[] = [];
  await tar.nested('rootfs-diff.tar', secondsOf(deps), async (inner) => {
    deleted = await writeRootfsDiff(inner, input, deps.checkpoints.files, signal);
  });
  return deleted;
}

const secondsOf = (deps: Pick<CheckpointDeps, 'host'>): number => Number(deps.host.now() / 1_000_000_000n);

async function writeRest(
  subject: Subject,
  deleted: readonly string[],
  work: WorkDirectory,
  tar: TarWriter,
  deps: CheckpointDeps,
  signal: AbortSignal,
): Promise<void> {
  const now = secondsOf(deps);
  const input = { ...subject, checkpointedAt: deps.host.now(), bindMounts: await bindMounts(subject.spec) };
  const documents = Object.entries(checkpointDocuments(input)).map(
    ([name, value]) => [name, JSON.stringify(value)] as const,
  );
  for (const [name, text] of [...documents, ['spec.dump', encodeSpec(dumpedSpec(input))] as const]) {
    await tar.bytes(name, Buffer.from(text), now);
  }
  if (deleted.length > 0) {
    await tar.bytes('deleted.files', Buffer.from(JSON.stringify(deleted), 'latin1'), now);
  }
  await tar.entry({ path: 'checkpoint/', type: 'directory', mode: 0o700, mtime: now });
  for (const name of (await readdir(work.imagesDir)).sort()) {
    await addFile(tar, `checkpoint/${name}`, join(work.imagesDir, name), now);
  }
  for (const name of [dumpLog, 'stats-dump']) await addFile(tar, name, join(work.dir, name), now);
  if (subject.container.logPath !== '') await addFile(tar, 'container.log', subject.container.logPath, now);
  throwIfCancelled(signal, 'write archive');
  await tar.end();
}

/** As large as it is now. What is no regular file, or is not there, is left out. */
async function addFile(tar: TarWriter, path: string, source: string, mtime: number): Promise<void> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  await using file = await open(source, flags).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ELOOP')) return undefined;
    throw error;
  });
  const st = await file?.stat();
  if (file === undefined || !st?.isFile()) return;
  await tar.copy({ path, type: 'file', mode: 0o600, mtime, size: st.size }, file);
}

/** A restore must make files where files were, and directories where directories were. */
async function bindMounts(spec: OciSpec): Promise<BindMount[]> {
  const found: BindMount[] = [];
  for (const { type, source, destination } of spec.mounts ?? []) {
    if (type !== 'bind' || source === undefined || !source.startsWith('/')) continue;
    const st = await stat(source).catch(() => undefined);
    if (st !== undefined) found.push({ source, destination, isDirectory: st.isDirectory(), mode: st.mode });
  }
  return found;
}
