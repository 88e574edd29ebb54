import assert from 'node:assert/strict';
import { volume } from '../../../test/support/userns.js';
import type { Mount } from '../model.js';
import { declaredPaths } from './volumes.js';

const at = (containerPath: string): Mount => volume('/srv', containerPath);

describe('volumes an image declares', () => {
  it('are normal paths, each once', () => {
    assert.deepEqual(declaredPaths(['/a', '/a/', 'b/./c', '/../d', '//e//f/..', '/a/b/../..//a'], []), [
      '/a',
      '/b/c',
      '/d',
      '/e',
    ]);
  });

  it('make way for a mount at their place or above', () => {
    const declared = ['/data', '/data/sub', '/database', '/other'];
    assert.deepEqual(declaredPaths(declared, [at('/data/')]), ['/database', '/other']);
    assert.deepEqual(declaredPaths(declared, [at('/data/sub/more'), at('/x/../other')]), [
      '/data',
      '/data/sub',
      '/database',
    ]);
  });

  for (const path of ['/', '', '.', '/..', '/a/..', '/a\0b']) {
    it(`cannot be ${JSON.stringify(path)}`, () => {
      assert.throws(
        () => declaredPaths([path], []),
        /config\.image: the image declares the volume ".*", which cannot be/,
      );
    });
  }

  it('are not more than a container can have', () => {
    const many = Array.from({ length: 129 }, (_, index) => `/v${index}`);
    assert.throws(() => declaredPaths(many, []), /declares 129 volumes, more than 128/);
  });
});
