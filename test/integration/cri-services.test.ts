import assert from 'node:assert/strict';
import { status as grpc } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';
import * as api from '../../api/cri/v1/generated/api.js';
import { errorKinds, RuntimeError } from '../../src/kit/errors.js';
import { grpcCodes } from '../../src/cri/status.js';
import { containerView, fakeImage, imageId, sandboxView, serveFake } from './cri-fixtures.js';
import type { Served } from './cri-fixtures.js';

const failure = async (work: Promise<unknown>): Promise<ServiceError> => {
  try {
    await work;
  } catch (error) {
    return error as ServiceError;
  }
  return assert.fail('did not fail');
};

const metadata = { name: 'web', uid: 'u-1', namespace: 'default', attempt: 2 };
const pod = { metadata, annotations: { 'a/b': ' ünverändert\n' }, labels: { app: 'web' } };
const container = { metadata: { name: 'main' }, image: { image: imageId, userSpecifiedImage: 'busybox' } };

describe('CRI services', () => {
  let served: Served;
  before(async () => (served = await serveFake()));
  after(() => served.stop());
  beforeEach(() => {
    const { fake } = served;
    fake.seen.length = 0;
    fake.interfere = () => undefined;
    for (const map of [fake.sandboxes, fake.containers, fake.images]) map.clear();
  });

  const seen = (what: string): unknown => served.fake.seen.find((entry) => entry.what === what)?.input;

  describe('the runtime itself', () => {
    it('names itself and echoes the version', async () => {
      const { runtime } = served.client;
      const answer = { version: 'v1', runtimeName: 'berth', runtimeVersion: '0.1.0', runtimeApiVersion: 'v1' };
      assert.deepEqual(await runtime.version({ version: 'v1' }), answer);
    });

    it('tells conditions, handlers with the default one twice, and features', async () => {
      const status = await served.client.runtime.status();
      assert.deepEqual(
        status.status?.conditions.map(({ type, status }) => [type, status]),
        [
          ['RuntimeReady', true],
          ['NetworkReady', false],
        ],
      );
      assert.deepEqual(
        status.runtimeHandlers.map(({ name, features }) => [name, features?.userNamespaces]),
        [
          ['', true],
          ['berth', true],
          ['kata', false],
        ],
      );
      assert.deepEqual(status.features, {
        supplementalGroupsPolicy: true,
        userNamespacesHostNetwork: true,
        mountOptions: true,
      });
      assert.deepEqual(status.info, {});
    });

    it('gives verbose facts as JSON', async () => {
      const { info } = await served.client.runtime.status({ verbose: true });
      assert.deepEqual(info, { config: '{"root":"/var/lib/berth"}', kernel: '"6.18"' });
    });

    it('says which cgroup driver it uses, and takes the pod CIDR', async () => {
      const { runtime } = served.client;
      assert.equal((await runtime.runtimeConfig()).linux?.cgroupDriver, api.CgroupDriver.CGROUPFS);
      await runtime.updateRuntimeConfig({ runtimeConfig: { networkConfig: { podCidr: '10.1.0.0/24' } } });
      assert.equal(seen('updateRuntimeConfig'), '10.1.0.0/24');
    });
  });

  describe('pod sandboxes', () => {
    it('runs one and shows it as it was asked for', async () => {
      const { runtime } = served.client;
      const { podSandboxId } = await runtime.runPodSandbox({ config: pod, runtimeHandler: 'kata' });
      const { status } = await runtime.podSandboxStatus({ podSandboxId });
      assert.deepEqual(status?.metadata, metadata);
      assert.deepEqual(status.annotations, pod.annotations);
      assert.equal(status.runtimeHandler, 'kata');
      assert.equal(status.state, api.PodSandboxState.SANDBOX_READY);
      assert.equal(status.createdAt, 1_700_000_000_000_000_001n);
      assert.deepEqual(status.network, { ip: '10.0.0.2', additionalIps: [{ ip: 'fd00::2' }] });
      assert.equal(status.linux?.namespaces?.options?.network, api.NamespaceMode.POD);
    });

    it('stops and removes, again and again', async () => {
      const { runtime } = served.client;
      const { podSandboxId } = await runtime.runPodSandbox({ config: pod });
      for (let round = 0; round < 2; round++) await runtime.stopPodSandbox({ podSandboxId });
      const listed = await runtime.listPodSandbox();
      assert.deepEqual(
        listed.items.map((item) => item.state),
        [api.PodSandboxState.SANDBOX_NOTREADY],
      );
      for (let round = 0; round < 2; round++) await runtime.removePodSandbox({ podSandboxId });
      const error = await failure(runtime.podSandboxStatus({ podSandboxId }));
      assert.equal(error.code, grpc.NOT_FOUND);
    });

    it('filters by id, state and labels, all at once', async () => {
      const { fake, client } = served;
      const add = (id: string, state: 'ready' | 'not-ready', labels: Record<string, string>): void => {
        const view = sandboxView(id, { state });
        fake.sandboxes.set(id, { ...view, config: { ...view.config, labels } });
      };
      add('aa1', 'ready', { app: 'x' });
      add('aa2', 'not-ready', { app: 'x', tier: 'y' });
      add('bb1', 'ready', { app: 'z' });
      const list = async (filter: api.DeepPartial<api.PodSandboxFilter>): Promise<string[]> =>
        (await client.runtime.listPodSandbox({ filter })).items.map((item) => item.id);
      const ready = { state: api.PodSandboxState.SANDBOX_READY };
      const notReady = { state: api.PodSandboxState.SANDBOX_NOTREADY };
      assert.deepEqual(await list({}), ['aa1', 'aa2', 'bb1']);
      assert.deepEqual(await list({ id: 'aa' }), ['aa1', 'aa2']);
      assert.deepEqual(await list({ state: ready }), ['aa1', 'bb1']);
      assert.deepEqual(await list({ id: 'aa', state: notReady }), ['aa2']);
      assert.deepEqual(await list({ labelSelector: { app: 'x', tier: 'y' } }), ['aa2']);
      assert.deepEqual(await list({ state: ready, labelSelector: { tier: 'y' } }), []);
    });

    it('gives verbose facts under "info"', async () => {
      served.fake.sandboxes.set('p', sandboxView('p'));
      const { info } = await served.client.runtime.podSandboxStatus({ podSandboxId: 'p', verbose: true });
      assert.deepEqual(info, { info: '{"pid":1,"id":"p","big":"1","bytes":"text"}' });
    });
  });

  describe('containers', () => {
    it('creates, starts, stops and shows one', async () => {
      const { runtime } = served.client;
      const { containerId } = await runtime.createContainer({
        podSandboxId: 'pod-1',
        config: container,
        sandboxConfig: pod,
      });
      const status = async (): Promise<api.ContainerStatus> =>
        (await runtime.containerStatus({ containerId })).status ?? assert.fail();
      assert.equal((await status()).state, api.ContainerState.CONTAINER_CREATED);
      await runtime.startContainer({ containerId });
      assert.equal((await status()).state, api.ContainerState.CONTAINER_RUNNING);
      await runtime.stopContainer({ containerId, timeout: 30n });
      assert.deepEqual(seen('containers.stop'), { id: containerId, timeoutSeconds: 30 });
      const ended = await status();
      assert.equal(ended.state, api.ContainerState.CONTAINER_EXITED);
      assert.deepEqual([ended.exitCode, ended.reason, ended.finishedAt], [137, 'OOMKilled', 10n]);
      assert.deepEqual([ended.imageRef, ended.imageId, ended.image?.image], [imageId, imageId, 'busybox']);
      assert.equal(ended.resources?.linux?.memoryLimitInBytes, 64n << 20n);
      assert.deepEqual(ended.user?.linux, { uid: 1000n, gid: 1000n, supplementalGroups: [10n, 20n] });
      assert.equal(ended.stopSignal, api.Signal.SIGNAL_SIGTERM);
      await runtime.removeContainer({ containerId });
      assert.deepEqual((await runtime.listContainers()).containers, []);
    });

    it('filters by id, state, pod and labels', async () => {
      const { fake, client } = served;
      fake.containers.set('c1', containerView('c1'));
      fake.containers.set('c2', containerView('c2', { state: 'exited', sandboxId: 'pod-2' }));
      const list = async (filter: api.DeepPartial<api.ContainerFilter>): Promise<string[]> =>
        (await client.runtime.listContainers({ filter })).containers.map((item) => item.id);
      assert.deepEqual(await list({ id: 'c' }), ['c1', 'c2']);
      assert.deepEqual(await list({ podSandboxId: 'pod-2' }), ['c2']);
      assert.deepEqual(await list({ state: { state: api.ContainerState.CONTAINER_RUNNING } }), ['c1']);
      assert.deepEqual(await list({ labelSelector: { no: 'such' } }), []);
    });

    it('lists an object anew when it has changed', async () => {
      const { fake, client } = served;
      fake.containers.set('c1', containerView('c1'));
      assert.equal((await client.runtime.listContainers()).containers[0]?.state, api.ContainerState.CONTAINER_RUNNING);
      fake.containers.set('c1', containerView('c1', { state: 'exited' }));
      const { containers } = await client.runtime.listContainers();
      assert.equal(containers[0]?.state, api.ContainerState.CONTAINER_EXITED);
      assert.equal(containers[0].imageRef, containers[0].imageId);
    });

    it('updates resources and reopens the log', async () => {
      const { runtime } = served.client;
      const linux = { memoryLimitInBytes: 1n << 30n, cpuShares: 1n };
      await runtime.updateContainerResources({ containerId: 'c', linux, annotations: { a: 'b' } });
      assert.deepEqual(seen('containers.updateResources'), {
        id: 'c',
        resources: { cpuShares: 2, memoryLimit: 2 ** 30 },
        annotations: { a: 'b' },
      });
      await runtime.reopenContainerLog({ containerId: 'c' });
      assert.equal(seen('containers.reopenLog'), 'c');
    });

    it('checkpoints to where it is told', async () => {
      await served.client.runtime.checkpointContainer({ containerId: 'c', location: '/to/c.tar', timeout: 7n });
      assert.deepEqual(seen('containers.checkpoint'), { id: 'c', location: '/to/c.tar', timeoutSeconds: 7 });
    });

    it('carries the output of a command, 16 MiB of it too', async () => {
      const size = 16 << 20;
      const answer = await served.client.runtime.execSync({
        containerId: 'c',
        cmd: ['yes', String(size)],
        timeout: 3n,
      });
      assert.equal(answer.stdout.length, size);
      assert.equal(answer.stderr.toString(), 'err');
      assert.equal(answer.exitCode, 4);
      assert.deepEqual(seen('containers.execSync'), { id: 'c', command: ['yes', String(size)], timeoutSeconds: 3 });
    });

    it('tells the usage of one and of many', async () => {
      const { fake, client } = served;
      fake.containers.set('c1', containerView('c1'));
      fake.containers.set('c2', containerView('c2', { sandboxId: 'pod-2' }));
      const { stats } = await client.runtime.containerStats({ containerId: 'c1' });
      assert.equal(stats?.attributes?.id, 'c1');
      assert.equal(stats.cpu?.usageCoreNanoSeconds?.value, 2n ** 60n);
      assert.equal(stats.memory?.workingSetBytes?.value, 1n);
      assert.equal(stats.writableLayer?.fsId?.mountpoint, '/var/lib/berth');
      assert.equal(stats.swap?.swapUsageBytes?.value, 9n);
      const many = await client.runtime.listContainerStats({ filter: { podSandboxId: 'pod-2' } });
      assert.deepEqual(
        many.stats.map((entry) => entry.attributes?.id),
        ['c2'],
      );
    });
  });

  describe('images', () => {
    it('pulls one, and calls it by the same id everywhere', async () => {
      const { images } = served.client;
      const spec = { image: 'example.org/app:1', annotations: { key: 'value' } };
      const auth = { username: 'me', password: 'secret', serverAddress: 'example.org' };
      const { imageRef } = await images.pullImage({ image: spec, auth });
      assert.equal(imageRef, imageId);
      assert.deepEqual((seen('images.pull') as { auth: unknown }).auth, {
        ...auth,
        auth: '',
        identityToken: '',
        registryToken: '',
      });
      const { image } = await images.imageStatus({ image: { image: imageRef } });
      assert.deepEqual(
        [image?.id, image?.repoTags, image?.spec?.annotations],
        [imageId, [spec.image], spec.annotations],
      );
      assert.equal(image?.size, 2_000_000_000_000n);
      const { images: listed } = await images.listImages({ filter: { image: { image: spec.image } } });
      assert.deepEqual(
        listed.map((entry) => entry.id),
        [imageId],
      );
    });

    it('answers without an image when there is none', async () => {
      const { images } = served.client;
      assert.deepEqual(await images.imageStatus({ image: { image: 'none' }, verbose: true }), {
        image: undefined,
        info: {},
      });
      assert.deepEqual(await images.listImages(), { images: [] });
      await images.removeImage({ image: { image: 'none' } });
    });

    it('tells the user of an image by number or by name', async () => {
      const users = {
        '': [undefined, ''],
        '1002': [1002n, ''],
        '1003:users': [1003n, ''],
        'www-data:100': [undefined, 'www-data'],
      };
      for (const [user, expected] of Object.entries(users)) {
        const image = fakeImage(imageId);
        served.fake.images.set(imageId, { ...image, run: { ...image.run, user } });
        const { image: shown } = await served.client.images.imageStatus({ image: { image: imageId } });
        assert.deepEqual([shown?.uid?.value, shown?.username], expected, user);
      }
    });

    it('tells the space used', async () => {
      const { imageFilesystems, containerFilesystems } = await served.client.images.imageFsInfo();
      assert.equal(imageFilesystems[0]?.fsId?.mountpoint, '/var/lib/berth');
      assert.deepEqual([imageFilesystems[0].usedBytes?.value, imageFilesystems[0].inodesUsed?.value], [2n, 3n]);
      assert.deepEqual(containerFilesystems, imageFilesystems);
    });
  });

  describe('errors', () => {
    it('have the code of their kind, and their message', async () => {
      for (const kind of errorKinds) {
        served.fake.interfere = () => {
          throw new RuntimeError(kind, `because of ${kind} ✗`);
        };
        const error = await failure(served.client.runtime.stopContainer({ containerId: 'c' }));
        assert.deepEqual([error.code, error.details], [grpcCodes[kind], `because of ${kind} ✗`]);
      }
    });

    it('are INTERNAL when nobody translated them, whatever number they carry', async () => {
      for (const thrown of [Object.assign(new Error('exit'), { code: 5 }), 'text', null]) {
        served.fake.interfere = () => Promise.reject(thrown as Error);
        const error = await failure(served.client.runtime.stopContainer({ containerId: 'c' }));
        assert.equal(error.code, grpc.INTERNAL);
      }
    });

    it('survive messages no header can hold as they are, and hide what URLs hide', async () => {
      const message = `line\nline \ud800 100% https://me:pw@host/v2/x?token=abc ${'x'.repeat(20_000)}`;
      served.fake.interfere = () => Promise.reject(new RuntimeError('internal', message));
      const error = await failure(served.client.runtime.stopContainer({ containerId: 'c' }));
      assert.equal(error.code, grpc.INTERNAL);
      assert.match(error.details, /^line\nline \ufffd 100% https:\/\/redacted@host\/v2\/x\?redacted xxx/);
      assert.ok(error.details.length < 9000);
    });

    it('name the field that is wrong, before anything is done', async () => {
      const { runtime, images } = served.client;
      const cases: readonly (readonly [() => Promise<unknown>, RegExp])[] = [
        [() => runtime.runPodSandbox({}), /^config: is required/],
        [() => runtime.runPodSandbox({ config: {} }), /^config.metadata: is required/],
        [() => runtime.createContainer({ config: container }), /^pod_sandbox_id: must not be empty/],
        [
          () => runtime.createContainer({ podSandboxId: 'p', config: { ...container, logPath: '../x' } }),
          /^config.log_path: /,
        ],
        [
          () => runtime.createContainer({ podSandboxId: 'p', config: container, sandboxConfig: {} }),
          /^sandbox_config.metadata/,
        ],
        [() => runtime.stopPodSandbox(), /^pod_sandbox_id: /],
        [() => runtime.removeContainer(), /^container_id: /],
        [() => runtime.execSync({ containerId: 'c' }), /^cmd: must not be empty/],
        [() => runtime.execSync({ containerId: 'c', cmd: ['x'], timeout: -1n }), /^timeout: /],
        [() => runtime.checkpointContainer({ containerId: 'c', timeout: -1n }), /^timeout: /],
        [
          () => runtime.updateContainerResources({ containerId: 'c', linux: { cpusetCpus: 'x' } }),
          /^linux.cpuset_cpus: /,
        ],
        [
          () => runtime.listContainers({ filter: { state: { state: 9 as api.ContainerState } } }),
          /^filter.state.state: /,
        ],
        [() => images.pullImage({ image: {} }), /^image.image: must not be empty/],
        [() => images.removeImage(), /^image: is required/],
      ];
      for (const [work, message] of cases) {
        const error = await failure(work());
        assert.equal(error.code, grpc.INVALID_ARGUMENT, error.details);
        assert.match(error.details, message);
      }
      assert.deepEqual(served.fake.seen, []);
    });

    it('say UNIMPLEMENTED and the name for what a later release offers, and nothing is unknown', async () => {
      const later = new Set<string>();
      const { runtime, images } = served.client;
      const methods = { ...api.RuntimeServiceService, ...api.ImageServiceService };
      const calls: Readonly<Record<string, (() => Promise<unknown>) | undefined>> = { ...runtime, ...images };
      for (const [name, { path }] of Object.entries(methods)) {
        const error = await failure(calls[name]?.().then(() => Promise.reject(new Error('fine'))) ?? assert.fail(name));
        if (error.code !== grpc.UNIMPLEMENTED) continue;
        later.add(name);
        assert.equal(error.details, `${path.split('/').pop() ?? ''} is not offered by this release`);
      }
      // The first three need a streaming server, which this one was not given.
      const expected = ['exec', 'attach', 'portForward', 'checkpointPod', 'restorePod'];
      assert.deepEqual([...later].sort(), expected.sort());
    });
  });
});
