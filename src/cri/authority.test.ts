import assert from 'node:assert/strict';
import { AuthorityRewriter, rewriteAuthority } from './authority.js';

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const hex = (text: string): Buffer => Buffer.from(text.replace(/\s+/g, ''), 'hex');

function frame(type: number, flags: number, payload: Uint8Array, stream = 1): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header[3] = type;
  header[4] = flags;
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

const literal = (value: string): Buffer => Buffer.concat([Buffer.from([value.length]), Buffer.from(value, 'latin1')]);

/** `:authority` with incremental indexing, name from the static table, no Huffman code. */
const authority = (value: string): Buffer => Buffer.concat([Buffer.from([0x41]), literal(value)]);
const method = Buffer.from([0x83]); // :method POST
const path = Buffer.concat([Buffer.from([0x44]), literal('/runtime.v1.RuntimeService/Version')]);

const endHeaders = 0x4;
const settings = frame(4, 0, Buffer.alloc(0), 0);

const socketPath = '/run/berth/berth.sock';
const legal = '-run-berth-berth.sock';
const before = Buffer.concat([method, authority(socketPath), path]);
const after = Buffer.concat([method, authority(legal), path]);

/** "/run/berth/berth.sock" in HPACK's Huffman code (RFC 7541, appendix B), written out by hand. */
const huffmanCodes: Readonly<Record<string, string>> = {
  '/': '011000',
  '-': '010110',
  '.': '010111',
  r: '101100',
  u: '101101',
  n: '101010',
  b: '100011',
  e: '00101',
  t: '01001',
  h: '100111',
  s: '01000',
  o: '00111',
  c: '00100',
  k: '1110101',
  '~': '1111111111101',
  '^': '11111111111100',
  '\\': '1111111111111110000',
  ' ': '010100',
};

function huffman(value: string): Buffer {
  const bits = [...value].map((character) => huffmanCodes[character] ?? assert.fail(character)).join('');
  const padded = bits.padEnd(Math.ceil(bits.length / 8) * 8, '1');
  const bytes = (padded.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2));
  return Buffer.from([0x80 | bytes.length, ...bytes]);
}

const rewritten = (block: Buffer): Buffer => {
  const copy = Buffer.from(block);
  rewriteAuthority(copy);
  return copy;
};

describe('rewriteAuthority', () => {
  it('replaces path separators in a plain value, and nothing else', () => {
    assert.deepEqual(rewritten(before), after);
  });

  it('replaces them in a Huffman coded value, in the same number of bits', () => {
    for (const value of [socketPath, '/', '//', 'r/k/k/~/^/\\/e/', '^\\~/']) {
      const block = Buffer.concat([method, Buffer.from([0x41]), huffman(value), path]);
      const expected = Buffer.concat([method, Buffer.from([0x41]), huffman(value.replaceAll('/', '-')), path]);
      assert.deepEqual(rewritten(block), expected, value);
    }
  });

  it('understands every way to write a literal field', () => {
    for (const start of [[0x41], [0x01], [0x11]]) {
      const block = Buffer.concat([Buffer.from(start), literal(socketPath)]);
      assert.deepEqual(rewritten(block), Buffer.concat([Buffer.from(start), literal(legal)]));
    }
    for (const start of [0x40, 0x00, 0x10]) {
      const name = Buffer.concat([Buffer.from([start]), literal(':authority')]);
      assert.deepEqual(rewritten(Buffer.concat([name, literal(socketPath)])), Buffer.concat([name, literal(legal)]));
    }
  });

  it('finds the value behind table size updates and long fields', () => {
    const long = 'x'.repeat(300);
    const length300 = hex('7fad01');
    const field = Buffer.concat([Buffer.from([0x40]), literal('a'), length300, Buffer.from(long)]);
    const block = Buffer.concat([hex('3fe11f'), field, authority(socketPath)]);
    assert.deepEqual(rewritten(block), Buffer.concat([hex('3fe11f'), field, authority(legal)]));
  });

  it('leaves other fields, indexed fields and legal authorities alone', () => {
    for (const block of [path, hex('828684be'), authority('localhost'), authority('%2Frun%2Fx.sock')]) {
      assert.deepEqual(rewritten(block), block);
    }
  });

  it('leaves what it cannot read to the HTTP/2 library', () => {
    for (const block of [hex('41'), hex('410f2f'), hex('ffffffffffff'), hex('41ffffffffffff'), hex('00')]) {
      assert.deepEqual(rewritten(block), block);
    }
  });
});

describe('AuthorityRewriter', () => {
  const pass = (chunks: readonly Buffer[]): Buffer => {
    const rewriter = new AuthorityRewriter();
    const out = chunks.map((chunk) => Buffer.from(rewriter.push(Buffer.from(chunk))));
    return Buffer.concat([...out, rewriter.flush()]);
  };
  const split = (bytes: Buffer, size: number): Buffer[] =>
    Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
      bytes.subarray(index * size, (index + 1) * size),
    );

  const data = frame(0, 1, Buffer.from('/not/a/header/'));
  const streamOf = (...frames: readonly Buffer[]): Buffer => Buffer.concat([preface, settings, ...frames]);
  const cases: readonly (readonly [string, Buffer, Buffer])[] = [
    ['one HEADERS frame', frame(1, endHeaders, before), frame(1, endHeaders, after)],
    ['padding', padded(before), padded(after)],
    ['priority', frame(1, 0x24, prioritised(before)), frame(1, 0x24, prioritised(after))],
    ['CONTINUATION frames', continued(before), continued(after)],
  ];

  function padded(block: Buffer): Buffer {
    return frame(1, 0x8 | endHeaders, Buffer.concat([Buffer.from([3]), block, Buffer.from('///')]));
  }
  function prioritised(block: Buffer): Buffer {
    return Buffer.concat([Buffer.from([0, 0, 0, 0, 15]), block]);
  }
  function continued(block: Buffer): Buffer {
    const parts = [block.subarray(0, 5), block.subarray(5, 6), block.subarray(6, 6), block.subarray(6)];
    const [first, ...rest] = parts as [Buffer, ...Buffer[]];
    const frames = rest.map((part, index) => frame(9, index === rest.length - 1 ? endHeaders : 0, part));
    return Buffer.concat([frame(1, 0, first), ...frames]);
  }

  for (const [what, sent, expected] of cases) {
    it(`rewrites ${what}, however the bytes arrive`, () => {
      const wire = streamOf(sent, data, sent, data);
      for (let size = 1; size <= wire.length; size++) {
        assert.deepEqual(pass(split(wire, size)), streamOf(expected, data, expected, data), `reads of ${size} bytes`);
      }
    });
  }

  it('keeps nothing back that is no header block', () => {
    const rewriter = new AuthorityRewriter();
    const wire = streamOf(frame(0, 0, Buffer.alloc(100_000, '/')));
    for (const part of split(wire, 1000)) assert.equal(rewriter.push(Buffer.from(part)).length, part.length);
  });

  it('gives an endless header block up', () => {
    const rewriter = new AuthorityRewriter();
    rewriter.push(Buffer.from(streamOf()));
    let passed = 0;
    for (let sent = 0; sent < 40; sent++)
      passed += rewriter.push(frame(sent === 0 ? 1 : 9, 0, Buffer.alloc(16_384))).length;
    assert.equal(passed, 40 * (16_384 + 9));
  });

  it('passes on what is no HTTP/2', () => {
    const http1 = Buffer.from('GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n');
    assert.deepEqual(pass(split(http1, 7)), http1);
  });
});
