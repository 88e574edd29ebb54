import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'smol-toml';
import { isKind } from '../kit/errors.js';
import { configJsonSchema } from './json-schema.js';
import { configChanges, loadConfig, type ConfigInput } from './load.js';
import { configKeys } from './names.js';
import { configToml, defaultToml } from './print.js';

describe('config', () => {
  let dir = '';
  before(() => (dir = mkdtempSync(join(tmpdir(), 'config-'))));
  after(() => rmSync(dir, { recursive: true }));

  const load = (toml: string, rest: ConfigInput = {}) => {
    const file = join(dir, 'config.toml');
    writeFileSync(file, toml);
    return loadConfig({ file, ...rest });
  };
  const refused = (toml: string, message: RegExp, rest: ConfigInput = {}) =>
    assert.throws(
      () => load(toml, rest),
      (error) => isKind(error, 'invalid-argument') && (assert.match(error.message, message), true),
    );

  it('has defaults, and derives sockets from the state directory', () => {
    const config = load('state = "/tmp/s/"');
    assert.equal(config.root, '/var/lib/berth');
    assert.equal(config.socket, '/tmp/s/berth.sock');
    assert.equal(config.admin.socket, '/tmp/s/admin.sock');
    assert.equal(config.images.stallTimeoutMs, 60_000);
    assert.ok(Object.isFrozen(config) && Object.isFrozen(config.network.cniBinDirs));
  });

  it('lets flags win over the environment and the environment over the file', () => {
    const toml = '[network]\nmtu = 1\nbridge = "a"\nmode = "cni"';
    const env = { BERTH_NETWORK_MTU: '2', BERTH_NETWORK_BRIDGE: 'b' };
    const { network } = load(toml, { env, flags: { 'network-mtu': '3' } });
    assert.deepEqual([network.mtu, network.bridge, network.mode], [3, 'b', 'cni']);
  });

  it('reads units, lists and tables', () => {
    const toml = '[runtime]\nlog_line_bytes = "1MiB"\ndrain = "1.5s"\n[runtime.rlimits]\nnofile = "1024:2048"';
    const { runtime, network } = load(toml, { env: { BERTH_NETWORK_CNI_BIN_DIRS: '/a, /b' } });
    assert.equal(runtime.logLineBytes, 1_048_576);
    assert.equal(runtime.drainMs, 1500);
    assert.deepEqual({ ...runtime.rlimits }, { nofile: '1024:2048' });
    assert.deepEqual(network.cniBinDirs, ['/a', '/b']);
  });

  it('refuses what it does not know, and says what was meant', () => {
    refused(
      '[network]\ncni_config_dir = "/x"',
      /network\.cni_config_dir: unknown key \(did you mean "network\.cni_conf_dir"\?\)/,
    );
    refused('sokcet = "/x"', /did you mean "socket"/);
    refused('[netwrok]\nmtu = 1', /netwrok: unknown key \(did you mean "network"\?\)/);
  });

  it('refuses wrong values, and says where they came from', () => {
    refused('[network]\nmtu = "big"', /config\.toml: network\.mtu: must be an integer, not "big"/);
    refused('', /environment variable BERTH_LOG_LEVEL: must be one of debug, info/, {
      env: { BERTH_LOG_LEVEL: 'loud' },
    });
    refused('', /flag --root: must be an absolute path/, { flags: { root: 'data' } });
    refused('root = ""', /must not be empty/);
    refused('[tracing]\nsampling = 2', /must be 1 or less/);
    refused('[runtime]\ndrain = 5', /must be a duration like/);
    refused('a = = 1', /config\.toml:1:5: /);
  });

  it('wants a file that was named, and no other', () => {
    writeFileSync(join(dir, 'good.toml'), '');
    assert.throws(() => loadConfig({ file: join(dir, 'none.toml') }), /configuration file ".*none\.toml" not found/);
    assert.equal(loadConfig({ env: { BERTH_CONFIG: join(dir, 'good.toml') }, flags: { root: '/r' } }).root, '/r');
  });

  it('prints defaults that read back as the defaults', () => {
    const uncommented = defaultToml().replace(/^#(?=\w)/gm, '');
    assert.deepEqual(load(uncommented), load(''));
    assert.deepEqual(load(configToml(load('[network]\nmtu = 9'))), load('[network]\nmtu = 9'));
    for (const { name } of configKeys) assert.match(defaultToml(), new RegExp(`^#${name.split('.').at(-1)} = `, 'm'));
  });

  it('describes every key in the JSON schema', () => {
    const count = (schema: unknown): number => {
      const { properties } = schema as { properties?: Record<string, unknown> };
      return properties === undefined
        ? 1
        : Object.values(properties).reduce<number>((sum, each) => sum + count(each), 0);
    };
    assert.equal(count(configJsonSchema()), configKeys.length);
    assert.ok(Object.keys(parse(defaultToml())).length > 5);
  });

  it('tells which changes need a restart', () => {
    const changes = configChanges(load(''), load('root = "/other"\n[log]\nlevel = "debug"'));
    assert.deepEqual(changes, [
      { name: 'root', reloadable: false },
      { name: 'log.level', reloadable: true },
    ]);
  });
});
