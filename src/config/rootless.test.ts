import assert from 'node:assert/strict';
import { isKind } from '../kit/errors.js';
import { loadConfig } from './load.js';

const load = (env: Record<string, string>, flags: Record<string, string> = {}) =>
  loadConfig({ rootless: true, env, flags });

describe('configuration of an ordinary user', () => {
  const env = { HOME: '/home/anna', XDG_RUNTIME_DIR: '/run/user/1000' };

  it('has its places in the user’s directories', () => {
    const config = load(env);
    assert.equal(config.root, '/home/anna/.local/share/berth');
    assert.equal(config.state, '/run/user/1000/berth');
    assert.equal(config.socket, '/run/user/1000/berth/berth.sock');
    assert.equal(config.network.netnsDir, '/run/user/1000/berth/netns');
    assert.equal(config.images.certsDir, '/home/anna/.config/berth/certs.d');
    assert.equal(config.network.mode, 'builtin');
  });

  it('follows the base directories of the environment, and settings before them', () => {
    const config = load({ ...env, XDG_DATA_HOME: '/data', XDG_CONFIG_HOME: '/conf' }, { state: '/s' });
    assert.equal(config.root, '/data/berth');
    assert.equal(config.images.certsDir, '/conf/berth/certs.d');
    assert.deepEqual([config.state, config.network.netnsDir], ['/s', '/s/netns']);
  });

  it('is refused where a place is not known', () => {
    const refused = (given: Record<string, string>, message: RegExp): void =>
      assert.throws(
        () => load(given),
        (error) => isKind(error, 'invalid-argument') && message.test((error as Error).message),
      );
    refused({ XDG_RUNTIME_DIR: '/run/user/1000' }, /HOME/);
    refused({ HOME: '/home/anna' }, /set XDG_RUNTIME_DIR/);
    assert.equal(load({ HOME: '/home/anna', BERTH_STATE: '/s' }).state, '/s');
  });

  it('is the system’s for everybody else', () => {
    assert.equal(loadConfig({ env, file: '/dev/null' }).root, '/var/lib/berth');
  });
});
