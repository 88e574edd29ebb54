import assert from 'node:assert/strict';
import { isKind } from './errors.js';
import { SharedWork } from './shared-work.js';

const never = new AbortController().signal;
const turn = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve));
const nothing = (): void => undefined;

describe('shared work', () => {
  it('is done once, and its progress and outcome are everybody’s', async () => {
    const shared = new SharedWork<number, string>();
    let runs = 0;
    let finish = nothing as (value: string) => void;
    const start = async (_: AbortSignal, report: (progress: number) => void): Promise<string> => {
      runs += 1;
      report(1);
      return await new Promise((resolve) => (finish = resolve));
    };
    const seen: number[][] = [[], []];
    const first = shared.join('k', never, (each) => seen[0]?.push(each), start);
    await turn();
    const second = shared.join('k', never, (each) => seen[1]?.push(each), start);
    finish('done');
    assert.deepEqual(await Promise.all([first, second]), ['done', 'done']);
    assert.deepEqual([runs, seen], [1, [[1], [1]]]);
    const third = shared.join('k', never, nothing, async () => 'anew');
    assert.equal(await third, 'anew');
  });

  it('ends when the last has left, not before', async () => {
    const shared = new SharedWork<number, string>();
    let aborted = false;
    const start = async (signal: AbortSignal): Promise<string> =>
      await new Promise((_, reject) =>
        signal.addEventListener('abort', () => {
          aborted = true;
          reject(signal.reason);
        }),
      );
    const [a, b] = [new AbortController(), new AbortController()];
    const first = shared.join('k', a.signal, nothing, start);
    const second = shared.join('k', b.signal, nothing, start);
    a.abort();
    await assert.rejects(first, (error) => isKind(error, 'cancelled'));
    await turn();
    assert.equal(aborted, false);
    b.abort();
    await assert.rejects(second, (error) => isKind(error, 'cancelled'));
    await shared.settled();
    assert.equal(aborted, true);
  });

  it('is not joined by who has gone already, nor once everybody has left', async () => {
    const shared = new SharedWork<number, number>();
    await assert.rejects(
      shared.join('k', AbortSignal.abort(), nothing, async () => 1),
      (error) => isKind(error, 'cancelled'),
    );
    const controller = new AbortController();
    const first = shared.join('k', controller.signal, nothing, async () => await new Promise<number>(nothing));
    controller.abort();
    await assert.rejects(first);
    assert.equal(await shared.join('k', never, nothing, async () => 2), 2);
  });
});
