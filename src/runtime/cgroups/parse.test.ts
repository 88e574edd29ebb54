import assert from 'node:assert/strict';
import { parseBlkio, parseFlat, parseIoStat, parseLimit, parsePsi } from './parse.js';

describe('cgroup file formats', () => {
  it('flat keyed', () => {
    const values = parseFlat('anon 5\nfile 7\n\nbroken\nlast 9');
    assert.deepEqual(
      [...values],
      [
        ['anon', 5],
        ['file', 7],
        ['last', 9],
      ],
    );
  });

  it('limits: max and the number v1 uses for it are none', () => {
    assert.deepEqual(['max\n', '9223372036854771712\n', '4096\n', undefined].map(parseLimit), [
      undefined,
      undefined,
      4096,
      undefined,
    ]);
  });

  it('pressure, also with one line only', () => {
    const text = 'some avg10=0.12 avg60=1.00 avg300=0.00 total=123456\n';
    const psi = parsePsi(`${text}full avg10=0.01 avg60=0.00 avg300=0.00 total=99\n`);
    assert.deepEqual(psi?.some, { avg10: 0.12, avg60: 1, avg300: 0, total: 123456n });
    assert.equal(psi?.full.total, 99n);
    assert.equal(parsePsi(text)?.full.total, 0n);
    assert.equal(parsePsi(undefined), undefined);
    assert.equal(parsePsi(''), undefined);
  });

  it('v2 io, with devices that have no numbers yet', () => {
    const text = '8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:0\n253:1 rbytes=5\n';
    assert.deepEqual(parseIoStat(text), [
      { device: '8:0', readBytes: 10, writeBytes: 20, reads: 1, writes: 2 },
      { device: '253:1', readBytes: 5, writeBytes: 0, reads: 0, writes: 0 },
    ]);
  });

  it('v1 io', () => {
    const bytes = '8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\nTotal 30\n';
    const counts = '8:0 Read 1\n8:0 Write 2\n8:16 Read 4\nTotal 7\n';
    assert.deepEqual(parseBlkio(bytes, counts), [
      { device: '8:0', readBytes: 10, writeBytes: 20, reads: 1, writes: 2 },
      { device: '8:16', readBytes: 0, writeBytes: 0, reads: 4, writes: 0 },
    ]);
  });
});
