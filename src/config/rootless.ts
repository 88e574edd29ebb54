import { join } from 'node:path';
import { invalid } from '../kit/errors.js';

type Environment = Readonly<Record<string, string | undefined>>;

/** Where the files of an agent of an ordinary user are (XDG Base Directory Specification). */
export interface RootlessDefaults {
  readonly file: string;
  /** By the names of keys. A place that the environment does not tell is absent. */
  readonly values: Readonly<Record<string, unknown>>;
}

/** Defaults that differ for an ordinary user. Throws `invalid-argument` without HOME. */
export function rootlessDefaults(env: Environment): RootlessDefaults {
  const home = env['HOME'];
  if (home === undefined || home === '') throw invalid('environment variable HOME', 'is not set');
  const config = join(env['XDG_CONFIG_HOME'] || join(home, '.config'), 'berth');
  const data = join(env['XDG_DATA_HOME'] || join(home, '.local/share'), 'berth');
  const runtime = env['XDG_RUNTIME_DIR'];
  return {
    file: join(config, 'config.toml'),
    values: {
      root: data,
      state: runtime ? join(runtime, 'berth') : '',
      'network.mode': 'builtin',
      'network.netns_dir': '',
      'nri.socket_path': runtime ? join(runtime, 'berth/nri.sock') : '',
      'nri.plugin_path': join(config, 'nri/plugins'),
      'nri.plugin_config_path': join(config, 'nri/conf.d'),
      'images.certs_dir': join(config, 'certs.d'),
    },
  };
}
