import { spawn, spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isErrno, messageOf } from '../../kit/errors.js';
import type { Processes } from '../../native/processes.js';
import type { Config } from '../../config.js';
import type { KeptRecord, Known } from './record.js';

type Outcome = Pick<KeptRecord, 'wayOut' | 'noWayOut'>;
type Program = 'pasta' | 'slirp4netns';

export interface WayOutOptions {
  readonly choice: Config['network']['rootless'];
  readonly state: string;
  readonly keeper: Known;
  readonly processes: Processes;
}

/** Milliseconds a program may take until the network works. */
const readyTimeoutMs = 10_000;

/**
 * Connects a kept network namespace with the host's network by a program that needs no rights: pasta, else slirp4netns.
 * Never throws: without one, pods reach each other only, and the reason is kept.
 */
export async function openWayOut(options: WayOutOptions): Promise<Outcome> {
  const { choice } = options;
  if (choice === 'none') return { noWayOut: 'network.rootless is none' };
  const reasons: string[] = [];
  for (const program of ['pasta', 'slirp4netns'] as const) {
    if (choice !== 'auto' && choice !== program) continue;
    try {
      const known = await starters[program](options);
      return { wayOut: { ...known, program }, noWayOut: '' };
    } catch (error) {
      const lacking = isErrno(error, 'ENOENT') ? `${program} is not installed` : `${program}: ${messageOf(error)}`;
      reasons.push(lacking);
    }
  }
  return { noWayOut: [...tunReason(), ...reasons].join('; ') };
}

/** Both programs open it, and both say so at length. */
function tunReason(): string[] {
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
    return [];
  } catch (error) {
    return [`/dev/net/tun cannot be opened (${messageOf(error)})`];
  }
}

const starters: Readonly<Record<Program, (options: WayOutOptions) => Promise<Known>>> = {
  pasta: (options) => Promise.resolve(startPasta(options)),
  slirp4netns: startSlirp,
};

/** It goes into the background once everything is set up, and says its number in a file. */
function startPasta({ keeper, state, processes }: WayOutOptions): Known {
  const log = openSync(join(state, 'pasta.log'), 'w', 0o600);
  const pidFile = join(state, 'pasta.pid');
  const namespace = (kind: string): string => `/proc/${keeper.pid}/ns/${kind}`;
  const nothing = ['-t', 'none', '-u', 'none', '-T', 'none', '-U', 'none', '--no-map-gw'];
  const at = ['--userns', namespace('user'), '--netns', namespace('net'), '-P', pidFile];
  try {
    const { status, error } = spawnSync('pasta', ['--config-net', ...nothing, ...at], {
      stdio: ['ignore', log, log],
      timeout: readyTimeoutMs,
    });
    if (error !== undefined) throw error;
    if (status !== 0) throw new Error(lastLine(join(state, 'pasta.log')));
    return known(Number(readFileSync(pidFile, 'utf8')), processes);
  } finally {
    closeSync(log);
    rmSync(pidFile, { force: true });
  }
}

/** It stays in the foreground, as a process of our session until we are gone. */
async function startSlirp({ keeper, state, processes }: WayOutOptions): Promise<Known> {
  const log = openSync(join(state, 'slirp4netns.log'), 'w', 0o600);
  try {
    const args = ['--configure', '--mtu=65520', '--disable-host-loopback', '--ready-fd=3', `${keeper.pid}`, 'tap0'];
    const child = spawn('slirp4netns', args, { stdio: ['ignore', log, log, 'pipe'], detached: true });
    const isReady = await new Promise<boolean>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', () => resolve(false));
      child.stdio[3]?.once('data', () => resolve(true));
      setTimeout(() => resolve(false), readyTimeoutMs).unref();
    });
    if (!isReady) child.kill('SIGKILL');
    child.unref();
    if (!isReady || child.pid === undefined) throw new Error(lastLine(join(state, 'slirp4netns.log')));
    return known(child.pid, processes);
  } finally {
    closeSync(log);
  }
}

function known(pid: number, processes: Processes): Known {
  const startTime = processes.startTime(pid);
  if (startTime === undefined) throw new Error('it ended at once');
  return { pid, startTime };
}

const lastLine = (path: string): string =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line.trim() !== '' && !line.includes('syslog'))
    .at(-1) ?? 'it ended without a word';
