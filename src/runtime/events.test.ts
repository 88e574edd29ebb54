import assert from 'node:assert/strict';
import { isKind } from '../kit/errors.js';
import { EventFeed } from './events.js';
import type { RuntimeEvent } from './facade.js';

const event = (objectId: string): RuntimeEvent => ({
  type: 'created',
  objectId,
  timestamp: 1n,
  sandbox: undefined,
  containers: [],
});

async function collect(events: AsyncIterable<RuntimeEvent>, into: string[]): Promise<void> {
  for await (const { objectId } of events) into.push(objectId);
}

describe('events', () => {
  it('reach every subscriber in order, also those published while it works on others', async () => {
    const feed = new EventFeed();
    const gone = new AbortController();
    const [first, second]: [string[], string[]] = [[], []];
    const done = [collect(feed.subscribe(gone.signal), first), collect(feed.subscribe(gone.signal), second)];
    for (let i = 0; i < 5000; i++) {
      feed.publish(event(String(i)));
      if (i % 100 === 0) await new Promise(setImmediate);
    }
    await new Promise(setImmediate);
    gone.abort();
    await Promise.all(done);
    assert.deepEqual(
      first,
      Array.from({ length: 5000 }, (_, i) => String(i)),
    );
    assert.deepEqual(second, first);
  });

  it('end for a subscriber that does not read, and for nobody else', async () => {
    const feed = new EventFeed();
    const events = feed.subscribe(new AbortController().signal);
    for (let i = 0; i < 20_000; i++) feed.publish(event(String(i)));
    await assert.rejects(collect(events, []), (error) => isKind(error, 'exhausted'));
    feed.publish(event('later'));
  });

  it('stop at once for a signal that has aborted', async () => {
    const seen: string[] = [];
    await collect(new EventFeed().subscribe(AbortSignal.abort()), seen);
    assert.deepEqual(seen, []);
  });
});
