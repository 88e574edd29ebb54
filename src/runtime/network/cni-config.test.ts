import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isKind } from '../../kit/errors.js';
import { cniDirectory, parseCniConfig } from './cni-config.js';

const invalid = (message: RegExp) => (error: unknown) => {
  assert.ok(isKind(error, 'invalid-argument'), String(error));
  assert.match(error.message, message);
  return true;
};

describe('CNI configuration', () => {
  const list = {
    cniVersion: '0.4.0',
    name: 'net',
    plugins: [{ type: 'bridge', capabilities: { ips: true, mac: false } }],
  };
  const parse = (change: object) => parseCniConfig(JSON.stringify({ ...list, ...change }));

  it('reads lists and single plugins', () => {
    const { name, cniVersion, plugins } = parse({});
    assert.deepEqual(
      [name, cniVersion, plugins[0]?.type, plugins[0]?.capabilities],
      ['net', '0.4.0', 'bridge', ['ips']],
    );
    const single = parseCniConfig('{"cniVersion":"0.3.1","name":"one","type":"ptp","mtu":9}');
    assert.deepEqual(single.plugins[0]?.raw['mtu'], 9);
  });

  it('takes the newest version that both know', () => {
    assert.equal(parse({ cniVersions: ['0.3.1', '1.1.0', '9.0.0'] }).cniVersion, '1.1.0');
    assert.throws(() => parse({ cniVersion: '0.2.0' }), invalid(/cniVersion: "0\.2\.0" is none of/));
  });

  it('says what is wrong', () => {
    assert.throws(() => parse({ name: '../x' }), invalid(/^name: "\.\.\/x"/));
    assert.throws(() => parse({ plugins: [] }), invalid(/^plugins: want a list/));
    assert.throws(() => parse({ plugins: [{ type: '/bin/sh' }] }), invalid(/^plugins\[0\]\.type/));
    assert.throws(() => parse({ plugins: ['x'] }), invalid(/^plugins\[0\]: want an object/));
  });

  describe('directory', () => {
    let directory: string;
    const said: string[] = [];
    const write = (name: string, text: string): void => {
      writeFileSync(join(directory, name), text);
      // Two writes within the clock's tick must differ as two on a real node do.
      utimesSync(join(directory, name), new Date(), new Date(Date.now() + 1000 * ++ticks));
    };
    let ticks = 0;

    beforeEach(() => {
      directory = mkdtempSync(join(tmpdir(), 'berth-cni-config-'));
      said.length = 0;
    });
    afterEach(() => rmSync(directory, { recursive: true, force: true }));

    const named = (name: string): string => JSON.stringify({ ...list, name });

    it('has the first file by name in force, and follows changes', () => {
      const current = cniDirectory(directory, (message) => said.push(message));
      assert.deepEqual(current(), { populated: false, message: `no network configuration in ${directory}` });
      write('20.conflist', named('second'));
      assert.equal(current().config?.name, 'second');
      write('10.conflist', named('first'));
      write('00.txt', 'no configuration');
      assert.equal(current().config?.name, 'first');
      rmSync(join(directory, '10.conflist'));
      assert.equal(current().config?.name, 'second');
    });

    it('keeps what a half-written file said before', () => {
      const current = cniDirectory(directory, (message) => said.push(message));
      write('10.conflist', named('good'));
      assert.equal(current().config?.name, 'good');
      write('10.conflist', '{"cniVersion":');
      assert.equal(current().config?.name, 'good');
      assert.match(said.join(), /10\.conflist: .*; its last good content stays/);
      rmSync(join(directory, '10.conflist'));
      assert.equal(current().config, undefined);
    });

    it('passes over files that were never good', () => {
      const current = cniDirectory(directory, (message) => said.push(message));
      write('10.conflist', 'x');
      assert.deepEqual(current(), { populated: true, message: `no readable network configuration in ${directory}` });
      write('20.conflist', named('good'));
      assert.equal(current().config?.name, 'good');
    });

    it('waits for a directory that does not exist yet', () => {
      const current = cniDirectory(join(directory, 'later'), (message) => said.push(message));
      assert.equal(current().populated, false);
    });
  });
});
