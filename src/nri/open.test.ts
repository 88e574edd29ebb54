import assert from 'node:assert/strict';
import { Container, PodSandbox } from '../../api/nri/v1alpha1/generated/api.js';
import { inParts } from './open.js';

describe('telling a plugin what there is', () => {
  const pods = ['a', 'b', 'c'].map((name) => PodSandbox.fromPartial({ name: name.repeat(40) }));
  const containers = ['d', 'e'].map((name) => Container.fromPartial({ name: name.repeat(40) }));

  it('takes one message where it fits, even for nothing', () => {
    assert.deepEqual(inParts(pods, containers), [{ pods, containers }]);
    assert.deepEqual(inParts([], []), [{ pods: [], containers: [] }]);
  });

  it('takes as many as needed, in order, none too long and none empty', () => {
    for (const most of [1, 60, 110, 160]) {
      const parts = inParts(pods, containers, most);
      assert.deepEqual(
        parts.flatMap((part) => part.pods),
        pods,
      );
      assert.deepEqual(
        parts.flatMap((part) => part.containers),
        containers,
      );
      for (const part of parts) {
        const count = part.pods.length + part.containers.length;
        assert.ok(count === 1 || (count > 1 && count * 50 <= most), `${count} in ${most} bytes`);
      }
    }
  });
});
