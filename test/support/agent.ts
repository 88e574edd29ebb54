import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { criClient, type CriClient } from './cri-client.js';

/**
 * A whole agent, started as people start it, in directories, a cgroup and on a bridge of its own, so that several can
 * run beside each other and everything one leaves behind can be found.
 */
export interface TestAgent {
  readonly dir: string;
  readonly socket: string;
  readonly env: Readonly<Record<string, string>>;
  readonly cri: CriClient;
  readonly pid: number;
  /** Runs the berth command against this agent. Never rejects. */
  berth(...args: readonly string[]): Promise<CommandResult>;
  /** SIGKILL, as a crash would. */
  crash(): Promise<void>;
  /** SIGTERM; pods go on. */
  stop(): Promise<void>;
  /** Starts it again on the same directories. */
  start(): Promise<void>;
  /** What the agent wrote. */
  log(): string;
  /** Stops and removes every pod, ends the agent and removes its directories. Returns what is left on the host. */
  close(): Promise<readonly string[]>;
}

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface TestAgentOptions {
  /** Further BERTH_* settings. */
  readonly env?: Readonly<Record<string, string>>;
  /** Does not start it yet. */
  readonly stopped?: boolean;
}

const repository = new URL('../..', import.meta.url).pathname;
export const berthCommand = join(repository, 'bin/berth');

export async function startAgent(options: TestAgentOptions = {}): Promise<TestAgent> {
  const place = makePlace(options.env);
  const agent = new Agent(place);
  if (options.stopped !== true) await agent.start();
  return agent;
}

/** Everything that tells one agent's things on the host from another's. */
interface Place {
  readonly dir: string;
  readonly bridge: string;
  readonly cgroup: string;
  readonly env: Readonly<Record<string, string>>;
}

function makePlace(env: Readonly<Record<string, string>> = {}): Place {
  const id = randomBytes(3).toString('hex');
  // Short: the shims' sockets lie below it, and a socket's path may have 107 bytes.
  const dir = mkdtempSync(join(tmpdir(), 'bt-'));
  const bridge = `bt${id}`;
  const cgroup = `/berth-test-${id}`;
  mkdirSync(join(dir, 'cni'));
  const own = {
    BERTH_ROOT: join(dir, 'root'),
    BERTH_STATE: join(dir, 's'),
    BERTH_CGROUP_PARENT: cgroup,
    BERTH_NETWORK_BRIDGE: bridge,
    BERTH_NETWORK_SUBNETS: freeSubnet(),
    BERTH_NETWORK_CNI_CONF_DIR: join(dir, 'cni'),
    BERTH_NETWORK_NETNS_DIR: join(dir, 'netns'),
    BERTH_IMAGES_CERTS_DIR: join(dir, 'certs.d'),
    BERTH_NRI_SOCKET_PATH: join(dir, 'nri', 'nri.sock'),
    BERTH_LOG_FORMAT: 'text',
    BERTH_CONFIG: join(dir, 'config.toml'),
  };
  openSync(own.BERTH_CONFIG, 'w');
  return { dir, bridge, cgroup, env: { ...own, ...env } };
}

/** A network that no link of this host is in. */
function freeSubnet(): string {
  const used = Object.values(networkInterfaces()).flatMap((each) => each?.map(({ address }) => address) ?? []);
  for (;;) {
    const second = randomInt(200, 250);
    if (!used.some((address) => address.startsWith(`10.${second}.`))) return `10.${second}.${randomInt(0, 255)}.0/24`;
  }
}

class Agent implements TestAgent {
  readonly #place: Place;
  #process: ChildProcess | undefined;
  #cri: CriClient | undefined;

  constructor(place: Place) {
    this.#place = place;
  }

