import assert from 'node:assert/strict';
import type { IdMapping } from '../model.js';
import {
  faultOf,
  formatRanges,
  keyOf,
  lastFromZero,
  mappedRanges,
  mapsAll,
  overlap,
  parseLines,
  parseRanges,
  rootOf,
  sameLines,
  toContainer,
  toHost,
} from './mapping.js';

const line = (containerId: number, hostId: number, size: number): IdMapping => ({ containerId, hostId, size });

describe('id mappings', () => {
  const gap = [line(0, 100000, 1000), line(2000, 200000, 10)];

  it('translate both ways, and know what they do not map', () => {
    assert.equal(toHost(gap, 0), 100000);
    assert.equal(toHost(gap, 999), 100999);
    assert.equal(toHost(gap, 1000), undefined);
    assert.equal(toHost(gap, 2009), 200009);
    assert.equal(toHost(gap, 2010), undefined);
    assert.equal(toContainer(gap, 200009), 2009);
    assert.equal(toContainer(gap, 0), undefined);
  });

  it('uids and gids have roots of their own', () => {
    assert.deepEqual(rootOf({ uids: [line(0, 5, 1)], gids: [line(0, 7, 1)] }), { uid: 5, gid: 7 });
    assert.throws(() => rootOf({ uids: [line(0, 5, 1)], gids: [line(1, 7, 1)] }), /container gid 0 is not mapped/);
  });

  for (const [what, lines, fault] of [
    ['one line', [line(0, 65536, 65536)], undefined],
    ['two lines', gap, undefined],
    ['the whole range', [line(0, 0, 0xffff_ffff)], undefined],
    ['nothing', [], /0 must be mapped/],
    ['no root', [line(1, 1, 1)], /0 must be mapped/],
    ['zero size', [line(0, 1, 0)], /maps nothing/],
    ['overflow of host ids', [line(0, 0xffff_fff0, 16)], /ends above/],
    ['overflow of container ids', [line(0, 1, 1), line(0xffff_ffff, 5, 1)], /ends above/],
    ['a container id twice', [line(0, 1, 10), line(9, 100, 1)], /container id 9 is mapped twice/],
    ['a host id twice', [line(0, 1, 10), line(10, 10, 1)], /host id 10 is mapped twice/],
    ['a negative id', [line(0, -1, 10)], /no line of ids/],
    ['too many lines', Array.from({ length: 341 }, (_, i) => line(i, i, 1)), /takes 340/],
  ] as const) {
    it(`${fault === undefined ? 'takes' : 'refuses'} ${what}`, () => {
      const found = faultOf(lines);
      if (fault === undefined) assert.equal(found, undefined);
      else assert.match(found ?? '', fault);
    });
  }

  it('hold ranges of ids, with holes where lines do not meet', () => {
    assert.deepEqual(mappedRanges([]), []);
    assert.deepEqual(mappedRanges([line(10, 500, 5), line(0, 9000, 10), line(20, 1, 1)]), [
      [0, 14],
      [20, 20],
    ]);
  });

  for (const [ids, isMapped] of [
    [[], true],
    [[[0, 0]], true],
    [[[0, 999]], true],
    [[[0, 1000]], false],
    [[[1000, 1999]], false],
    [[[999, 2000]], false],
    [
      [
        [0, 5],
        [2000, 2009],
      ],
      true,
    ],
    [
      [
        [0, 5],
        [2000, 2010],
      ],
      false,
    ],
    [
      [
        [1500, 1500],
        [2000, 2009],
      ],
      false,
    ],
    [[[70_000, 4_294_967_295]], false],
  ] as const) {
    it(`${isMapped ? 'map' : 'do not map'} ${formatRanges(ids)}`, () => {
      const [none, whole] = [[line(0, 0, 1)], [line(0, 0, 0xffff_ffff)]];
      assert.equal(mapsAll({ uids: gap, gids: none }, { uids: ids, gids: [] }), isMapped);
      assert.equal(mapsAll({ uids: none, gids: gap }, { uids: [[0, 0]], gids: ids }), isMapped);
      assert.equal(mapsAll({ uids: whole, gids: gap }, { uids: ids, gids: [[1000, 1000]] }), false);
    });
  }

  it('map ids that run over lines which continue each other inside', () => {
    const split = [line(0, 500, 10), line(10, 100, 10)];
    assert.ok(mapsAll({ uids: split, gids: split }, { uids: [[0, 19]], gids: [[9, 10]] }));
  });

  it('ranges are the same after writing and reading', () => {
    const text = '0,5-7,70000-4294967294';
    assert.equal(formatRanges(parseRanges(text)), text);
  });

  it('overlap where they give out one host id twice', () => {
    assert.equal(overlap([line(0, 100, 10)], [line(0, 110, 10)]), undefined);
    assert.equal(overlap([line(0, 100, 10)], [line(5, 109, 10)]), 109);
    assert.equal(overlap(gap, [line(0, 200009, 1)]), 200009);
  });

  it('are the same in any order and however cut', () => {
    assert.ok(sameLines(gap, [...gap].reverse()));
    assert.ok(sameLines([line(0, 10, 5), line(5, 15, 5)], [line(0, 10, 10)]));
    assert.ok(!sameLines([line(0, 10, 5), line(5, 16, 5)], [line(0, 10, 10)]));
    assert.equal(keyOf([line(5, 15, 5), line(0, 10, 5)]), '0:10:10');
  });

  it('say how far a range from 0 goes', () => {
    assert.equal(lastFromZero(gap), 999);
    assert.equal(lastFromZero([line(1, 1, 1)]), 0);
  });

  it('are read from text', () => {
    assert.deepEqual(parseLines('0:100000:65536', '--userns'), [line(0, 100000, 65536)]);
    assert.deepEqual(parseLines('0:1:1,1:100:9', '--userns'), [line(0, 1, 1), line(1, 100, 9)]);
    for (const text of ['', '0:1', '0:1:x', '0:1:1:1', '0x0:1:1', '1:1:1', '0:1:0']) {
      assert.throws(() => parseLines(text, '--userns'), /^RuntimeError: --userns: |--userns: /);
    }
  });
});
