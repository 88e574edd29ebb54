import assert from 'node:assert/strict';
import type { Call } from '../kit/call.js';
import { isKind, RuntimeError } from '../kit/errors.js';
import { silentObserver } from '../kit/observer.js';
import { JoinedRequests } from './join.js';

const caller = (signal = new AbortController().signal): Call => ({ signal, observer: silentObserver });
const never = (signal: AbortSignal): Promise<string> =>
  new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason as Error);
    signal.addEventListener('abort', () => reject(signal.reason as Error));
  });

describe('joined requests', () => {
  it('are done once, and go on when their caller leaves', async () => {
    const joined = new JoinedRequests();
    let finish: (id: string) => void = () => undefined;
    let runs = 0;
    const work = async (): Promise<string> => {
      runs += 1;
      return await new Promise((resolve) => (finish = resolve));
    };
    const leaving = new AbortController();
    const first = joined.run('create a', caller(leaving.signal), work);
    leaving.abort();
    await assert.rejects(first, (error) => isKind(error, 'cancelled') && /the work goes on/.test(error.message));
    const second = joined.run('create a', caller(), work);
    await new Promise(setImmediate);
    finish('id');
    assert.equal(await second, 'id');
    assert.equal(runs, 1);
    assert.deepEqual(joined.underway(), []);
  });

  it('end with what they are for, and with nothing else', async () => {
    const joined = new JoinedRequests();
    const work = async ({ signal }: Call): Promise<string> => await never(signal);
    const mine = joined.run('create a', caller(), work, 'pod');
    const other = joined.run('create b', caller(), work, 'other pod');
    const rejected = assert.rejects(mine, /the pod is stopped/);
    await joined.abort(new RuntimeError('cancelled', 'the pod is stopped'), 'pod');
    await rejected;
    assert.deepEqual(
      joined.underway().map(({ name }) => name),
      ['create b'],
    );
    const ended = assert.rejects(other, /the agent stops/);
    await joined.abort(new RuntimeError('cancelled', 'the agent stops'));
    await ended;
    assert.deepEqual(joined.underway(), []);
  });

  it('tell what they are at and how far it has come', async () => {
    const joined = new JoinedRequests();
    const request = joined.run('create a', caller(), async ({ observer, signal }) => {
      await observer.step('reserve name', () => undefined);
      return await observer.step('prepare snapshot', () =>
        observer.step('remap snapshot', () => {
          observer.progress?.({ entries: 10 });
          observer.progress?.({ entries: 20 });
          return never(signal);
        }),
      );
    });
    await new Promise(setImmediate);
    const [underway] = joined.underway();
    assert.deepEqual(
      underway?.steps.map(({ name, progress }) => [name, progress]),
      [
        ['prepare snapshot', undefined],
        ['remap snapshot', { entries: 20 }],
      ],
    );
    const ended = assert.rejects(request);
    await joined.abort(new RuntimeError('cancelled', 'over'));
    await ended;
  });
});
