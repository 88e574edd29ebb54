import { createWebSocketStream, type WebSocket } from 'ws';
import { forwardPort, type DialPort } from '../port-forward.js';
import { fair } from '../read-ahead.js';
import { servePortForward } from '../spdy/port-forward.js';
import { WebSocketChannels } from './channels.js';

/** The first carries SPDY in its messages, as many connections as the client likes; the others one for each port. */
const tunnel = 'SPDY/3.1+portforward.k8s.io';
export const webSocketPortForwardProtocols = [
  tunnel,
  'v4.channel.k8s.io',
  'v4.base64.channel.k8s.io',
  'channel.k8s.io',
  'base64.channel.k8s.io',
];

/** Resolves when the client has gone, or every port's connection has ended. */
export async function webSocketPortForward(
  socket: WebSocket,
  protocol: string,
  ports: readonly number[],
  dial: DialPort,
  timeoutMs: number,
): Promise<void> {
  if (protocol === tunnel) return servePortForward(createWebSocketStream(socket), dial, timeoutMs);
  const channels = new WebSocketChannels(socket, protocol.includes('base64') ? 'base64' : 'binary', false, fair);
  await Promise.all(
    ports.map((port, index) => {
      const [data, errors] = [channels.open(2 * index), channels.open(2 * index + 1)];
      errors.resume();
      // Both channels begin with the port's number.
      for (const channel of [data, errors]) channel.write(Uint8Array.of(port & 0xff, port >> 8));
      return forwardPort(port, data, errors, dial);
    }),
  );
  channels.close();
}
