import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { criClient, type CriClient } from '../support/cri-client.js';

/** One container runtime under measurement, behind its CRI socket. */
export interface Peer {
  readonly name: string;
  readonly client: CriClient;
  /** Process id of the daemon. */
  readonly pid: number;
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
  const daemon = launch(berth, ['serve'], options.dir, environment);
  const client = await connect(socket, daemon, options.dir);
  return {
    name: options.name,
    client,
    pid: daemon.pid ?? 0,
    podProcessesPss: () =>
      pssOf((words) => (words[0] ?? '').endsWith('berth-shim') && words.some((word) => word.startsWith(options.dir))),
    stop: () => stop(daemon, client),
  };
}

export async function startContainerd(options: PeerOptions): Promise<Peer> {
  const socket = join(options.dir, 'containerd.sock');
  const config = join(options.dir, 'config.toml');
  writeFileSync(config, containerdConfig(options, socket));
  const daemon = launch('/usr/bin/containerd', ['--config', config, '--log-level', 'error'], options.dir, process.env);
  const client = await connect(socket, daemon, options.dir);
  for (const [name, layout] of Object.entries(options.images)) importIntoContainerd(socket, name, layout, options.dir);
  return {
    name: 'containerd',
    client,
    pid: daemon.pid ?? 0,
    podProcessesPss: () => pssOf((words, pid) => words.includes(socket) || parentIsShimOf(pid, socket)),
    stop: () => stop(daemon, client),
  };
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

function launch(path: string, args: readonly string[], dir: string, env: NodeJS.ProcessEnv): ChildProcess {
  mkdirSync(dir, { recursive: true });
  const log = openSync(join(dir, 'daemon.log'), 'a');
  return spawn(path, args, { env, stdio: ['ignore', log, log] });
}

async function connect(socket: string, daemon: ChildProcess, dir: string): Promise<CriClient> {
  const client = criClient(socket);
  for (let attempt = 0; attempt < 200; attempt++) {
    if (daemon.exitCode !== null) break;
    try {
      await client.runtime.version({}, { timeoutMs: 1000 });
      return client;
    } catch {
      await sleep(100);
    }
  }
  client.close();
  throw new Error(`no CRI at ${socket}:\n${readFileSync(join(dir, 'daemon.log'), 'utf8').slice(-2000)}`);
}

async function stop(daemon: ChildProcess, client: CriClient): Promise<void> {
  client.close();
  if (daemon.exitCode !== null) return;
  const ended = new Promise((resolve) => daemon.once('exit', resolve));
  daemon.kill('SIGTERM');
  await ended;
}

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
