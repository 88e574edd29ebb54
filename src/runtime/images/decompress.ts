import { Transform, type TransformCallback } from 'node:stream';
import * as zlib from 'node:zlib';
import { Decompress } from 'fzstd';
import { messageOf, RuntimeError } from '../../kit/errors.js';

const chunkSize = 256 * 1024;

export type Compression = 'gzip' | 'zstd' | 'none';

/** By the first bytes, not by the media type: many a layer is called what it is not. */
export function detectCompression(head: Uint8Array): Compression {
  if (head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
  if (head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd) return 'zstd';
  /* A zstd skippable frame, as zstd:chunked layers may start with. */
  const skippable = ((head[0] ?? 0) & 0xf0) === 0x50 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18;
  return skippable ? 'zstd' : 'none';
}

/** A stream that undoes the compression, or undefined when there is none. Its errors are of kind `corrupt`. */
export function decompressor(compression: Compression): Transform | undefined {
  if (compression === 'none') return undefined;
  if (compression === 'gzip') return zlib.createGunzip({ chunkSize });
  const native = (zlib as { createZstdDecompress?: (options: { chunkSize: number }) => Transform })
    .createZstdDecompress;
  return native === undefined ? zstdStream() : native({ chunkSize });
}

/** Node has a native zstd decoder from 22.15 on; before, this one in JavaScript does the work. */
function zstdStream(): Transform {
  const decoder = new Decompress();
  const attempt = (work: () => void, done: TransformCallback): void => {
    try {
      work();
      done();
    } catch (error) {
      done(new RuntimeError('corrupt', `zstd: ${messageOf(error)}`));
    }
  };
  return new Transform({
    construct(done) {
      decoder.ondata = (data) => void this.push(data);
      done();
    },
    transform(chunk: Uint8Array, _encoding, done) {
      attempt(() => decoder.push(chunk), done);
    },
    flush(done) {
      attempt(() => decoder.push(new Uint8Array(0), true), done);
    },
  });
}
