import { spawnSync } from 'node:child_process';
import { mkdirSync, openSync, readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { sleep } from '../../kit/deadline.js';
import { isErrno, messageOf, RuntimeError } from '../../kit/errors.js';
import type { Config } from '../../config.js';
import {
  joinArguments,
  keepNamespaces,
  keepOverExec,
  replaceProcess,
  type Keeper,
} from '../../native/kept-namespaces.js';
import { Descriptor } from '../../native/descriptor.js';
import { openNative, type Native } from '../../native/native.js';
import { parseIdMaps, type IdMappings } from '../../runtime/idmap/mapping.js';
import type { IdMapping } from '../../runtime/model.js';
import { builtPrograms } from '../programs.js';
import { leaveDelegatedRoot } from './cgroups.js';
import { findHeir } from './heir.js';
import { endKept, isInside, readKept, writeKept, type KeptRecord } from './record.js';
import { mapArguments, rootlessMaps, type Account } from './subordinate-ids.js';
import { openWayOut } from './way-out.js';

/** Number of the descriptor by which a process holds the lock `in-use`; taken before it came in, so without a gap. */
const lockVariable = 'BERTH_ROOTLESS_LOCK';

/** The maps of this very process. */
export const ownMaps = (): IdMappings =>
  parseIdMaps(readFileSync('/proc/self/uid_map', 'utf8'), readFileSync('/proc/self/gid_map', 'utf8'));

/**
 * Brings this process into the namespaces of its user's agent, making them when nobody keeps them: it starts again from
 * the beginning, with the same number, arguments and environment. Returns when it is inside. Throws `denied` where
 * something is missing, with what helps.
 */
export async function enterNamespaces(config: Pick<Config, 'state' | 'network'>): Promise<void> {
  const { state } = config;
  mkdirSync(state, { recursive: true, mode: 0o700 });
  const native = openNative();
  using making = await lockFile(state, 'making', true, native);
  const found = readKept(state);
  const kept = found !== undefined && isAlive(found, native) ? found : undefined;
  const isHere = kept !== undefined && isInside(kept.keeper);
  const inUse = adoptedLock(native) ?? (await lockFile(state, 'in-use', false, native)).take();
  process.env[lockVariable] = `${inUse}`;
  if (isHere) return;
  const heir = kept === undefined ? findHeir(state, native.processes) : undefined;
  // There this starts again, and makes a keeper where the pods are.
  const keeper = heir ?? (kept ?? (await makeNamespaces(config, found, native))).keeper;
  keepOverExec(native.library, inUse);
  making[Symbol.dispose]();
  const again = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  replaceProcess(native, builtPrograms().shim, joinArguments(keeper, again), process.env);
}

/**
 * Ends the namespaces when nobody else uses them; for an agent that leaves no pod behind. What is left is found by the
 * next start.
 */
export async function leaveNamespaces(state: string, native: Native): Promise<void> {
  const kept = readKept(state);
  const inUse = process.env[lockVariable];
  if (kept === undefined || inUse === undefined || !isAlive(kept, native) || !isInside(kept.keeper)) return;
  using _making = await lockFile(state, 'making', true, native);
  if (native.files.tryLock(Number(inUse), true)) endKept(state, kept, native.processes);
}

const isAlive = ({ keeper }: KeptRecord, { processes }: Native): boolean =>
  processes.isRunning(keeper.pid, keeper.startTime);

/** The lock that came with us; programs we start must not hold it too. */
function adoptedLock({ library }: Native): number | undefined {
  const given = process.env[lockVariable];
  if (given === undefined) return undefined;
  keepOverExec(library, Number(given), false);
  return Number(given);
}

const lockPatienceMs = 30_000;

async function lockFile(state: string, name: string, exclusive: boolean, native: Native): Promise<Descriptor> {
  const path = join(state, `${name}.lock`);
  const lock = new Descriptor(native.library, openSync(path, 'a', 0o600));
  const giveUp = performance.now() + lockPatienceMs;
  while (!native.files.tryLock(lock.fd, exclusive)) {
    if (performance.now() > giveUp) throw new RuntimeError('in-progress', `${path} is locked by another process`);
    await sleep(10);
  }
  return lock;
}

async function makeNamespaces(
  { state, network }: Pick<Config, 'state' | 'network'>,
  dead: KeptRecord | undefined,
  native: Native,
): Promise<KeptRecord> {
  if (dead !== undefined) endKept(state, dead, native.processes);
  leaveDelegatedRoot();
  const keeper = startKeeper(native);
  const { processes } = native;
  const record = { keeper, ...(await openWayOut({ choice: network.rootless, state, keeper, processes })) };
  writeKept(state, record);
  return record;
}

/** Inside a user namespace already (`podman unshare`, `unshare -Ur`) its own maps are what there is. */
function startKeeper(native: Native): Keeper {
  const program = builtPrograms().shim;
  if (process.geteuid?.() === 0) return keep(native, program, false, () => undefined);
  const account = accountOf();
  const maps = rootlessMaps(account, readText('/etc/subuid'), readText('/etc/subgid'));
  return keep(native, program, true, (pid) => {
    writeMap('newuidmap', pid, maps.uids);
    writeMap('newgidmap', pid, maps.gids);
  });
}

function keep(native: Native, program: string, user: boolean, mapIds: (pid: number) => void): Keeper {
  try {
    return keepNamespaces(native, program, { user, network: true }, mapIds);
  } catch (error) {
    if (error instanceof RuntimeError) throw error;
    const hint = 'berth doctor says what this host keeps from ordinary users';
    throw new RuntimeError('denied', `${messageOf(error)}; ${hint}`, { cause: error });
  }
}

function accountOf(): Account {
  try {
    const { username: name, uid, gid } = userInfo();
    return { name, uid, gid };
  } catch (error) {
    throw new RuntimeError('denied', `user ${process.geteuid?.()} has no line in /etc/passwd`, { cause: error });
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return '';
    throw new RuntimeError('denied', `read ${path}: ${messageOf(error)}`, { cause: error });
  }
}

/** Only these programs may map ids other than the user's own. */
function writeMap(program: 'newuidmap' | 'newgidmap', pid: number, map: readonly IdMapping[]): void {
  const { status, stderr, error } = spawnSync(program, mapArguments(pid, map), { encoding: 'utf8' });
  if (error !== undefined && isErrno(error, 'ENOENT')) {
    throw new RuntimeError('denied', `${program} is not installed; as root: apt-get install uidmap`);
  }
  if (error !== undefined) throw new RuntimeError('internal', `${program}: ${error.message}`, { cause: error });
  if (status !== 0) throw new RuntimeError('denied', `write the id maps of process ${pid}: ${stderr.trim()}`);
}
