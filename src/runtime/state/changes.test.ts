import assert from 'node:assert/strict';
import type { ExitRecord } from '../model.js';
import { containerChanges, sandboxChanges } from './changes.js';

const exit: ExitRecord = { code: 0, reason: 'Completed', message: '', finishedAt: 1n };

describe('changes', () => {
  it('of pods: created and started at once, stopped, deleted', () => {
    assert.deepEqual(sandboxChanges({ stage: 'creating' }, { stage: 'ready' }), ['created', 'started']);
    assert.deepEqual(sandboxChanges({ stage: 'ready' }, { stage: 'ready' }), []);
    assert.deepEqual(sandboxChanges({ stage: 'ready' }, { stage: 'stopped' }), ['stopped']);
    assert.deepEqual(sandboxChanges({ stage: 'stopped' }, undefined), ['deleted']);
    assert.deepEqual(sandboxChanges({ stage: 'creating' }, undefined), []);
  });

  it('of containers, also one that ended before it was known to run', () => {
    assert.deepEqual(containerChanges({ stage: 'creating' }, { stage: 'created' }), ['created']);
    assert.deepEqual(containerChanges({ stage: 'created' }, { stage: 'started' }), ['started']);
    assert.deepEqual(containerChanges({ stage: 'created' }, { stage: 'started', exit }), ['started', 'stopped']);
    assert.deepEqual(containerChanges({ stage: 'created' }, { stage: 'created', exit }), ['stopped']);
    assert.deepEqual(containerChanges({ stage: 'started', exit }, { stage: 'started', exit }), []);
    assert.deepEqual(containerChanges({ stage: 'started', exit }, undefined), ['deleted']);
    assert.deepEqual(containerChanges({ stage: 'creating' }, undefined), []);
  });
});
