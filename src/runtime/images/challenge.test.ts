import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { credentialsFor, parseChallenges, printableUrl } from './challenge.js';

const none = { username: '', password: '', auth: '', serverAddress: '', identityToken: '', registryToken: '' };
const basic = (text: string): { basic: string } => ({ basic: Buffer.from(text).toString('base64') });

describe('WWW-Authenticate', () => {
  it('is read with one challenge or several, quoted or not', () => {
    assert.deepEqual(
      parseChallenges('Bearer realm="https://a.example/t?x=1,2",service=b , scope="repository:c:pull,push"'),
      [
        {
          scheme: 'bearer',
          parameters: { realm: 'https://a.example/t?x=1,2', service: 'b', scope: 'repository:c:pull,push' },
        },
      ],
    );
    assert.deepEqual(parseChallenges('Basic realm="a \\"b\\"", Bearer realm="c"'), [
      { scheme: 'basic', parameters: { realm: 'a "b"' } },
      { scheme: 'bearer', parameters: { realm: 'c' } },
    ]);
    assert.deepEqual(parseChallenges('BASIC'), [{ scheme: 'basic', parameters: {} }]);
    assert.deepEqual(parseChallenges(''), []);
  });
});

describe('credentials', () => {
  it('come from user and password, from auth, or from tokens', () => {
    assert.deepEqual(credentialsFor(undefined, 'a'), {});
    assert.deepEqual(credentialsFor(none, 'a'), {});
    assert.deepEqual(credentialsFor({ ...none, username: 'u', password: 'p' }, 'a'), basic('u:p'));
    assert.deepEqual(credentialsFor({ ...none, auth: basic('u:p:q').basic }, 'a'), basic('u:p:q'));
    assert.deepEqual(credentialsFor({ ...none, username: 'u', identityToken: 't' }, 'a'), { refreshToken: 't' });
    assert.deepEqual(credentialsFor({ ...none, registryToken: 't' }, 'a'), { bearer: 't' });
  });

  it('are kept from other servers', () => {
    const given = { ...none, username: 'u', password: 'p', serverAddress: 'https://index.docker.io/v1/' };
    assert.deepEqual(credentialsFor(given, 'docker.io'), basic('u:p'));
    assert.deepEqual(credentialsFor(given, 'quay.io'), {});
    assert.deepEqual(credentialsFor({ ...given, serverAddress: 'quay.io:443' }, 'quay.io'), {});
    assert.deepEqual(credentialsFor({ ...given, serverAddress: 'quay.io' }, 'quay.io'), basic('u:p'));
  });

  it('that are not what they should be are refused without being shown', () => {
    assert.throws(
      () => credentialsFor({ ...none, auth: 'c2VjcmV0' }, 'a'),
      (error: Error) => isKind(error, 'invalid-argument') && !/secret|c2VjcmV0/.test(error.message),
    );
  });
});

describe('URLs for people', () => {
  it('hold no secrets', () => {
    assert.equal(printableUrl('https://u:p@a.example:8443/v2/x?sig=s#f'), 'https://a.example:8443/v2/x');
    assert.equal(printableUrl('nonsense'), 'an invalid URL');
  });
});
