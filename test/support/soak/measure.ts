/** What an agent and its pods hold on the host, counted. */
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TestAgent } from '../agent.js';

/** Milliseconds a collection may take. */
const collectMs = 300;

/** By name; bytes where the name says so. */
export type Sample = Readonly<Record<string, number>>;

/** For the agent that is measured: it then collects its garbage when it is told to. */
export const measuredEnvironment = {
  NODE_OPTIONS: `--import=${new URL('collect-garbage.mjs', import.meta.url).pathname}`,
};

/** The shim is that of a pod that lives through the whole run. */
export async function measure(agent: TestAgent, shimPid: number): Promise<Sample> {
  process.kill(agent.pid, 'SIGUSR2');
  await sleep(collectMs);
  const { BERTH_ROOT: root = '', BERTH_STATE: state = '', BERTH_CGROUP_PARENT: cgroup = '' } = agent.env;
  const { BERTH_NETWORK_BRIDGE: bridge = '', BERTH_NETWORK_NETNS_DIR: netns = '' } = agent.env;
  const [rootDisk, stateDisk] = [diskOf(root), diskOf(state)];
  return {
    'agent descriptors': descriptors(agent.pid),
    'agent threads': statusField(agent.pid, 'Threads'),
    'agent PSS bytes': memory(agent.pid, 'Pss'),
    'agent RSS bytes': statusField(agent.pid, 'VmRSS') * 1024,
    'agent heap bytes': await heap(join(state, 'admin.sock')),
    'shim descriptors': descriptors(shimPid),
    'shim PSS bytes': memory(shimPid, 'Pss'),
    'shim own bytes': memory(shimPid, 'Anonymous'),
    processes: processesOf(agent.dir, cgroup),
    'host mounts': linesWith('/proc/self/mountinfo', agent.dir),
    cgroups: cgroupDirs(cgroup),
    'network namespaces': names(netns).length,
    'network interfaces': names(`/sys/class/net/${bridge}/brif`).length,
    'root files': rootDisk.files,
    'root bytes': rootDisk.bytes,
    'state files': stateDisk.files,
    'state bytes': stateDisk.bytes,
  };
}

/**
 * Waits until processes, cgroups and network namespaces stay as many as they are: some end behind a request, shims of a
 * killed agent a moment after it.
 */
export async function settled({ dir, env }: TestAgent): Promise<void> {
  const { BERTH_CGROUP_PARENT: cgroup = '', BERTH_NETWORK_NETNS_DIR: netns = '' } = env;
  const look = (): string => [processesOf(dir, cgroup), cgroupDirs(cgroup), names(netns).length].join();
  let [before, same] = [look(), 0];
  for (let looks = 0; same < 3 && looks < 60; looks++) {
    await sleep(500);
    const now = look();
    same = now === before ? same + 1 : 0;
    before = now;
  }
}

/** What may differ between quiet moments without anything being lost, by measure; the others may not grow at all. */
const slack: Readonly<Record<string, number>> = {
  'agent descriptors': 8, // idle connections, files the garbage collector has not closed yet
  'agent threads': 2,
  'agent PSS bytes': 24 * 2 ** 20, // Node gives memory back late
  'agent RSS bytes': 24 * 2 ** 20,
  'agent heap bytes': 3 * 2 ** 20, // caches that have a bound, compiled code
  'shim PSS bytes': 128 * 2 ** 10, // shims of a restarted agent share their program with each other only
  'shim own bytes': 16 * 2 ** 10, // its table of pages, its stack
  'root files': 2, // compiled programs, kept by what they are made from
  'root bytes': 4 * 2 ** 20, // pages of the databases, which are used again
  'state bytes': 2 * 2 ** 20,
};

export interface Growth {
  readonly name: string;
  readonly first: number;
  readonly last: number;
  readonly growth: number;
  readonly allowed: number;
}

/**
 * How each measure grew. What is taken away behind a request may still be there in a sample, so what counts is the
 * least of the first third of the samples and of the last.
 */
export function growth(samples: readonly Sample[]): readonly Growth[] {
  const third = Math.max(1, Math.floor(samples.length / 3));
  const least = (some: readonly Sample[], name: string): number => Math.min(...some.map((each) => each[name] ?? 0));
  return Object.keys(samples[0] ?? {}).map((name) => {
    const [first, last] = [least(samples.slice(0, third), name), least(samples.slice(-third), name)];
    return { name, first, last, growth: last - first, allowed: slack[name] ?? 0 };
  });
}

const names = (dir: string): string[] => (existsSync(dir) ? readdirSync(dir) : []);

const descriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

function statusField(pid: number, name: string): number {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${name}:\\s+([0-9]+)`, 'm').exec(text)?.[1] ?? 0);
}

function memory(pid: number, field: 'Pss' | 'Anonymous'): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(new RegExp(`^${field}:\\s+([0-9]+)`, 'm').exec(text)?.[1] ?? 0) * 1024;
}

const linesWith = (file: string, word: string): number =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line.includes(word)).length;

/** Those that name the agent's directory, the agent's zombies, and everybody in its cgroup. */
function processesOf(dir: string, cgroup: string): number {
  return names('/proc').filter((name) => {
    if (!/^[0-9]+$/.test(name)) return false;
    try {
      const [line, groups] = ['cmdline', 'cgroup'].map((file) => readFileSync(`/proc/${name}/${file}`, 'utf8'));
      return (line ?? '').includes(dir) || (groups ?? '').includes(`${cgroup}/`);
    } catch {
      return false;
    }
  }).length;
}

/** Over all hierarchies. */
function cgroupDirs(cgroup: string): number {
  const top = '/sys/fs/cgroup';
  const roots = [top, ...names(top).map((name) => join(top, name))].map((root) => join(root, cgroup));
  const below = (dir: string): number =>
    readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .reduce((sum, { name }) => sum + below(join(dir, name)), 1);
  return roots.filter((root) => existsSync(root)).reduce((sum, root) => sum + below(root), 0);
}

function diskOf(dir: string): { readonly files: number; readonly bytes: number } {
  let [files, bytes] = [0, 0];
  for (const entry of readdirSync(dir, { withFileTypes: true, recursive: true })) {
    files++;
    bytes += (lstatSync(join(entry.path, entry.name), { throwIfNoEntry: false })?.blocks ?? 0) * 512;
  }
  return { files, bytes };
}

/** Bytes of JavaScript objects, as the agent's own metrics tell. */
async function heap(socketPath: string): Promise<number> {
  const text = await new Promise<string>((resolve, reject) => {
    request({ socketPath, path: '/metrics' }, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => (body += chunk.toString())).on('end', () => resolve(body));
    })
      .on('error', reject)
      .end();
  });
  return Number(/^nodejs_heap_size_used_bytes (\S+)/m.exec(text)?.[1] ?? 0);
}
