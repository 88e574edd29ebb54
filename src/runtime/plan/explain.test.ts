import assert from 'node:assert/strict';
import { describeStep, failureOf, failureWords, noStep } from './explain.js';
import type { LaunchPlan } from './plan.js';

const plan: LaunchPlan = {
  kind: 'container',
  outer: [{ op: 'clone', create: ['mnt'], uidMap: [], gidMap: [], cgroupDir: '', cgroupProcs: [] }],
  inner: [
    { op: 'attach', slot: 0, target: '/etc/resolv.conf', kind: 'auto' },
    { op: 'exec', args: ['/bin/foo', 'x\u001b[2J'], env: [] },
  ],
};

describe('words for plans', () => {
  it('say step and errno of a failure', () => {
    assert.equal(failureWords(plan, 1, 'ENOENT'), 'mount /etc/resolv.conf: ENOENT');
    assert.equal(failureWords(plan, 2, 'ENOENT'), 'exec /bin/foo: ENOENT');
    assert.equal(failureWords(plan, 0, 'EACCES', 7), 'create process: EACCES (cgroup)');
    assert.equal(failureWords(plan, noStep, ''), 'launch: the process was killed');
  });

  it('make what the kernel forbids a denial', () => {
    assert.equal(failureOf(plan, 1, 'EPERM').kind, 'denied');
    assert.equal(failureOf(plan, 1, 'EIO').kind, 'internal');
  });

  it('never carry control characters to a terminal', () => {
    const exec = plan.inner[1];
    assert.ok(exec !== undefined);
    assert.equal(describeStep(exec), 'exec /bin/foo ("x\\u001b[2J", 0 environment variables)');
  });
});
