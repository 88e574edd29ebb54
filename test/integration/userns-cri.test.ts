import assert from 'node:assert/strict';
import { status as grpc, type ServiceError } from '@grpc/grpc-js';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as api from '../../api/cri/v1/generated/api.js';
import { serveCri, type CriServer } from '../../src/cri/server.js';
import { criClient, type CriClient } from '../support/cri-client.js';
import { usePods } from '../support/pods.js';
import { testImage } from '../support/runtime.js';

const { POD, CONTAINER, NODE, TARGET } = api.NamespaceMode;
type Options = api.DeepPartial<api.NamespaceOption>;
type UserNamespace = api.DeepPartial<api.UserNamespace>;

const line = (hostId: number, containerId = 0, length = 65536) => ({ hostId, containerId, length });
const lines = (hostId: number): UserNamespace => ({ mode: POD, uids: [line(hostId)], gids: [line(hostId)] });

/** User namespaces as the kubelet and critest ask for them, over the socket. */
describe('user namespaces over the CRI', function () {
  this.timeout(60_000);
  const pods = usePods({ flags: { 'userns-handlers': 'own', 'userns-ranges': '30000000:131072' } });
  let server: CriServer;
  let client: CriClient;
  const serve = async (): Promise<void> => {
    server = await serveCri({
      runtime: pods.host.runtime,
      socketPath: join(pods.testHost.dir, 'cri.sock'),
      identity: { name: 'berth', version: '0' },
    });
    client = criClient(server.socketPath);
  };
  const stop = async (): Promise<void> => {
    client.close();
    await server.close(1000);
  };
  before(serve);
  after(stop);

  let sequence = 0;
  const sandbox = (namespaceOptions: Options): api.DeepPartial<api.PodSandboxConfig> => {
    const name = `pod-${++sequence}`;
    const logDirectory = join(pods.testHost.dir, 'logs', name);
    mkdirSync(logDirectory, { recursive: true });
    return {
      metadata: { name, uid: name, namespace: 'test', attempt: 0 },
      logDirectory,
      linux: { securityContext: { namespaceOptions } },
    };
  };
  const run = async (usernsOptions?: UserNamespace, options: Options = {}, runtimeHandler = '') => {
    const config = sandbox({ pid: CONTAINER, ...options, ...(usernsOptions === undefined ? {} : { usernsOptions }) });
    const { podSandboxId } = await client.runtime.runPodSandbox({ config, runtimeHandler });
    return { id: podSandboxId, config };
  };
  const create = async (pod: Awaited<ReturnType<typeof run>>, namespaceOptions: Options, command: string[]) => {
    const { containerId } = await client.runtime.createContainer({
      podSandboxId: pod.id,
      sandboxConfig: pod.config,
      config: {
        metadata: { name: `c-${++sequence}` },
        image: { image: testImage },
        command,
        logPath: 'log',
        linux: { securityContext: { namespaceOptions: { pid: CONTAINER, ...namespaceOptions } } },
      },
    });
    return containerId;
  };
  /** The container's own view of its ids. */
  const mapOf = async (pod: Awaited<ReturnType<typeof run>>, namespaceOptions: Options): Promise<string> => {
    const id = await create(pod, namespaceOptions, ['cat', '/proc/self/uid_map', '/proc/self/gid_map']);
    await client.runtime.startContainer({ containerId: id });
    assert.ok(await pods.host.parts.registry.waitForExit(id, 20_000));
    const log = readFileSync(join(pod.config.logDirectory ?? '', 'log'), 'utf8')
      .trim()
      .split('\n');
    return log.map((text) => text.split(/ +/).slice(3).join(' ').trim()).join(', ');
  };
  const refused = async (work: Promise<unknown>, code: grpc, message: RegExp): Promise<void> => {
    await assert.rejects(work, (error: ServiceError) => {
      assert.equal(error.code, code, error.message);
      assert.match(error.details, message);
      return true;
    });
  };

  it('are among the features of every handler, those with the host’s network too', async () => {
    const { runtimeHandlers, features } = await client.runtime.status();
    assert.deepEqual(
      runtimeHandlers.map(({ name, features }) => [name, features?.userNamespaces]),
      [
        ['', true],
        ['berth', true],
        ['own', true],
      ],
    );
    assert.equal(features?.userNamespacesHostNetwork, true);
  });

  const wrong: readonly (readonly [string, UserNamespace, RegExp])[] = [
    ['several mappings', { mode: POD, uids: [line(1), line(2)], gids: [line(1)] }, /uids: only one mapping/],
    ['id 0 unmapped', { mode: POD, uids: [line(1000, 1)], gids: [line(1000)] }, /uids: container id 0 must be mapped/],
    ['gid 0 unmapped', { mode: POD, uids: [line(1000)], gids: [line(1000, 1)] }, /gids: container id 0 must be mapped/],
    ['uids without gids', { mode: POD, uids: [line(1000)] }, /must be given together/],
    ['mode CONTAINER', { ...lines(1000), mode: CONTAINER }, /userns_options\.mode: value 1 is not supported/],
    ['mode TARGET', { ...lines(1000), mode: TARGET }, /userns_options\.mode: value 3 is not supported/],
    ['mode NODE with mappings', { ...lines(1000), mode: NODE }, /mode NODE must not have mappings/],
    ['no length', { mode: POD, uids: [line(1000, 0, 0)], gids: [line(1000)] }, /length: must not be 0/],
    ['ids beyond 2^32', { mode: POD, uids: [line(2 ** 32 - 2)], gids: [line(1000)] }, /uids\[0\]\.host_id: /],
  ];
  for (const [what, option, message] of wrong) {
    it(`are refused with ${what}`, async () => {
      await refused(run(option), grpc.INVALID_ARGUMENT, message);
      assert.deepEqual((await client.runtime.listPodSandbox()).items, []);
    });
  }

  for (const kind of ['pid', 'ipc'] as const) {
    it(`are refused with the host’s ${kind} namespace, whoever asked for them`, async () => {
      const message = new RegExp(`\\.${kind}: is node, which a pod in a user namespace cannot be`);
      await refused(run(lines(1_000_000), { [kind]: NODE }), grpc.INVALID_ARGUMENT, message);
      await refused(run(undefined, { [kind]: NODE }, 'own'), grpc.INVALID_ARGUMENT, message);
    });
  }

  it('are none where nothing or NODE is said, and one mapping is told back as it was given', async () => {
    for (const none of [undefined, { mode: NODE }]) {
      const pod = await run(none);
      assert.equal(await mapOf(pod, {}), '0 0 4294967295, 0 0 4294967295');
      await client.runtime.removePodSandbox({ podSandboxId: pod.id });
    }
    const usernsOptions = { mode: POD, uids: [line(1_000_000)], gids: [line(2_000_000)] };
    const pod = await run(usernsOptions);
    assert.equal(await mapOf(pod, { usernsOptions }), '0 1000000 65536, 0 2000000 65536');
    const { status } = await client.runtime.podSandboxStatus({ podSandboxId: pod.id });
    assert.deepEqual(status?.linux?.namespaces?.options?.usernsOptions, usernsOptions);
  });

  it('of a container are its pod’s, or it is refused', async () => {
    const pod = await run(lines(1_000_000));
    const plain = await run();
    const disagreeing: readonly (readonly [typeof pod, Options])[] = [
      [pod, {}],
      [pod, { usernsOptions: { mode: NODE } }],
      [pod, { usernsOptions: lines(2_000_000) }],
      [pod, { usernsOptions: { mode: POD, uids: [line(1_000_000)], gids: [line(1_000_000, 0, 10)] } }],
      [plain, { usernsOptions: lines(1_000_000) }],
    ];
    for (const [where, options] of disagreeing) {
      await refused(
        create(where, options, ['true']),
        grpc.INVALID_ARGUMENT,
        /userns_options: is .*, but the pod's is /,
      );
    }
    for (const mode of [CONTAINER, TARGET]) {
      const usernsOptions = { ...lines(1_000_000), mode };
      await refused(
        create(pod, { usernsOptions }, ['true']),
        grpc.INVALID_ARGUMENT,
        /\.mode: value \d is not supported/,
      );
    }
    assert.deepEqual((await client.runtime.listContainers()).containers, []);
  });

  for (const kind of ['network', 'ipc'] as const) {
    it(`of the node for ${kind} are refused to a container whose pod has its own`, async () => {
      const message = new RegExp(`\\.${kind}: is node, but the pod's is pod`);
      await refused(create(await run(), { [kind]: NODE }, ['true']), grpc.INVALID_ARGUMENT, message);
    });
  }

  it('with host ids of another live pod are refused, by its name', async () => {
    const first = await run(lines(1_000_000));
    await refused(
      run(lines(1_065_535)),
      grpc.INVALID_ARGUMENT,
      /uids: host uid 1065535 is in use by pod test\/pod-\d+/,
    );
    await client.runtime.stopPodSandbox({ podSandboxId: first.id });
    await run(lines(1_065_535));
  });

  it('that a handler gives keep their range over a restart, and end when none is left', async () => {
    const given = async (id: string): Promise<number | undefined> => {
      const { status } = await client.runtime.podSandboxStatus({ podSandboxId: id });
      return status?.linux?.namespaces?.options?.usernsOptions?.uids[0]?.hostId;
    };
    const first = await run(undefined, {}, 'own');
    assert.equal(await mapOf(first, {}), '0 30000000 65536, 0 30000000 65536');
    await stop();
    await pods.reopen();
    await serve();
    assert.equal(await given(first.id), 30_000_000);
    const second = await run(undefined, {}, 'own');
    assert.equal(await given(second.id), 30_065_536);
    await refused(run(undefined, {}, 'own'), grpc.RESOURCE_EXHAUSTED, /no 65536 uids are left of userns\.ranges/);
    await client.runtime.removePodSandbox({ podSandboxId: first.id });
    assert.equal(await given((await run(undefined, {}, 'own')).id), 30_000_000);
  });
});
