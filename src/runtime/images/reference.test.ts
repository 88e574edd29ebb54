import assert from 'node:assert/strict';
import { isKind } from '../../kit/errors.js';
import { formatReference, parseReference } from './reference.js';

const digest = `sha256:${'a'.repeat(64)}`;

describe('image references', () => {
  const normal: Readonly<Record<string, string>> = {
    busybox: 'docker.io/library/busybox:latest',
    'busybox:1.36': 'docker.io/library/busybox:1.36',
    'user/thing': 'docker.io/user/thing:latest',
    'docker.io/busybox': 'docker.io/library/busybox:latest',
    'index.docker.io/a/b:c': 'docker.io/a/b:c',
    'localhost/x': 'localhost/x:latest',
    'localhost:5000/x/y': 'localhost:5000/x/y:latest',
    'registry:5000/x': 'registry:5000/x:latest',
    'registry.k8s.io/pause:3.10': 'registry.k8s.io/pause:3.10',
    '[::1]:5000/x:t': '[::1]:5000/x:t',
    '[fd00::1]/x': '[fd00::1]/x:latest',
    'a/b/c/d-e__f.g:V1_2.3-x': 'docker.io/a/b/c/d-e__f.g:V1_2.3-x',
    [`busybox@${digest}`]: `docker.io/library/busybox@${digest}`,
    [`quay.io/a/b:tag@${digest}`]: `quay.io/a/b@${digest}`,
    '0123456789abcdef': 'docker.io/library/0123456789abcdef:latest',
  };
  for (const [given, expected] of Object.entries(normal)) {
    it(`reads ${given.slice(0, 40)}`, () => {
      assert.equal(formatReference(parseReference(given)), expected);
      assert.equal(formatReference(parseReference(expected)), expected);
    });
  }

  const wrong: Readonly<Record<string, RegExp>> = {
    '': /is empty/,
    'https://docker.io/busybox': /scheme/,
    Busybox: /lower case/,
    'a//b': /repository/,
    '/a': /repository/,
    'a/': /repository/,
    'a:': /tag/,
    'a:-x': /tag/,
    [`a:${'x'.repeat(129)}`]: /tag/,
    'a@sha256:short': /digest/,
    [`a@sha512:${'a'.repeat(128)}`]: /digest/,
    'bad_host.io:5000/a': /registry host/,
    'a..b/c/d': /registry host/,
    'a b': /repository/,
    'a.b.c:70000000/x': /registry host/,
    'x/../y': /repository/,
    [`a.io/${'x'.repeat(260)}`]: /longer than 255/,
    'a\u0000b': /repository/,
  };
  for (const [given, why] of Object.entries(wrong)) {
    it(`refuses ${JSON.stringify(given.slice(0, 30))}`, () => {
      assert.throws(
        () => parseReference(given),
        (error: Error) => isKind(error, 'invalid-argument') && why.test(error.message),
      );
    });
  }
});
