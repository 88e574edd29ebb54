import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { loadConfig, type Config } from '../../src/config.js';
import { openRuntime } from '../../src/compose/runtime.js';
import type { Call } from '../../src/kit/call.js';
import { sleep } from '../../src/kit/deadline.js';
import { silentObserver, type Observer } from '../../src/kit/observer.js';
import type { Runtime } from '../../src/runtime/facade.js';
import type { Parts } from '../../src/runtime/parts.js';
import type { ContainerConfig, PodSandboxConfig } from '../../src/runtime/model.js';
import { buildTestImage } from './test-image.js';

export const testImage = 'test.example/app:1';

/**
 * A runtime over directories, a cgroup parent and a bridge of its own, with one image. It can be opened again over the
 * same directories, as a restarted agent does.
 */
export interface TestHost {
  readonly dir: string;
  readonly config: Config;
  /** Opens the runtime; the one opened before must be closed or abandoned. */
  open(observer?: Observer): Promise<OpenHost>;
  /** Removes every pod and everything the host has of this runtime. Never throws half way. */
  destroy(): Promise<void>;
}

export interface OpenHost {
  readonly runtime: Runtime;
  readonly parts: Parts;
}

export function makeTestHost(flags: Readonly<Record<string, string>> = {}): TestHost {
  // Short, since the pods' sockets lie below it.
  const dir = mkdtempSync(join(tmpdir(), 'bt-'));
  const tag = randomBytes(3).toString('hex');
  const environment = {
    BERTH_ROOT: join(dir, 'root'),
    BERTH_STATE: join(dir, 'run'),
    BERTH_CGROUP_PARENT: `/berth-test-${tag}`,
    BERTH_NETWORK_MODE: 'builtin',
    BERTH_NRI_SOCKET_PATH: join(dir, 'nri', 'nri.sock'),
    BERTH_NRI_PLUGIN_PATH: join(dir, 'nri', 'plugins'),
    BERTH_NRI_PLUGIN_CONFIG_PATH: join(dir, 'nri', 'conf.d'),
    BERTH_RUNTIME_CDI_SPEC_DIRS: ['etc', 'run'].map((name) => join(dir, 'cdi', name)).join(),
    BERTH_NETWORK_BRIDGE: `bt${tag}`,
    BERTH_NETWORK_SUBNETS: `10.213.${parseInt(tag.slice(0, 2), 16)}.0/24`,
    BERTH_NETWORK_CNI_CONF_DIR: join(dir, 'cni'),
    BERTH_NETWORK_NETNS_DIR: join(dir, 'netns'),
  };
  mkdirSync(join(dir, 'cni'));
  const config = loadConfig({ env: environment, flags });
  let current: OpenHost | undefined;
  const open = async (observer: Observer = silentObserver): Promise<OpenHost> => {
    const opened = await openRuntime(config, observer);
    current = opened;
    if (opened.runtime.images.get(testImage) === undefined) {
      const layout = buildTestImage(join(dir, `layout-${randomBytes(3).toString('hex')}`), { name: testImage });
      await opened.runtime.images.import(layout, testImage, call());
    }
    return opened;
  };
  return {
    dir,
    config,
    open,
    async destroy() {
      const opened = current;
      if (opened !== undefined) {
        for (const pod of opened.runtime.sandboxes.list({})) await opened.runtime.sandboxes.remove(pod.id, call());
        await opened.runtime.maintenance.clean(call());
        await opened.runtime.maintenance.teardown(call());
        await opened.runtime.close();
      }
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

export const call = (observer: Observer = silentObserver): Call => ({
  signal: new AbortController().signal,
  observer,
});

let sequence = 0;

/** A pod in the built-in network, alone in every namespace; `changes` go over it. */
export function podConfig(dir: string, changes: Partial<PodSandboxConfig> = {}): PodSandboxConfig {
  const name = `pod-${++sequence}`;
  const logDirectory = join(dir, 'logs', name);
  mkdirSync(logDirectory, { recursive: true });
  return {
    metadata: { name, uid: `uid-${name}`, namespace: 'test', attempt: 0 },
    hostname: name,
    logDirectory,
    portMappings: [],
    labels: {},
    annotations: {},
    cgroupParent: '',
    sysctls: {},
    security: {
      namespaces: { network: 'pod', pid: 'container', ipc: 'pod' },
      readonlyRootfs: false,
      supplementalGroups: [],
      supplementalGroupsPolicy: 'merge',
      privileged: false,
    },
    ...changes,
  };
}

/** A container of the test image that runs a shell script. */
export function containerConfig(
  script: string,
  changes: Partial<Omit<ContainerConfig, 'security'>> & {
    readonly security?: Partial<ContainerConfig['security']>;
  } = {},
): ContainerConfig {
  const { security, ...rest } = changes;
  return {
    metadata: { name: `c-${++sequence}`, attempt: 0 },
    image: { image: testImage, userSpecifiedImage: testImage, annotations: {}, runtimeHandler: '' },
    command: ['/bin/sh', '-c', script],
    args: [],
    workingDir: '',
    env: [],
    mounts: [],
    devices: [],
    cdiDevices: [],
    labels: {},
    annotations: {},
    logPath: `c-${sequence}.log`,
    stdin: false,
    stdinOnce: false,
    tty: false,
    resources: {},
    security: {
      namespaces: { network: 'pod', pid: 'container', ipc: 'pod' },
      readonlyRootfs: false,
      supplementalGroups: [],
      supplementalGroupsPolicy: 'merge',
      privileged: false,
      capabilities: { add: [], drop: [], addAmbient: [] },
      noNewPrivs: false,
      maskedPaths: [],
      readonlyPaths: [],
      ...security,
    },
    ...rest,
  };
}

/** Runs a script to its end in a pod and returns what it printed and how it ended. */
export async function runToEnd(
  host: OpenHost,
  pod: string,
  config: ContainerConfig,
): Promise<{ id: string; output: string; code: number; reason: string }> {
  const { runtime, parts } = host;
  const id = await runtime.containers.create({ sandboxId: pod, config }, call());
  await runtime.containers.start(id, call());
  if (!(await parts.registry.waitForExit(id, 20_000))) throw new Error(`container ${id} does not end`);
  const view = runtime.containers.status(id);
  return { id, output: logText(view.logPath), code: view.exit?.code ?? -1, reason: view.exit?.reason ?? '' };
}

/** The lines of a CRI log without their stamps. */
export function logText(path: string): string {
  if (!existsSync(path)) return '';
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [, , tag, ...rest] = line.split(' ');
      return rest.join(' ') + (tag === 'F' ? '\n' : '');
    })
    .join('');
}

/** What the host holds of a test's runtime: the same before and after means nothing was left. */
export function traces(host: TestHost): Record<string, unknown> {
  const below = (path: string): string[] => (existsSync(path) ? readdirSync(path).sort() : []);
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(host.dir))
    .map((line) => line.split(' ')[4]);
  return {
    pods: below(join(host.config.state, 'pods')),
    snapshots: below(join(host.config.root, 'snapshots', 'active')),
    netns: below(host.config.network.netnsDir),
    cgroups: cgroupsBelow(host.config.cgroup.parent),
    shims: shimsBelow(host.config.state),
    links: below('/sys/class/net').filter((name) => name.startsWith('veth') || name.startsWith('bv')),
    mounts,
  };
}

function cgroupsBelow(parent: string): string[] {
  const roots = ['memory', 'pids', 'unified', 'cpu', 'freezer', 'devices', 'systemd', '.'];
  return roots.flatMap((root) => {
    const dir = join('/sys/fs/cgroup', root, parent);
    if (!existsSync(dir)) return [];
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && entry.name !== 'shims')
      .map((entry) => join(root, entry.name));
  });
}

function shimsBelow(state: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^[0-9]+$/.test(pid)) return false;
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      return line.includes('berth-shim') && line.includes(`${state}/`);
    } catch {
      return false;
    }
  });
}

/** Asserts that nothing was left, of a host where the dying may take a moment to be gone. */
export async function assertNothingLeft(
  host: TestHost,
  opened: OpenHost,
  clean: Record<string, unknown>,
  after: string,
): Promise<void> {
  const look = async () => ({ orphans: await opened.runtime.maintenance.orphans(), traces: traces(host) });
  const wanted = { orphans: [], traces: clean };
  let found = await look();
  for (let i = 0; i < 40 && !isDeepStrictEqual(found, wanted); i++) {
    await sleep(50);
    found = await look();
  }
  assert.deepEqual(found, wanted, `left behind after ${after}`);
}
