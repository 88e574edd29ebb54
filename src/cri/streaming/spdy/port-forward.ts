import type { Duplex } from 'node:stream';
import { forwardPort, readPort, type DialPort } from '../port-forward.js';
import { fair } from '../read-ahead.js';
import { SpdyConnection } from './connection.js';
import type { SpdyStream } from './stream.js';

export const portForwardProtocols = ['portforward.k8s.io'];

interface Pair {
  readonly timer: NodeJS.Timeout;
  data?: SpdyStream;
  error?: SpdyStream;
}

/**
 * Port-forward over SPDY: for each connection the client opens an error stream and a data stream that name the same
 * request and port. Resolves when the client has gone.
 */
export function servePortForward(transport: Duplex, dial: DialPort, timeoutMs: number): Promise<void> {
  const pairs = new Map<string, Pair>();
  const giveUp = (id: string): void => {
    const pair = pairs.get(id);
    pairs.delete(id);
    pair?.data?.destroy();
    pair?.error?.end('the other stream of this connection was not opened in time');
  };
  new SpdyConnection(transport, fair, (stream) => {
    const type = stream.headers.get('streamtype');
    const port = readPort(stream.headers.get('port'));
    if ((type !== 'data' && type !== 'error') || port === undefined) return void stream.destroy();
    if (type === 'error') stream.resume();
    const id = requestOf(stream, type);
    const pair = pairs.get(id) ?? { timer: setTimeout(() => giveUp(id), timeoutMs) };
    if (pair[type] !== undefined) return void stream.destroy();
    pair[type] = stream;
    pairs.set(id, pair);
    const { data, error } = pair;
    if (data === undefined || error === undefined) return;
    clearTimeout(pair.timer);
    pairs.delete(id);
    void forwardPort(port, data, error, dial);
  });
  return new Promise((resolve) => {
    transport.once('close', () => {
      for (const { timer } of pairs.values()) clearTimeout(timer);
      resolve();
    });
  });
}

/** Clients of before 1.4 number nothing and open the data stream right after the error stream. */
function requestOf(stream: SpdyStream, type: 'data' | 'error'): string {
  return stream.headers.get('requestid') ?? `stream ${type === 'error' ? stream.id : stream.id - 2}`;
}
