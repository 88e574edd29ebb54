import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { criClient, type CriClient } from '../support/cri-client.js';

/** One container runtime under measurement, behind its CRI socket. */
export interface Peer {
  readonly name: string;
  /** Another one after each restart. */
  readonly client: CriClient;
  /** Process id of the daemon. */
  readonly pid: number;
  /** Kills the daemon as a crash would, starts it again, and resolves with the milliseconds until it listed its pods. */
  restart(): Promise<number>;
  /** Bytes of proportional set size of everything that runs for pods: shims, pause processes, monitors. */
  podProcessesPss(): number;
  stop(): Promise<void>;
}

export interface PeerOptions {
  /** An empty directory of the peer's own. */
  readonly dir: string;
  /** CNI configuration directory; both peers get the same. */
  readonly cniConfDir: string;
  readonly cniBinDir: string;
  /** OCI layouts to import, by reference. */
  readonly images: Readonly<Record<string, string>>;
  readonly sandboxImage: string;
}

const repository = new URL('../..', import.meta.url).pathname;

export async function startBerth(options: PeerOptions & { network: 'cni' | 'builtin'; name: string }): Promise<Peer> {
  const socket = join(options.dir, 'berth.sock');
  const environment = {
    ...process.env,
    BERTH_ROOT: join(options.dir, 'root'),
    BERTH_STATE: join(options.dir, 'run'),
    BERTH_SOCKET: socket,
    BERTH_CGROUP_PARENT: `/berth-bench-${process.pid}/${options.name}`,
    BERTH_NETWORK_MODE: options.network,
    BERTH_NETWORK_CNI_CONF_DIR: options.cniConfDir,
    BERTH_NETWORK_CNI_BIN_DIRS: options.cniBinDir,
    BERTH_NETWORK_BRIDGE: 'brthbench0',
    BERTH_NRI_SOCKET_PATH: join(options.dir, 'nri', 'nri.sock'),
    BERTH_LOG_LEVEL: 'warn',
  };
  const berth = join(repository, 'bin/berth');
  for (const [name, layout] of Object.entries(options.images)) {
    execFileSync(berth, ['image', 'import', '--name', name, layout], { env: environment, stdio: 'pipe' });
  }
  const isShim = (words: readonly string[]): boolean =>
    (words[0] ?? '').endsWith('berth-shim') && words.some((word) => word.startsWith(options.dir));
  const command = { path: berth, args: ['serve'], env: environment, dir: options.dir, socket };
  return await serve(options.name, command, () => pssOf(isShim));
}

export async function startContainerd(options: PeerOptions): Promise<Peer> {
  const socket = join(options.dir, 'containerd.sock');
  const config = join(options.dir, 'config.toml');
  writeFileSync(config, containerdConfig(options, socket));
  const args = ['--config', config, '--log-level', 'error'];
  const command = { path: '/usr/bin/containerd', args, env: process.env, dir: options.dir, socket };
  const peer = await serve('containerd', command, () =>
    pssOf((words, pid) => words.includes(socket) || parentIsShimOf(pid, socket)),
  );
  for (const [name, layout] of Object.entries(options.images)) importIntoContainerd(socket, name, layout, options.dir);
  return peer;
}

function containerdConfig(options: PeerOptions, socket: string): string {
  return `version = 2
root = "${join(options.dir, 'root')}"
state = "${join(options.dir, 'state')}"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "${socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${options.sandboxImage}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "${options.cniBinDir}"
    conf_dir = "${options.cniConfDir}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
`;
}

/** Into the namespace of its CRI server. */
export function importIntoContainerd(socket: string, name: string, layout: string, dir: string): void {
  const archive = join(dir, 'image.tar');
  execFileSync('tar', ['-C', layout, '-cf', archive, '.']);
  // Its garbage collector may take what a first import has just brought.
  for (let attempt = 1; ; attempt++) {
    try {
      execFileSync('ctr', ['-a', socket, '-n', 'k8s.io', 'image', 'import', '--index-name', name, archive], {
        stdio: 'pipe',
      });
      return;
    } catch (error) {
      if (attempt === 5) throw error;
    }
  }
}

interface DaemonCommand {
  readonly path: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Has its log. */
  readonly dir: string;
  readonly socket: string;
}

async function serve(name: string, command: DaemonCommand, podProcessesPss: () => number): Promise<Peer> {
  mkdirSync(command.dir, { recursive: true });
  let daemon = launch(command);
  let client = await connect(command, daemon);
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    client.close();
    if (daemon.exitCode !== null) return;
    const ended = new Promise((resolve) => daemon.once('exit', resolve));
    daemon.kill(signal);
    await ended;
  };
  return {
    name,
    get client() {
      return client;
    },
    get pid() {
      return daemon.pid ?? 0;
    },
    podProcessesPss,
    async restart() {
      await end('SIGKILL');
      const begin = performance.now();
      daemon = launch(command);
      client = await connect(command, daemon);
      return performance.now() - begin;
    },
    stop: () => end('SIGTERM'),
  };
}

function launch({ path, args, dir, env }: DaemonCommand): ChildProcess {
  const log = openSync(join(dir, 'daemon.log'), 'a');
  const daemon = spawn(path, args, { env, stdio: ['ignore', log, log] });
  closeSync(log);
  return daemon;
}

/** Once it lists its pods. Asks with a new client each time, since one waits ever longer between attempts. */
async function connect({ socket, dir }: DaemonCommand, daemon: ChildProcess): Promise<CriClient> {
  for (const end = Date.now() + 120_000; daemon.exitCode === null && Date.now() < end; await sleep(5)) {
    if (!(await accepts(socket))) continue;
    const client = criClient(socket);
    try {
      await client.runtime.listPodSandbox({}, { timeoutMs: 60_000 });
      return client;
    } catch {
      client.close();
    }
  }
  throw new Error(`no CRI at ${socket}:\n${readFileSync(join(dir, 'daemon.log'), 'utf8').slice(-2000)}`);
}

const accepts = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connectSocket(path, () => resolve(socket.destroy() !== undefined));
    socket.once('error', () => resolve(false));
  });

/** Sum over all processes whose command line matches. */
function pssOf(matches: (words: readonly string[], pid: number) => boolean): number {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .filter((pid) => matches(commandLine(pid), Number(pid)))
    .reduce((sum, pid) => sum + pss(Number(pid)), 0);
}

/** Proportional set size of a process in bytes; 0 when it is gone. */
export function pss(pid: number): number {
  try {
    const line = /^Pss:\s+([0-9]+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
    return Number(line?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** Milliseconds of CPU time a process has used; the kernel counts ticks of 10 ms. */
export function cpuTime(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function commandLine(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

/** A pause process: its parent is a shim of the given daemon and its program is /pause. */
function parentIsShimOf(pid: number, socket: string): boolean {
  try {
    const parent = /^PPid:\s+([0-9]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '0';
    return commandLine(parent).includes(socket) && readlinkSync(`/proc/${pid}/exe`).endsWith('/pause');
  } catch {
    return false;
  }
}
