import type { Duplex } from 'node:stream';
import { finished } from 'node:stream/promises';
import { RuntimeError } from '../../../kit/errors.js';
import { patient } from '../read-ahead.js';
import type { CommandChannels, CommandOptions } from '../command.js';
import { lastWords, type Outcome } from '../outcome.js';
import { SpdyConnection } from './connection.js';
import type { SpdyStream } from './stream.js';

/** Newest first; clients say in which order they like them. */
export const commandProtocols = ['v4.channel.k8s.io', 'v3.channel.k8s.io', 'v2.channel.k8s.io', 'channel.k8s.io'];

type StreamType = 'error' | 'stdin' | 'stdout' | 'stderr' | 'resize';

/** Which streams the client will open. Sizes come since version 3; a terminal has no stderr of its own. */
function expectedStreams(options: CommandOptions, protocol: string): readonly StreamType[] {
  const knowsSizes = protocol.startsWith('v3.') || protocol.startsWith('v4.');
  return [
    'error',
    ...(options.stdin ? (['stdin'] as const) : []),
    ...(options.stdout ? (['stdout'] as const) : []),
    ...(options.stderr && !options.terminal ? (['stderr'] as const) : []),
    ...(options.terminal && knowsSizes ? (['resize'] as const) : []),
  ];
}

/**
 * Waits for the client to open its streams. Rejects with `deadline` after `timeoutMs` milliseconds, `unavailable`
 * when the client leaves before; the connection is over then.
 */
export async function acceptCommandStreams(
  transport: Duplex,
  options: CommandOptions,
  protocol: string,
  timeoutMs: number,
): Promise<CommandChannels> {
  const expected = expectedStreams(options, protocol);
  const streams = new Map<string, SpdyStream>();
  const gone = new AbortController();
  return await new Promise((resolve, reject) => {
    const connection = new SpdyConnection(transport, patient, (stream) => {
      const type = stream.headers.get('streamtype') ?? '';
      if (!(expected as readonly string[]).includes(type) || streams.has(type)) return void stream.destroy();
      streams.set(type, stream);
      if (type === 'error' || type === 'stdout' || type === 'stderr') stream.resume(); // the client's end closes unread
      if (streams.size < expected.length) return;
      clearTimeout(timer);
      resolve(channelsOf(connection, streams, gone.signal, protocol));
    });
    const timer = setTimeout(() => {
      connection.close();
      const missing = expected.filter((type) => !streams.has(type)).join(', ');
      reject(new RuntimeError('deadline', `the client has not opened its streams in ${timeoutMs} ms: ${missing}`));
    }, timeoutMs);
    const leave = (): void => {
      clearTimeout(timer);
      gone.abort(new RuntimeError('cancelled', 'the client has gone'));
      reject(new RuntimeError('unavailable', 'the client has gone'));
    };
    transport.once('end', leave).once('close', leave);
    if (transport.destroyed) leave();
  });
}

function channelsOf(
  connection: SpdyConnection,
  streams: ReadonlyMap<string, SpdyStream>,
  gone: AbortSignal,
  protocol: string,
): CommandChannels {
  return {
    stdin: streams.get('stdin'),
    stdout: streams.get('stdout'),
    stderr: streams.get('stderr'),
    resizes: streams.get('resize'),
    gone,
    async finish(outcome: Outcome) {
      const error = streams.get('error');
      if (error !== undefined && !error.destroyed) {
        error.end(lastWords(outcome, protocol.startsWith('v4.')));
        await finished(error, { readable: false }).catch(() => undefined);
      }
      connection.close();
    },
  };
}
