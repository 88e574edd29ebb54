import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { Gate } from './gate.js';

const never = new AbortController().signal;
const turn = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve));

describe('gate', () => {
  it('lets in so many, in order, and forgets who left the queue', async () => {
    const gate = new Gate(2);
    const inside: string[] = [];
    const releases: (() => void)[] = [];
    const enter = async (name: string, signal: AbortSignal = never): Promise<void> =>
      await gate.hold(signal, name, async () => {
        inside.push(name);
        await new Promise<void>((resolve) => releases.push(resolve));
      });
    const controller = new AbortController();
    const all = [enter('a'), enter('b'), enter('c', controller.signal), enter('d'), enter('e')];
    await turn();
    assert.deepEqual(inside, ['a', 'b']);
    controller.abort();
    await assert.rejects(all[2] ?? Promise.resolve(), (error) => isKind(error, 'cancelled'));
    releases.shift()?.();
    await turn();
    assert.deepEqual(inside, ['a', 'b', 'd']);
    while (releases.length > 0) {
      releases.shift()?.();
      await turn();
    }
    await Promise.allSettled(all);
    assert.deepEqual(inside, ['a', 'b', 'd', 'e']);
  });
});
