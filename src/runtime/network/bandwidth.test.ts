import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { bandwidthOf } from './bandwidth.js';

const invalid = (message: RegExp) => (error: unknown) => {
  assert.ok(isKind(error, 'invalid-argument'), String(error));
  assert.match(error.message, message);
  return true;
};

describe('bandwidth annotations', () => {
  const ingress = 'kubernetes.io/ingress-bandwidth';

  it('reads quantities as bits per second', () => {
    assert.deepEqual(bandwidthOf({ [ingress]: '10M', 'kubernetes.io/egress-bandwidth': '1Gi' }), {
      ingressRate: 10_000_000,
      egressRate: 1_073_741_824,
    });
    assert.equal(bandwidthOf({}), undefined);
  });

  it('refuses others', () => {
    for (const text of ['', '10', '5m', '-1M', '2000P', 'x']) {
      assert.throws(() => bandwidthOf({ [ingress]: text }), invalid(/^annotations\["kubernetes/), text);
    }
  });
});
