import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { open } from 'lmdb';
import { decodeRecord, encodeRecord, openStore, type StoreOptions } from './store.js';

describe('state/store', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'berth-store-'))));
  const options = (changes: Partial<StoreOptions> = {}): StoreOptions => ({
    path: join(dir, 'disk'),
    quickPath: join(dir, 'quick'),
    onQuarantine: assert.fail,
    onCopyFailed: assert.fail,
    ...changes,
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it('keeps records over a restart, bigints and bytes included', async () => {
    const first = openStore(options());
    first.table<object>('pods', 1).put('a', { at: 12n, env: new Uint8Array([255, 0]), name: 'x' });
    await first.close();
    const second = openStore(options());
    assert.deepEqual(second.table('pods', 1).get('a'), { at: 12n, env: new Uint8Array([255, 0]), name: 'x' });
    await second.close();
  });

  it('sets an unreadable record aside and goes on', async () => {
    const root = open({ path: join(dir, 'disk'), maxDbs: 16, encoding: 'binary' });
    root.openDB<Buffer, string>({ name: 'pods', encoding: 'binary' }).putSync('bad', Buffer.from('{oops'));
    await root.close();
    const reported: string[] = [];
    const store = openStore(options({ onQuarantine: (table, key) => reported.push(`${table}/${key}`) }));
    const table = store.table<{ ok: boolean }>('pods', 1);
    table.put('good', { ok: true });
    assert.deepEqual([...table.entries()], [['good', { ok: true }]]);
    assert.deepEqual(reported, ['pods/bad']);
    assert.deepEqual([...table.entries()].length, 1);
    assert.deepEqual(reported, ['pods/bad'], 'reported once');
    await store.close();
  });

  it('keeps quick records over a restart, and over a reboot from the copy on disk', async () => {
    const first = openStore(options());
    const pods = first.quickTable<{ n: number }>('pods', 1);
    for (let n = 0; n < 50; n++) pods.put(`k${n}`, { n });
    pods.delete('k0');
    await first.close();
    const second = openStore(options());
    assert.equal([...second.quickTable('pods', 1).entries()].length, 49);
    second.quickTable<{ n: number }>('pods', 1).put('late', { n: 1 });
    await second.close();
    rmSync(join(dir, 'quick'), { recursive: true });
    const third = openStore(options());
    const found = new Map(third.quickTable<{ n: number }>('pods', 1).entries());
    assert.equal(found.size, 50);
    assert.deepEqual(found.get('late'), { n: 1 });
    await third.close();
  });

  it('commits a transaction whole or not at all', async () => {
    const store = openStore(options());
    const table = store.table<number>('n', 1);
    assert.throws(() =>
      store.transaction(() => {
        table.put('one', 1);
        throw new Error('half way');
      }),
    );
    assert.equal(table.get('one'), undefined);
    await store.close();
  });

  it('refuses a record of a newer release', () => {
    assert.throws(() => decodeRecord(encodeRecord({}, 2), 1), /version 2, this release reads up to 1/);
  });
});