  get dir(): string {
    return this.#place.dir;
  }
  get env(): Readonly<Record<string, string>> {
    return this.#place.env;
  }
  get socket(): string {
    return this.env['BERTH_SOCKET'] ?? join(this.dir, 's/berth.sock');
  }
  get cri(): CriClient {
    return (this.#cri ??= criClient(this.socket));
  }
  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  async start(): Promise<void> {
    const log = openSync(join(this.dir, 'agent.log'), 'a');
    const env = { ...process.env, ...this.env };
    this.#process = spawn(berthCommand, ['serve'], { env, stdio: ['ignore', log, log], cwd: '/' });
    for (let attempt = 0; this.#process.exitCode === null && attempt < 600; attempt++) {
      if (await this.#answers()) return;
      await sleep(50);
    }
    const text = this.log();
    await this.close();
    throw new Error(`the agent did not start:\n${text.slice(-4000)}`);
  }

  async #answers(): Promise<boolean> {
    try {
      await this.cri.runtime.version({}, { timeoutMs: 1000 });
      return true;
    } catch {
      return false;
    }
  }

  berth(...args: readonly string[]): Promise<CommandResult> {
    return runBerth(args, this.env);
  }

  crash(): Promise<void> {
    return this.#end('SIGKILL');
  }

  stop(): Promise<void> {
    return this.#end('SIGTERM');
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    this.#cri?.close();
    this.#cri = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  }

  log(): string {
    const path = join(this.dir, 'agent.log');
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }

  async close(): Promise<readonly string[]> {
    const troubles: string[] = [];
    if (this.#process !== undefined) {
      await removePods(this.cri).catch((error: unknown) => troubles.push(`remove pods: ${String(error)}`));
      await this.stop();
    }
    const left = [...troubles, ...leftovers(this.#place)];
    if (left.length === 0) rmSync(this.dir, { recursive: true });
    return left;
  }
}

/** Runs the berth command with these settings. Never rejects. */
export function runBerth(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<CommandResult> {
  return new Promise((resolve) => {
    const options = { env: { ...process.env, ...env }, maxBuffer: 64 * 2 ** 20 };
    const child = execFile(berthCommand, [...args], options, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 128;
      resolve({ code, stdout, stderr });
    });
    child.stdin?.end();
  });
}

async function removePods({ runtime }: CriClient): Promise<void> {
  for (const { id } of (await runtime.listPodSandbox()).items) {
    await runtime.stopPodSandbox({ podSandboxId: id }, { timeoutMs: 60_000 });
    await runtime.removePodSandbox({ podSandboxId: id }, { timeoutMs: 60_000 });
  }
}

/** Mounts, processes, namespaces, cgroups and links on the host that are of this agent, in words. */
function leftovers({ dir, bridge, cgroup }: Place): string[] {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(dir));
  const processes = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && commandLine(name).includes(dir));
  const netns = existsSync(join(dir, 'netns')) ? readdirSync(join(dir, 'netns')) : [];
  const cgroups = findCgroups(cgroup.slice(1)).filter((path) => !removeEmpty(path));
  return [
    ...mounts.map((line) => `mount ${line}`),
    ...processes.map((pid) => `process ${pid} ${commandLine(pid)}`),
    ...netns.map((name) => `network namespace ${name}`),
    ...cgroups.map((path) => `cgroup ${path}`),
    ...(existsSync(`/sys/class/net/${bridge}`) ? [`bridge ${bridge}`] : []),
    ...firewallTables().filter((line) => line.endsWith(` ${bridge}`)),
  ];
}

/** `table ip NAME` each; nothing where nft is not installed. */
function firewallTables(): string[] {
  const { stdout } = spawnSync('nft', ['list', 'tables'], { encoding: 'utf8' });
  return stdout?.split('\n') ?? [];
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}

/** The configured parent and the shims' cgroup stay for the next agent; here they go, unless something is in them. */
function removeEmpty(path: string): boolean {
  try {
    const shims = join(path, 'shims');
    if (existsSync(shims)) rmdirSync(shims);
    rmdirSync(path);
    return true;
  } catch {
    return false;
  }
}

function findCgroups(name: string): string[] {
  const root = '/sys/fs/cgroup';
  const hierarchies = existsSync(root) ? [root, ...readdirSync(root).map((each) => join(root, each))] : [];
  return hierarchies.map((each) => join(each, name)).filter((path) => existsSync(path));
}
