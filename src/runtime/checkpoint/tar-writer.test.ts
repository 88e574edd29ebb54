import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { extract, type Header } from 'tar-stream';
import { isKind } from '../../kit/errors.js';
import { TarWriter } from './tar-writer.js';

describe('tar writer', () => {
  let dir = '';
  before(() => (dir = mkdtempSync(join(tmpdir(), 'bt-tar-'))));
  after(() => rmSync(dir, { recursive: true, force: true }));
  const never = new AbortController().signal;

  const write = async (fill: (tar: TarWriter) => Promise<void>): Promise<Buffer> => {
    const path = join(dir, 'archive.tar');
    await using file = await open(path, 'w+');
    const tar = new TarWriter(file, never);
    await fill(tar);
    await tar.end();
    assert.equal(tar.length, readFileSync(path).length);
    return readFileSync(path);
  };
  const read = async (archive: Buffer): Promise<{ header: Header; content: Buffer }[]> => {
    const found = [];
    const tar = Readable.from([archive]).pipe(extract());
    for await (const entry of tar) found.push({ header: entry.header, content: await buffer(entry) });
    return found;
  };

  it('writes what others read', async () => {
    const long = `${'d'.repeat(90)}/${'é'.repeat(40)}`;
    const capability = Buffer.from([1, 0, 0, 2]);
    const archive = await write(async (tar) => {
      await tar.bytes('small', Buffer.from('text'), 1_700_000_000);
      await tar.entry({ path: 'dir/', type: 'directory', mode: 0o40755, uid: 3_000_000_000, mtime: 5 });
      await tar.entry({ path: 'link', type: 'symlink', mode: 0o777, mtime: 5, linkTo: 'x'.repeat(150) });
      await tar.entry({ path: 'tty', type: 'char', mode: 0o600, mtime: 5, device: { major: 4, minor: 300 } });
      const xattrs = { 'security.capability': capability };
      await tar.entry({ path: Buffer.from(long).toString('latin1'), type: 'file', mode: 0o644, mtime: -1, xattrs });
    });
    const [small, directory, link, device, named] = await read(archive);
    assert.equal(small?.content.toString(), 'text');
    assert.equal(small?.header.mtime?.getTime(), 1_700_000_000_000);
    assert.deepEqual([directory?.header.type, directory?.header.mode], ['directory', 0o755]);
    assert.equal(directory?.header.uid, 3_000_000_000);
    assert.equal(link?.header.linkname, 'x'.repeat(150));
    assert.deepEqual([device?.header.devmajor, device?.header.devminor], [4, 300]);
    assert.equal(named?.header.name, long);
    assert.ok(archive.includes(Buffer.concat([Buffer.from('SCHILY.xattr.security.capability='), capability])));
  });

  it('writes an archive in an archive, whose size shows at its end', async () => {
    const archive = await write(async (tar) => {
      await tar.nested('inner.tar', 5, async (inner) => {
        await inner.bytes('one', Buffer.alloc(1000, 1), 5);
      });
      await tar.bytes('after', Buffer.from('after'), 5);
    });
    const [inner, after] = await read(archive);
    assert.equal(after?.content.toString(), 'after');
    assert.deepEqual(
      (await read(inner?.content ?? Buffer.alloc(0))).map(({ header, content }) => [header.name, content.length]),
      [['one', 1000]],
    );
  });

  it('takes as much of a file as was promised, and says when it is shorter', async () => {
    const source = join(dir, 'source');
    writeFileSync(source, 'a'.repeat(3000));
    await using file = await open(source);
    const entry = { path: 'copy', type: 'file', mode: 0o600, mtime: 5 } as const;
    const [copy] = await read(await write((tar) => tar.copy({ ...entry, size: 2000 }, file)));
    assert.equal(copy?.content.length, 2000);
    await assert.rejects(
      write((tar) => tar.copy({ ...entry, size: 4000 }, file)),
      (error) => isKind(error, 'corrupt'),
    );
  });
});
