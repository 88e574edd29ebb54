import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { isKind } from '../../src/kit/errors.js';
import type { ContainerConfig, ImageSpec, Mount, NamespaceOptions } from '../../src/runtime/model.js';
import {
  assertNothingLeft,
  call,
  containerConfig,
  makeTestHost,
  podConfig,
  runToEnd,
  traces,
  type OpenHost,
  type TestHost,
} from './runtime.js';
import { buildTestImage, type TestImageOptions } from './test-image.js';
import { line, namespaces } from './userns.js';

/** As the kubelet gives them for volumes of a pod with the namespaces of `userns.ts`. */
export const maps = { uidMappings: [line(1_000_000)], gidMappings: [line(2_000_000)] };

const { userns: _, ...unmapped } = namespaces();

/** Pods without a user namespace, and with one. */
export const bothPods = [
  ['a pod', unmapped, 'auto'],
  ['a pod in a user namespace', namespaces(), 'idmapped'],
] as const;

/** And with one over each way in which an image's files get its ids. */
export const everyPod = [
  ...bothPods,
  ['a pod over a layer of owners', namespaces(), 'metacopy'],
  ['a pod over a copy of its image', namespaces(), 'copy'],
] as const;

type Changes = Parameters<typeof containerConfig>[1];

/** What tests of volumes need of a runtime of their own; each test has one pod, which goes with it. */
export interface VolumeSuite {
  readonly mapped: boolean;
  readonly host: OpenHost;
  readonly dir: string;
  /** As a new agent over the same directories. */
  restart(): Promise<void>;
  run(): Promise<string>;
  container(script: string, changes?: Changes): ContainerConfig;
  /** What a container prints until its end. */
  output(script: string, changes?: Changes): Promise<string>;
  create(pod: string, config: ContainerConfig): Promise<string>;
  exec(id: string, script: string): Promise<string>;
  /** Asserts that a container with these mounts is refused, and not there. */
  refused(mounts: readonly Mount[], message: RegExp): Promise<void>;
  image(options: Omit<TestImageOptions, 'name'>): Promise<ImageSpec>;
  directory(name: string): string;
  /** A directory that is a shared mount, with another mount below. A tmpfs could not be idmapped before Linux 6.3. */
  tree(name: string): string;
}

export function volumeSuite(
  what: string,
  pods: readonly (readonly [where: string, namespaces: NamespaceOptions, way: string])[],
  tests: (suite: VolumeSuite) => void,
): void {
  for (const [where, options, way] of pods) {
    describe(`${what} in ${where}`, function () {
      this.timeout(60_000);
      tests(suiteOf(options, way));
    });
  }
}

function suiteOf(options: NamespaceOptions, way: string): VolumeSuite {
  const mapped = options.userns !== undefined;
  let testHost: TestHost;
  let host: OpenHost;
  let clean: Record<string, unknown>;
  let pod: string | undefined;
  let images = 0;

  before(async () => {
    testHost = makeTestHost({ 'userns-snapshots': way });
    host = await testHost.open();
    clean = traces(testHost);
    if (mapped) assert.equal(host.parts.userNamespaces.way, way);
  });
  after(() => testHost.destroy());
  afterEach(async function () {
    if (pod !== undefined) await host.runtime.sandboxes.remove(pod, call());
    pod = undefined;
    for (const path of mountsIn(testHost.dir)) execFileSync('umount', ['-l', path]);
    await assertNothingLeft(testHost, host, clean, this.currentTest?.title ?? '');
    assert.deepEqual(namesIn(host.parts.paths.volumes), []);
  });

  const suite: VolumeSuite = {
    mapped,
    get host() {
      return host;
    },
    get dir() {
      return testHost.dir;
    },
    async restart() {
      await host.runtime.close();
      host = await testHost.open();
    },
    async run() {
      if (pod !== undefined) return pod;
      const config = podConfig(testHost.dir);
      const security = { ...config.security, namespaces: options };
      pod = await host.runtime.sandboxes.run({ config: { ...config, security }, runtimeHandler: '' }, call());
      return pod;
    },
    container: (script, changes = {}) =>
      containerConfig(script, { ...changes, security: { namespaces: options, ...changes.security } }),
    output: async (script, changes) =>
      (await runToEnd(host, await suite.run(), suite.container(script, changes))).output,
    create: async (sandboxId, config) => await host.runtime.containers.create({ sandboxId, config }, call()),
    async exec(id, script) {
      const { stdout } = await host.runtime.containers.execSync(id, ['/bin/sh', '-c', script], 10, call());
      return Buffer.from(stdout).toString();
    },
    async refused(mounts, message) {
      const before = host.runtime.containers.list({}).length;
      await assert.rejects(suite.create(await suite.run(), suite.container('true', { mounts })), (error) => {
        assert.ok(isKind(error, 'invalid-argument') || isKind(error, 'not-found'), String(error));
        assert.match(String(error), message);
        return true;
      });
      assert.equal(host.runtime.containers.list({}).length, before);
    },
    async image(imageOptions) {
      const image = `test.example/image:${++images}`;
      const layout = buildTestImage(join(testHost.dir, `layout-${images}`), { ...imageOptions, name: image });
      await host.runtime.images.import(layout, image, call());
      return { image, userSpecifiedImage: image, annotations: {}, runtimeHandler: '' };
    },
    directory(name) {
      const path = join(testHost.dir, name);
      mkdirSync(path, { recursive: true });
      return path;
    },
    tree(name) {
      const dir = suite.directory(name);
      mkdirSync(join(dir, 'below'), { recursive: true });
      execFileSync('mount', ['--bind', dir, dir]);
      execFileSync('mount', ['--make-rshared', dir]);
      execFileSync('mount', ['--bind', suite.directory(`${name}-below`), join(dir, 'below')]);
      return dir;
    },
  };
  return suite;
}

/** Of a directory that need not be there. */
export const namesIn = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);

/** Mount points of tests, innermost first; namespaces that pods pin are not counted. */
export function mountsIn(dir: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((text) => text.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(`${dir}/`) && !path.includes('/netns/'))
    .reverse();
}
