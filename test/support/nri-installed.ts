/** An installed plugin: serves the connection it inherited, and writes what it was configured with to the named file. */
import { writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { servePlugin } from './nri-plugin.js';

const { NRI_PLUGIN_SOCKET, ...env } = process.env;
const plugin = servePlugin(new Socket({ fd: Number(NRI_PLUGIN_SOCKET) }));
const { config, runtimeName, runtimeVersion } = await plugin.configured;
console.log('told to write');
writeFileSync(config, JSON.stringify({ runtimeName, runtimeVersion, pid: process.pid, env: Object.keys(env).sort() }));
await plugin.closed;
