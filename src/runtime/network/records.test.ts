import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openRecords } from './records.js';

describe('network records', () => {
  let directory: string;
  beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'berth-records-'))));
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it('keeps records, and sets aside what it cannot read', () => {
    const said: string[] = [];
    const records = openRecords(
      directory,
      (value) => value as { a: number },
      (message) => said.push(message),
    );
    records.put('x', { a: 1 });
    assert.deepEqual([records.get('x'), records.ids()], [{ a: 1 }, ['x']]);
    writeFileSync(join(directory, 'y.json'), '{"a"');
    assert.equal(records.get('y'), undefined);
    assert.equal(said.length, 1);
    records.delete('x');
    records.delete('x');
    assert.deepEqual(readdirSync(directory), ['y.json.unreadable']);
    assert.deepEqual(records.ids(), []);
  });

  it('takes away what a crash left half written', () => {
    writeFileSync(join(directory, 'x.json.new'), '');
    openRecords(
      directory,
      (value) => value,
      () => assert.fail(),
    );
    assert.deepEqual(readdirSync(directory), []);
  });
});
