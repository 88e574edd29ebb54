import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Duplex, Readable } from 'node:stream';
import { RuntimeError, isErrno, messageOf } from '../kit/errors.js';
import type { Observer } from '../kit/observer.js';
import { checkedIdentity, type PluginIdentity } from './plugin.js';

/** A plugin that lies on this host, to be started by us. */
export interface InstalledPlugin extends PluginIdentity {
  readonly path: string;
  /** Content of NN-name.conf or name.conf; '' without either. */
  readonly config: string;
}

/** A started plugin: its end of the connection, and its process. */
export interface StartedPlugin {
  readonly trunk: Duplex;
  /** Ends the process, at last by force. Gone is fine. */
  stop(): void;
}

/** The descriptor a started plugin finds its connection at. */
const socketDescriptor = 3;
/** Milliseconds from SIGTERM to SIGKILL. */
const stopGraceMs = 2000;

/**
 * Executable files of the directory, by name. Those whose name is not `NN-name`, or whose configuration cannot be read,
 * are noted and left out. A directory that is missing holds none.
 */
export function installedPlugins(pluginDir: string, configDir: string, note: Observer['note']): InstalledPlugin[] {
  return namesIn(pluginDir).flatMap((file) => {
    const path = join(pluginDir, file);
    try {
      const facts = statSync(path);
      if (!facts.isFile() || (facts.mode & 0o111) === 0) return [];
      const [index = '', ...rest] = file.split('-');
      const identity = checkedIdentity(index, rest.join('-'));
      return [{ ...identity, path, config: configOf(configDir, file, identity.name) }];
    } catch (error) {
      note('warn', `plugin ${path} is left out: ${messageOf(error)}`);
      return [];
    }
  });
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir).sort();
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

function configOf(dir: string, file: string, name: string): string {
  for (const path of [join(dir, `${file}.conf`), join(dir, `${name}.conf`)]) {
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
    }
  }
  return '';
}

/** Starts a plugin with one end of a socket pair. What it writes becomes log lines. */
export function startPlugin(plugin: InstalledPlugin, note: Observer['note']): StartedPlugin {
  const child = spawn(plugin.path, [], {
    env: {
      NRI_PLUGIN_NAME: plugin.name,
      NRI_PLUGIN_IDX: plugin.index,
      NRI_PLUGIN_SOCKET: `${socketDescriptor}`,
    },
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  const facts = { plugin: `${plugin.index}-${plugin.name}` };
  const trunk = child.stdio[socketDescriptor] as Duplex;
  child.on('error', (error) =>
    trunk.destroy(new RuntimeError('unavailable', `start ${plugin.path}: ${error.message}`)),
  );
  for (const stream of [child.stdout, child.stderr])
    createInterface({ input: stream as Readable }).on('line', (line) => note('info', line, facts));
  return { trunk, stop: () => stop(child) };
}

function stop(child: ChildProcess): void {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), stopGraceMs);
  child.once('exit', () => clearTimeout(timer));
}
