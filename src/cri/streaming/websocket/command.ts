import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import type { CommandChannels, CommandOptions } from '../command.js';
import { lastWords, type Outcome } from '../outcome.js';
import { patient } from '../read-ahead.js';
import { WebSocketChannels } from './channels.js';

/** Newest first. A client that names none gets the oldest. */
export const webSocketCommandProtocols = [
  'v5.channel.k8s.io',
  'v4.channel.k8s.io',
  'v4.base64.channel.k8s.io',
  'channel.k8s.io',
  'base64.channel.k8s.io',
];

const numbers = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4 } as const;

/** A remote command's channels. The empty message tells the client that it is connected. */
export function webSocketCommand(socket: WebSocket, options: CommandOptions, protocol: string): CommandChannels {
  const coding = protocol.includes('base64') ? 'base64' : 'binary';
  const channels = new WebSocketChannels(socket, coding, protocol.startsWith('v5.'), patient);
  const stderr = options.stderr && !options.terminal;
  channels.send(options.stdout ? numbers.stdout : stderr ? numbers.stderr : numbers.error, new Uint8Array());
  const output = (number: number): Duplex => channels.open(number).resume();
  return {
    stdin: options.stdin ? channels.open(numbers.stdin) : undefined,
    stdout: options.stdout ? output(numbers.stdout) : undefined,
    stderr: stderr ? output(numbers.stderr) : undefined,
    resizes: options.terminal ? channels.open(numbers.resize) : undefined,
    gone: channels.gone,
    async finish(outcome: Outcome) {
      const words = lastWords(outcome, /^v[45]\./.test(protocol));
      if (words !== '')
        await new Promise<void>((done) => channels.send(numbers.error, Buffer.from(words), () => done()));
      channels.close();
    },
  };
}
