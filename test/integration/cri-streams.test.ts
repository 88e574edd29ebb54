import assert from 'node:assert/strict';
import { Client, credentials, status as grpc } from '@grpc/grpc-js';
import type { ClientReadableStream, ServiceError } from '@grpc/grpc-js';
import * as api from '../../api/cri/v1/generated/api.js';
import { EventFeed } from '../../src/runtime/events.js';
import { containerView, sandboxView, serveFake, type Served } from './cri-fixtures.js';

describe('CRI streams', () => {
  let served: Served;
  beforeEach(async () => (served = await serveFake()));
  afterEach(() => served.stop());

  it('list every item once, in chunks, and nothing when there is nothing', async () => {
    const { fake, client } = served;
    assert.deepEqual(await client.runtime.streamPodSandboxes(), []);
    const ids = Array.from({ length: 1234 }, (_, i) => `pod-${i}`);
    for (const id of ids) fake.sandboxes.set(id, sandboxView(id));
    const messages = await client.runtime.streamPodSandboxes();
    assert.ok(messages.length > 1);
    assert.ok(messages.every(({ podSandboxes }) => podSandboxes.length > 0));
    assert.deepEqual(
      messages.flatMap(({ podSandboxes }) => podSandboxes.map(({ id }) => id)),
      ids,
    );
    assert.deepEqual(await client.runtime.streamContainers(), []);
    assert.deepEqual(await client.images.streamImages(), []);
  });

  describe('of events', () => {
    let feed: EventFeed;
    let client: Client;
    let stream: ClientReadableStream<api.ContainerEventResponse>;
    let listening: number;

    beforeEach(() => {
      feed = new EventFeed();
      listening = 0;
      const events = (signal: AbortSignal) => {
        listening++;
        signal.addEventListener('abort', () => listening--, { once: true });
        return feed.subscribe(signal);
      };
      Object.assign(served.fake.runtime, { events });
      client = new Client(`unix://${served.server.socketPath}`, credentials.createInsecure());
      const { path, requestSerialize, responseDeserialize } = api.RuntimeServiceService.getContainerEvents;
      stream = client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, {});
    });
    afterEach(() => client.close());

    const until = async (done: () => boolean): Promise<void> => {
      while (!done()) await new Promise(setImmediate);
    };
    const publish = (objectId: string): void =>
      feed.publish({
        type: 'started',
        objectId,
        timestamp: 5n,
        sandbox: sandboxView('pod-1'),
        containers: [containerView(objectId)],
      });

    it('bring all of them in order to a client that reads', async () => {
      const seen: api.ContainerEventResponse[] = [];
      stream.on('data', (event: api.ContainerEventResponse) => seen.push(event));
      stream.on('error', () => undefined);
      await until(() => listening === 1);
      const ids = Array.from({ length: 3000 }, (_, i) => `c${i}`);
      for (const id of ids) publish(id);
      await until(() => seen.length === ids.length);
      assert.deepEqual(
        seen.map(({ containerId }) => containerId),
        ids,
      );
      const [first] = seen;
      assert.equal(first?.containerEventType, api.ContainerEventType.CONTAINER_STARTED_EVENT);
      assert.equal(first.createdAt, 5n);
      assert.equal(first.podSandboxStatus?.id, 'pod-1');
      assert.equal(first.containersStatuses[0]?.id, 'c0');
      stream.cancel();
      await until(() => listening === 0);
    });

    it('end when the server stops, and do not keep it', async () => {
      const failed = new Promise<ServiceError>((resolve) => stream.on('error', resolve));
      stream.resume();
      await until(() => listening === 1);
      await served.server.close(60_000);
      assert.equal((await failed).code, grpc.UNAVAILABLE);
      assert.equal(listening, 0);
    });
  });
});
