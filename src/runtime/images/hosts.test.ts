import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { endpointsOf, parseHosts } from './hosts.js';

const parse = (text: string, host = 'docker.io') => parseHosts(text, '/etc/berth/certs.d/x', host);

describe('hosts.toml', () => {
  it('absent means the registry itself: TLS, but for this machine; Docker Hub by its own name', async () => {
    const url = async (host: string): Promise<string | undefined> => (await endpointsOf(undefined, host))[0]?.url;
    assert.equal(await url('quay.io'), 'https://quay.io/v2');
    assert.equal(await url('docker.io'), 'https://registry-1.docker.io/v2');
    assert.equal(await url('localhost:5000'), 'http://localhost:5000/v2');
    assert.equal(await url('127.0.0.1:5000'), 'http://127.0.0.1:5000/v2');
    assert.equal(await url('127.0.0.1.example.com'), 'https://127.0.0.1.example.com/v2');
  });

  it('gives mirrors in order, then the server', () => {
    const endpoints = parse(`
      server = "https://registry-1.docker.io"
      [host."https://one.example"]
        capabilities = ["pull"]
      [host."http://two.example:5000/proxy"]
        skip_verify = true
        ca = ["ca.pem", "/abs/ca.pem"]
        client = [["cert.pem", "key.pem"], "both.pem"]
        dial_timeout = "1m30s"
        [host."http://two.example:5000/proxy".header]
          x-one = "1"
          x-many = ["a", "b"]
      [host."https://three.example/base/v2/"]
        override_path = true
    `);
    assert.deepEqual(
      endpoints.map((each) => [each.url, each.isNamed]),
      [
        ['https://one.example/v2', false],
        ['http://two.example:5000/proxy/v2', false],
        ['https://three.example/base/v2', false],
        ['https://registry-1.docker.io/v2', true],
      ],
    );
    const [one, two] = endpoints;
    assert.deepEqual([one?.canPull, one?.canResolve], [true, false]);
    assert.deepEqual(two?.caFiles, ['/etc/berth/certs.d/x/ca.pem', '/abs/ca.pem']);
    assert.deepEqual(two?.clients, [
      { certFile: '/etc/berth/certs.d/x/cert.pem', keyFile: '/etc/berth/certs.d/x/key.pem' },
      { certFile: '/etc/berth/certs.d/x/both.pem', keyFile: '/etc/berth/certs.d/x/both.pem' },
    ]);
    assert.deepEqual(two?.headers, { 'x-one': '1', 'x-many': 'a, b' });
    assert.deepEqual([two?.skipVerify, two?.dialTimeoutMs], [true, 90_000]);
  });

  it('knows the registry again among its own mirrors', () => {
    const [first, last] = parse('[host."https://quay.io"]\nskip_verify = true\n', 'quay.io');
    assert.deepEqual([first?.isNamed, last?.isNamed], [true, true]);
  });

  const mistakes: Readonly<Record<string, RegExp>> = {
    'server =': /hosts\.toml: /,
    'server = 1': /server: must be a string/,
    'server = "ftp://x"': /server: is no http/,
    '[host."http://x y"]': /is no http/,
    'host = 1': /host: must be a table/,
    '[host."https://x"]\ncapabilities = ["fly"]': /capabilities: "fly" is not known/,
    '[host."https://x"]\nskip_verify = "yes"': /skip_verify: must be true or false/,
    '[host."https://x"]\ndial_timeout = "soon"': /dial_timeout: is no duration/,
  };
  for (const [text, why] of Object.entries(mistakes)) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      assert.throws(
        () => parse(text),
        (error: Error) => isKind(error, 'invalid-argument') && why.test(error.message),
      );
    });
  }
});
