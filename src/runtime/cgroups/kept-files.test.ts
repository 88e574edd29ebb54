import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KeptFiles } from './kept-files.js';

describe('files of cgroups that stay open', () => {
  let root = '';
  let now = 0;
  let files: KeptFiles;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'kept-'));
    mkdirSync(join(root, 'pod/c'), { recursive: true });
    now = 0;
    files = new KeptFiles(() => now);
  });
  afterEach(() => {
    files.close();
    assert.equal(files.kept, 0);
    rmSync(root, { recursive: true });
  });
  const write = (name: string, text: string): void => writeFileSync(join(root, name), text);

  it('are read from the start each time, however long', () => {
    write('pod/a', 'one');
    assert.equal(files.read(root, '/pod', 'a'), 'one');
    write('pod/a', 'x'.repeat(300_000));
    assert.equal(files.read(root, '/pod', 'a')?.length, 300_000);
    assert.equal(files.kept, 1);
  });

  it('close with their cgroup and those below it', () => {
    for (const name of ['pod/a', 'pod/c/a']) write(name, 'x');
    files.read(root, '/pod', 'a');
    files.read(root, '/pod/c', 'a');
    files.drop('/po');
    assert.equal(files.kept, 2);
    files.drop('/pod');
    assert.equal(files.kept, 0);
  });

  it('are looked for again some time after they were not there', () => {
    assert.equal(files.read(root, '/pod', 'late'), undefined);
    write('pod/late', 'here');
    assert.equal(files.read(root, '/pod', 'late'), undefined);
    now = 61_000;
    assert.equal(files.read(root, '/pod', 'late'), 'here');
  });

  it('close when nobody reads them', () => {
    for (const name of ['pod/a', 'pod/c/a']) write(name, 'x');
    files.read(root, '/pod', 'a');
    now = 6 * 60_000;
    files.read(root, '/pod/c', 'a');
    assert.equal(files.kept, 1);
  });
});
