import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { gzipSync } from 'node:zlib';
import { decompressor, detectCompression } from './decompress.js';

/** A zstd frame of raw blocks: valid for every decoder, without an encoder (RFC 8878 sections 3.1.1 and 3.1.1.2). */
function zstdFrame(content: Buffer): Buffer {
  const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0]);
  header.writeUInt32LE(content.length, 5);
  const blocks: Buffer[] = [];
  for (let at = 0; at < content.length || at === 0; at += 100_000) {
    const piece = content.subarray(at, at + 100_000);
    const head = Buffer.alloc(3);
    head.writeUIntLE((piece.length << 3) | (at + 100_000 >= content.length ? 1 : 0), 0, 3);
    blocks.push(head, piece);
  }
  return Buffer.concat([header, ...blocks]);
}

async function decode(bytes: Buffer, pieceSize: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += pieceSize) pieces.push(bytes.subarray(at, at + pieceSize));
  const stage = decompressor(detectCompression(bytes));
  assert.ok(stage !== undefined);
  const out: Buffer[] = [];
  await pipeline(Readable.from(pieces), stage, async (source: AsyncIterable<Buffer>) => {
    for await (const chunk of source) out.push(chunk);
  });
  return Buffer.concat(out);
}

describe('decompression', () => {
  const content = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7) & 255));

  it('is chosen by the first bytes', () => {
    assert.equal(detectCompression(gzipSync('x')), 'gzip');
    assert.equal(detectCompression(zstdFrame(content)), 'zstd');
    assert.equal(detectCompression(Buffer.from('502a4d18', 'hex')), 'zstd');
    assert.equal(detectCompression(Buffer.from('ustar')), 'none');
    assert.equal(detectCompression(Buffer.alloc(0)), 'none');
    assert.equal(decompressor('none'), undefined);
  });

  for (const [name, bytes] of [
    ['gzip', gzipSync(content)],
    ['several gzip members', Buffer.concat([gzipSync(content.subarray(0, 1000)), gzipSync(content.subarray(1000))])],
    ['zstd', zstdFrame(content)],
    ['several zstd frames', Buffer.concat([zstdFrame(content.subarray(0, 5)), zstdFrame(content.subarray(5))])],
  ] as const) {
    it(`undoes ${name}, however it is cut`, async () => {
      for (const size of [997, 65_536, bytes.length]) assert.ok((await decode(bytes, size)).equals(content));
    });
  }

  it('fails on what is cut short or damaged', async () => {
    await assert.rejects(decode(gzipSync(content).subarray(0, 500), 100));
    await assert.rejects(decode(zstdFrame(content).subarray(0, 5000), 100));
    const damaged = gzipSync(content);
    damaged.fill(0, damaged.length - 8);
    await assert.rejects(decode(damaged, 1000));
  });
});
