import { chmodSync, mkdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerConfig, NamespaceOptions, PodSandboxConfig, SandboxSecurity } from '../../src/runtime/model.js';
import {
  assertNothingLeft,
  call,
  makeTestHost,
  podConfig,
  runToEnd,
  traces,
  type OpenHost,
  type TestHost,
} from './runtime.js';

/** A runtime of its own for one `describe`, whose pods go after each test with nothing left behind. */
export interface Pods {
  readonly testHost: TestHost;
  readonly host: OpenHost;
  /** As a restarted agent: closes the runtime and opens it again. */
  reopen(): Promise<void>;
  run(changes?: PodChanges, runtimeHandler?: string): Promise<string>;
  /** Before the test is over. */
  remove(pod: string): Promise<void>;
  start(pod: string, config: ContainerConfig): Promise<string>;
  toEnd(pod: string, config: ContainerConfig): ReturnType<typeof runToEnd>;
  /** What a container prints that runs to its end. */
  output(pod: string, config: ContainerConfig): Promise<string>;
  exec(id: string, ...command: string[]): Promise<{ stdout: string; stderr: string; exitCode: number }>;
  pidOf(id: string): number;
  /** One below the test's own, made when missing. */
  directory(name: string, mode?: number): string;
}

export type PodChanges = Omit<Partial<PodSandboxConfig>, 'security'> & {
  readonly security?: Partial<SandboxSecurity>;
  readonly namespaces?: NamespaceOptions;
};

export interface PodsOptions {
  readonly flags?: Readonly<Record<string, string>>;
  /** Once, before the first test: images and whatever else shall be there. */
  readonly prepare?: (pods: Pods) => Promise<void>;
}

/** Registers its hooks with the `describe` it is called in. */
export function usePods({ flags, prepare }: PodsOptions = {}): Pods {
  const testHost = makeTestHost(flags);
  let host: OpenHost | undefined;
  let clean: Record<string, unknown> = {};
  const opened = (): OpenHost => {
    if (host === undefined) throw new Error('the runtime is not open yet');
    return host;
  };
  const pods: Pods = {
    testHost,
    get host() {
      return opened();
    },
    async reopen() {
      await opened().runtime.close();
      host = await testHost.open();
    },
    async run({ namespaces, security, ...changes } = {}, runtimeHandler = '') {
      const config = podConfig(testHost.dir, changes);
      const all = { ...config.security, ...security, ...(namespaces === undefined ? {} : { namespaces }) };
      return await opened().runtime.sandboxes.run({ config: { ...config, security: all }, runtimeHandler }, call());
    },
    remove: (pod) => opened().runtime.sandboxes.remove(pod, call()),
    async start(pod, config) {
      const { containers } = opened().runtime;
      const id = await containers.create({ sandboxId: pod, config }, call());
      await containers.start(id, call());
      return id;
    },
    toEnd: (pod, config) => runToEnd(opened(), pod, config),
    output: async (pod, config) => (await pods.toEnd(pod, config)).output,
    async exec(id, ...command) {
      const answer = await opened().runtime.containers.execSync(id, command, 10, call());
      const [stdout, stderr] = [answer.stdout, answer.stderr].map((bytes) => Buffer.from(bytes).toString());
      return { stdout: stdout ?? '', stderr: stderr ?? '', exitCode: answer.exitCode };
    },
    pidOf: (id) => opened().parts.registry.container(id).record.pid,
    directory(name, mode = 0o755) {
      const path = join(testHost.dir, name);
      mkdirSync(path, { recursive: true });
      chmodSync(path, mode);
      return path;
    },
  };
  before(async () => {
    host = await testHost.open();
    await prepare?.(pods);
    clean = traces(testHost);
  });
  after(() => testHost.destroy());
  afterEach(async function () {
    for (const { id } of opened().runtime.sandboxes.list({})) await pods.remove(id);
    await assertNothingLeft(testHost, opened(), clean, this.currentTest?.title ?? 'a test');
  });
  return pods;
}

/** As readlink shows it: `net:[4026531840]`. */
export const namespaceOf = (pid: number | 'self', kind: string): string => readlinkSync(`/proc/${pid}/ns/${kind}`);
