import { pino, type DestinationStream, type Logger } from 'pino';
import type { Config } from '../config.js';

export type { Logger } from 'pino';

/** Where secrets travel in what we log: registry credentials and the environment of containers. */
const secrets = ['auth', 'password', 'identityToken', 'registryToken', 'env', 'authorization'];

/** Writes to standard error by default: standard output belongs to the command's own answer. */
export function createLogger(config: Config['log'], destination?: DestinationStream): Logger {
  const stream = destination ?? pino.destination({ dest: 2, sync: true });
  const options = {
    level: config.level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: secrets.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]),
  };
  return pino(options, config.format === 'json' ? stream : { write: (line: string) => stream.write(forPeople(line)) });
}

/** One JSON line as a person likes it: `12:01:02.345 warn  message key=value`. */
function forPeople(line: string): string {
  const { level, time, msg, ...facts } = JSON.parse(line) as Record<string, unknown>;
  const rest = Object.entries(facts).map(([name, value]) => ` ${name}=${plain(value)}`);
  return `${String(time).slice(11, 23)} ${String(level).padEnd(5)} ${String(msg ?? '')}${rest.join('')}\n`;
}

const plain = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));
