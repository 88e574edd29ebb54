import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { chooseProtocol } from './negotiate.js';
import { exitOutcome, errorOutcome, lastWords, success } from './outcome.js';
import { readPort } from './port-forward.js';
import { Tokens } from './tokens.js';

describe('streaming', () => {
  it('redeems a token once, and within its time', () => {
    let now = 0;
    const tokens = new Tokens<string>(60_000, () => now);
    const [first, second] = [tokens.issue('a'), tokens.issue('b')];
    assert.match(first, /^[\w-]{43}$/);
    assert.equal(tokens.redeem(first), 'a');
    assert.equal(tokens.redeem(first), undefined);
    now = 60_001;
    assert.equal(tokens.redeem(second), undefined);
    assert.equal(tokens.redeem('nothing'), undefined);
  });

  it('lets a bounded number of requests wait', () => {
    let now = 0;
    const tokens = new Tokens<number>(1000, () => now);
    for (let i = 0; i < 1000; i++) tokens.issue(i);
    assert.throws(
      () => tokens.issue(1000),
      (error) => isKind(error, 'exhausted'),
    );
    now = 1001;
    tokens.issue(1001);
  });

  it('takes the client’s first protocol that it knows', () => {
    assert.equal(chooseProtocol(['v9', 'v4', 'v3'], ['v3', 'v4'], 'v1'), 'v4');
    assert.equal(chooseProtocol([], ['v3', 'v4'], 'v1'), 'v1');
    assert.equal(chooseProtocol(['v9'], ['v3'], 'v1'), undefined);
  });

  it('ends with the status object, or before version 4 with words', () => {
    assert.deepEqual(JSON.parse(lastWords(success, true)), { metadata: {}, status: 'Success' });
    assert.deepEqual(JSON.parse(lastWords(exitOutcome(3), true)), {
      metadata: {},
      status: 'Failure',
      message: 'command terminated with non-zero exit code: exit status 3',
      reason: 'NonZeroExitCode',
      details: { causes: [{ reason: 'ExitCode', message: '3' }] },
    });
    assert.equal(lastWords(exitOutcome(0), false), '');
    assert.match(lastWords(exitOutcome(2), false), /exit status 2/);
    const failed = JSON.parse(lastWords(errorOutcome('exec', new Error('no such file')), true)) as { code: number };
    assert.equal(failed.code, 500);
  });

  it('reads port numbers and nothing else', () => {
    assert.deepEqual(['80', '65535', '0', '65536', '-1', '8x', '', undefined].map(readPort), [
      80,
      65_535,
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });
});
